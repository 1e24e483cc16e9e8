"""`sr-transformers tune`: from a log or a prepared folder to the best model that a budget of time buys."""

import argparse

from sr_transformers.cli.values import at_least, duration, plain_warnings


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("tune", help="search for the best recipe on a log within a budget of time, and train it")
    one.add_argument("source", help="a prepared folder, or a log as for `prepare`, which is prepared with its defaults")
    one.add_argument("--output", required=True, help="folder of the search; one that was stopped goes on")
    one.add_argument("--budget", required=True, type=duration, metavar="TIME",
                     help="for all of it, search, final training and evaluation: 30m, 1h30m, 8h")  # fmt: skip
    one.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="N", help="trials side by side, which share the cores"
    )
    one.add_argument("--split", choices=("leave_one_out", "temporal", "paper", "last_basket"),
                     help="of a log that is to be prepared; leave_one_out if left out")  # fmt: skip
    one.add_argument("--seed", type=at_least(0), default=0, help="of the trainings and of the draws")
    one.add_argument("--fix", nargs="+", default=[], metavar="KEY=VALUE",
                     help="keys of recipes that are not varied: --fix num_train_epochs=20")  # fmt: skip
    one.set_defaults(
        run=_tune,
        go_on="nothing is lost: the same command goes on with the search in {output}.",
    )


def _tune(options: argparse.Namespace, rest: list[str]) -> None:
    from functools import partial

    from sr_transformers.evaluation.evaluator import table
    from sr_transformers.training.progress import silence
    from sr_transformers.tuning.search import tune

    silence()
    fixed = _fixed(options.fix)
    with plain_warnings(options.command):
        record = tune(
            options.source,
            options.output,
            options.budget,
            options.jobs,
            options.split,
            options.seed,
            fixed,
            say=partial(print, flush=True),
        )
    print(table(record.reports))
    print(f"\nwritten: {options.output}/report.md, recipe.yaml, tune.json and model/")


def _fixed(words: list[str]) -> dict[str, object]:
    """Values by key of the words `KEY=VALUE`."""
    from sr_transformers.training.recipe import parse_value

    fixed: dict[str, object] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise ValueError(f"--fix {word!r}: write KEY=VALUE, for example --fix num_train_epochs=20.")
        if key in fixed:
            raise ValueError(f"--fix {key} is given twice; keep one.")
        fixed[key] = parse_value(value, f"--fix {key}")
    return fixed
