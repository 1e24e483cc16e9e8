"""The command line: `sr-transformers prepare | train | evaluate | recommend`. Each command calls one function.

Imports stand inside the commands, so that `--help` answers at once.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sr_transformers import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; errors that the user can mend are one line on stderr and exit code 2."""
    parser = build_parser()
    options, rest = parser.parse_known_args(argv)
    if rest and not getattr(options, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        options.run(options, rest)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        print(f"sr-transformers {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="sr-transformers", description="Train, evaluate and use ID-only sequential recommenders."
    )
    parser.add_argument("--version", action="version", version=f"sr-transformers {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("prepare", help="turn an interaction log into a prepared folder")
    one.add_argument("source", help="a .csv, .tsv or .parquet file, or complete-journey, or synthetic")
    one.add_argument("--output", required=True, help="folder to make")
    for column in ("user", "item", "timestamp"):
        one.add_argument(f"--{column}-column", metavar="NAME", help=f"the log's name of the {column} column")
    one.add_argument("--split", default="leave_one_out", choices=("leave_one_out", "temporal"))
    one.add_argument("--min-interactions", type=int, default=1, metavar="K", help="keep the K-core of users and items")
    one.add_argument("--validation-from", type=int, metavar="T", help="first moment of validation (temporal)")
    one.add_argument("--test-from", type=int, metavar="T", help="first moment of test (temporal)")
    one.set_defaults(run=_prepare)

    one = commands.add_parser("train", help="train a recipe on a prepared folder", epilog="Any key of the recipe is an "
                              "option too and wins over the file: --learning_rate 2e-3 --seed 1")  # fmt: skip
    one.add_argument("recipe", help="a YAML of recipes/, for example recipes/lsrm/98k.yaml")
    one.add_argument("--data", required=True, help="prepared folder")
    one.add_argument("--output", required=True, help="folder of the run; an interrupted one goes on")
    one.add_argument("--attn", metavar="NAME", help="sdpa, eager, flash_attention_2 or flex_attention")
    one.set_defaults(run=_train, takes_overrides=True)

    one = commands.add_parser("evaluate", help="full ranking of a checkpoint beside the baselines")
    one.add_argument("--model", action="append", default=[], help="folder or Hub id; may be given several times")
    one.add_argument("--data", required=True, help="prepared folder")
    one.add_argument("--part", default="test", choices=("test", "validation"))
    one.add_argument("--k", type=int, nargs="+", default=[1, 5, 10, 20, 50], help="cut-offs of HR and NDCG")
    one.add_argument("--seen", choices=("auto", "remove", "keep"), default="auto",
                     help="seen items in the ranking; auto keeps them where users repeat items")  # fmt: skip
    one.add_argument("--json", metavar="FILE", help="write the reports here too")
    one.set_defaults(run=_evaluate)

    one = commands.add_parser("recommend", help="next items for a history of raw item ids")
    one.add_argument("--model", required=True, help="folder or Hub id")
    one.add_argument("--history", nargs="+", required=True, metavar="ITEM", help="item ids, oldest first")
    one.add_argument("-k", type=int, default=10)
    one.add_argument("--keep-seen", action="store_true", help="allow items of the history itself")
    one.add_argument("--candidates", nargs="+", metavar="ITEM", help="recommend only from these")
    one.add_argument("--fallback", default="error", choices=("error", "popularity"), help="if no item is known")
    one.set_defaults(run=_recommend)
    return parser


def _prepare(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.data.prepare import prepare

    given = {"user_id": options.user_column, "item_id": options.item_column, "timestamp": options.timestamp_column}
    data = prepare(
        options.source,
        options.output,
        columns={ours: theirs for ours, theirs in given.items() if theirs},
        split=options.split,
        min_interactions=options.min_interactions,
        validation_from=options.validation_from,
        test_from=options.test_from,
    )
    print(f"{options.output}: {data.manifest['split']}. {data.manifest['leaks']}")
    for name, value in data.manifest["counts"].items():
        moment = name in ("first", "last", "validation_from", "test_from")
        shown = f"{value}" if moment else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
        print(f"  {name.replace('_', ' '):42} {shown}")


def _train(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.evaluation.evaluator import table
    from sr_transformers.training.recipe import Recipe
    from sr_transformers.training.run import leave_processes, train

    recipe = Recipe.load(options.recipe, _overrides(rest))
    record = train(recipe, options.data, options.output, attn_implementation=options.attn)
    if len(record.reports) > 1:  # the first process
        print(table(record.reports))
    leave_processes()


def _overrides(rest: list[str]) -> dict[str, object]:
    from sr_transformers.training.recipe import parse_value

    words = [part for word in rest for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise ValueError(f"options of the recipe come as --key value; cannot read {' '.join(rest)!r}.")
    return {
        key.removeprefix("--").replace("-", "_"): parse_value(value)
        for key, value in zip(words[::2], words[1::2], strict=True)
    }


def _evaluate(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.data.histories import PreparedData
    from sr_transformers.evaluation.baselines import baselines
    from sr_transformers.evaluation.evaluator import evaluate, table
    from sr_transformers.evaluation.model_scorer import ModelScorer, load_model

    data = PreparedData(options.data)
    filter_seen = {"auto": None, "remove": True, "keep": False}[options.seen]
    scorers: list = [ModelScorer(load_model(name), name=name) for name in options.model]
    for scorer in scorers:
        if scorer.model.config.vocab_size != data.vocab_size:
            raise ValueError(
                f"{scorer.name} has {scorer.model.config.vocab_size} tokens, {options.data} has {data.vocab_size}: "
                "the model was trained on another vocabulary."
            )
    scorers += baselines(data)
    reports = [evaluate(scorer, data, options.part, options.k, filter_seen, progress=True) for scorer in scorers]
    metrics = [f"{name}@{k}" for k in options.k for name in ("hr", "ndcg", "coverage")] + ["mrr", "loss"]
    print(table(reports, metrics))
    if options.json:
        Path(options.json).write_text(json.dumps(reports, indent=2) + "\n")


def _recommend(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.recommender import Recommender

    recommender = Recommender.from_pretrained(options.model)
    found = recommender.recommend(
        options.history, options.k, not options.keep_seen, options.candidates, options.fallback
    )
    for place, one in enumerate(found, 1):
        print(f"{place:3}  {one.item}  {one.probability:.4f}")


if __name__ == "__main__":
    sys.exit(main())
