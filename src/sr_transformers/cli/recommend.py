"""`sr-transformers recommend`: next items for a history, or lists for the users of a prepared log."""

import argparse
from pathlib import Path
from typing import Any

from sr_transformers.cli.values import SEEN, at_least

GO_ON = "the same command goes on after the last whole piece."


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("recommend", help="next items for a history of raw item ids, or for all users of a log")
    one.add_argument("--model", required=True, help="folder or Hub id")
    one.add_argument("--revision", help="branch, tag or commit of the model on the Hub")
    asked = one.add_mutually_exclusive_group(required=True)
    asked.add_argument("--history", nargs="+", metavar="ITEM", help="item ids, oldest first")
    one.add_argument("--times", nargs="+", type=int, metavar="TIME",
                     help="with --history: when, in the log's unit, for a model that reads moments")  # fmt: skip
    one.add_argument("--query-time", type=int, metavar="TIME", help="when it is asked what comes next, in the log's "
                     "unit, for a model that is told (query_time in its config.json); now if left out")  # fmt: skip
    asked.add_argument("--data", help="prepared folder: lists for its users, into --output")
    one.add_argument("--output", metavar="FILE.parquet", help="with --data: user_id, item_id, rank, score")
    one.add_argument("--users", metavar="FILE", help="with --data: csv, tsv or parquet with the column user_id; "
                     "all users if left out")  # fmt: skip
    one.add_argument("--before", choices=("validation", "test"),
                     help="with --data: read each history up to this target only, as evaluation does")  # fmt: skip
    one.add_argument("-k", type=at_least(1), default=10, help="items of a list")
    one.add_argument("--seen", choices=tuple(SEEN), default="auto",
                     help="items of the history itself; auto does as the model's evaluation did")  # fmt: skip
    one.add_argument("--candidates", nargs="+", metavar="ITEM", help="recommend only from these")
    one.add_argument("--exclude", nargs="+", metavar="ITEM", help="never recommend these")
    one.add_argument("--fallback", default="error", choices=("error", "popularity"), help="if no item is known")
    one.set_defaults(run=_recommend, go_on=GO_ON)


def _recommend(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.serving.recommender import Recommender

    if bool(options.data) != bool(options.output):
        raise ValueError("--data and --output belong together: the log, and the file for the lists of its users.")
    if not options.data and (options.users or options.before):
        raise ValueError("--users and --before choose among the users of --data; leave them out with --history.")
    if options.data and options.times:
        raise ValueError("--times are those of --history; leave them out with --data, which has its own.")
    users = _users(Path(options.users)) if options.users else None
    recommender = Recommender.from_pretrained(options.model, revision=options.revision)
    choice = {
        "exclude_seen": SEEN[options.seen],
        "candidates": options.candidates,
        "fallback": options.fallback,
        "exclude": options.exclude,
        "query_time": options.query_time,
    }
    if options.data:
        _for_all(recommender, options, users, choice)
    else:
        _for_one(recommender, options, choice)


def _for_one(recommender: Any, options: argparse.Namespace, choice: dict[str, Any]) -> None:
    from sr_transformers.messages import shown

    if options.fallback == "error" and not len(recommender.encode(options.history)):
        raise ValueError(
            f"--history: the model knows no item of {shown(options.history)}; give ids as they were in the log, or "
            "--fallback popularity for the most popular items."
        )
    if recommender.scorer.needs_times and not options.times:
        raise ValueError(
            "--times: this model reads when interactions happened; give one moment for each item of --history, in the "
            "unit of the log that it was trained on."
        )
    if options.times and not recommender.scorer.needs_times:
        raise ValueError("--times: this model does not read when interactions happened; leave them out.")
    explain = recommender.scorer.scores_own_past
    found = recommender.recommend(options.history, options.k, times=options.times, explain=explain, **choice)
    for place, one in enumerate(found, 1):
        reason = f"  {one.reason}" if explain else ""
        print(f"{place:3}  {one.item}  {one.probability:.4f}{reason}")


def _for_all(
    recommender: Any, options: argparse.Namespace, users: list[str | int] | None, choice: dict[str, Any]
) -> None:
    from sr_transformers.data.prepared import PreparedData
    from sr_transformers.serving.recommendation_lists import recommend_all

    data = PreparedData(options.data).verified()
    count = recommend_all(recommender, data, options.output, options.k, users, options.before, progress=True, **choice)
    print(f"{options.output}: lists of {count:,} users, {options.k} items each at most")


def _users(file: Path) -> list[str | int]:
    """The column user_id of a file.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    import polars as pl

    from sr_transformers.columns import USER

    if not file.is_file():
        raise FileNotFoundError(f"--users {file}: there is no such file.")
    try:
        if file.suffix == ".parquet":
            table = pl.read_parquet(file)
        else:
            separator = "\t" if file.suffix == ".tsv" else ","
            table = pl.read_csv(file, separator=separator, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"--users {file} cannot be read as a table: {' '.join(str(error).split())[:200]}") from error
    if USER not in table.columns:
        raise ValueError(f"--users {file} has no column {USER}; it has {', '.join(table.columns)}.")
    column = table[USER]
    if column.null_count():
        raise ValueError(f"--users {file}: row {column.is_null().to_list().index(True) + 1} has no {USER}; remove it.")
    return column.to_list()
