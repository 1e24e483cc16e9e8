"""`sr-transformers train`: a recipe, trained on a prepared folder."""

import argparse
import os

from sr_transformers.cli.values import ATTENTION_HELP, plain_warnings

GO_ON = "the same command goes on from the last whole checkpoint in {output}, or anew if there is none."


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser(
        "train",
        help="train a recipe on a prepared folder",
        usage="%(prog)s [RECIPE] --data DATA --output OUTPUT [--attn NAME] [--profile FOLDER] [--KEY VALUE ...]",
        description="RECIPE is a YAML, or a name that `sr-transformers recipes` lists, for example lsrm/98k. Without "
        "it, or with `auto`, it is the one of the package that suits the log, by what `prepare` has counted.",
        epilog="Any key of the recipe is an option too and wins over the file: --learning_rate 2e-3 --seed 1",
    )
    one.add_argument("--data", required=True, help="prepared folder")
    one.add_argument("--output", required=True, help="folder of the run; an interrupted one goes on")
    one.add_argument("--attn", metavar="NAME", help=ATTENTION_HELP)
    one.add_argument("--profile", metavar="FOLDER", help="profile a few steps: a table of where time goes, and a trace")
    one.set_defaults(run=_train, takes_overrides=True, go_on=GO_ON)


def _train(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.data.prepared import PreparedData
    from sr_transformers.evaluation.evaluator import table
    from sr_transformers.training.portfolio import AUTO, auto_recipe
    from sr_transformers.training.recipe import Recipe
    from sr_transformers.training.train import leave_processes, train
    from sr_transformers.training.unread import refuse_unread

    named, rest = named_recipe(rest)
    given = overrides(rest)
    if named == AUTO:
        recipe = auto_recipe(PreparedData(options.data), given)
        if os.environ.get("RANK", "0") == "0":
            print(recipe.chosen, flush=True)
    else:
        recipe = Recipe.load(named, given)
    refuse_unread(recipe, given)
    callbacks = None
    if options.profile:
        from sr_transformers.training.profiling import StepProfiler

        callbacks = [StepProfiler(options.profile)]
    with plain_warnings(options.command):
        record = train(recipe, options.data, options.output, callbacks, attn_implementation=options.attn)
    if len(record.reports) > 1:  # the first process
        print(table(record.reports))
    leave_processes()


def named_recipe(rest: list[str]) -> tuple[str, list[str]]:
    """The recipe among the words that the parser did not know, `auto` if there is none, and the other words.

    The parser itself would take the value of an unknown option for it: it cannot know that `--seed` has one.

    >>> named_recipe(["--seed", "1", "sparse", "--patience=2"]), named_recipe(["--seed", "1"])
    (('sparse', ['--seed', '1', '--patience=2']), ('auto', ['--seed', '1']))
    """
    place = 0
    while place < len(rest) and rest[place].startswith("--"):
        place += 1 if "=" in rest[place] else 2
    return (rest[place], rest[:place] + rest[place + 1 :]) if place < len(rest) else ("auto", rest)


def overrides(rest: list[str]) -> dict[str, object]:
    """Values of recipe keys from the words `--key value` and `--key=value`.

    Raises:
        ValueError: if they do not come in pairs, or if a key is given twice.
    """
    from sr_transformers.training.recipe import parse_value

    words = [part for word in rest for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise ValueError(f"options of the recipe come as --key value; cannot read {' '.join(rest)!r}.")
    names = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"--{twice} is given twice; keep one.")
    return {
        key.removeprefix("--").replace("-", "_"): parse_value(value, key)
        for key, value in zip(words[::2], words[1::2], strict=True)
    }
