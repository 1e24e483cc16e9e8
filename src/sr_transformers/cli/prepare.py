"""`sr-transformers prepare`: from a raw log to a prepared folder."""

import argparse

from sr_transformers.cli.values import at_least, plain_warnings


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("prepare", help="turn an interaction log into a prepared folder")
    one.add_argument(
        "source",
        help="a .csv, .tsv, .dat, .jsonl or .parquet file, a folder or 'glob' of them, hf://datasets/OWNER/NAME, "
        "movielens-100k, -1m or -20m, amazon-2018/DOMAIN, complete-journey, synthetic",
    )
    one.add_argument("--output", required=True, help="folder to make")
    for column in ("user", "item", "timestamp", "domain", "rating"):
        one.add_argument(f"--{column}-column", metavar="NAME", help=f"the log's name of the {column} column")
    one.add_argument(
        "--protocol",
        choices=("s3rec", "esasrec", "lsrm"),
        help="filters and split of a paper, and what evaluation must do; options beside it must not contradict it",
    )
    one.add_argument(
        "--split",
        choices=("leave_one_out", "temporal", "paper", "last_basket"),
        help="leave_one_out unless a protocol says otherwise; temporal: everything after a moment is test",
    )
    one.add_argument("--min-interactions", type=at_least(1), metavar="K", help="keep the K-core of users and items")
    one.add_argument("--min-item-interactions", type=at_least(1), metavar="K", help="another K for items")
    one.add_argument("--min-rating", type=float, metavar="R", help="leave out rows of a lower rating")
    one.add_argument("--since", metavar="T", help="leave out rows before this moment, a number or ISO 8601")
    one.add_argument("--until", metavar="T", help="leave out rows from this moment on")
    one.add_argument(
        "--repeats",
        choices=("keep", "distinct", "first", "last"),
        help="keep all rows (the default), or once of each user, item and time, or of user and item the first or last",
    )
    one.add_argument(
        "--time-unit", choices=("s", "ms", "us"), help="of times that are numbers, for ISO moments and days"
    )
    one.add_argument("--names", nargs="+", metavar="NAME", help="columns of CSV files that have no header line")
    one.add_argument("--separator", metavar="TEXT", help="between the fields of CSV files")
    for period in ("validation", "test"):
        one.add_argument(f"--{period}-from", metavar="T", help=f"first moment of {period} (temporal)")
        one.add_argument(
            f"--{period}-share", type=float, metavar="F", help=f"or fraction of the interactions in {period}; 0.05"
        )
        one.add_argument(f"--{period}-days", type=at_least(1), metavar="N", help=f"or whole days of {period}")
    one.add_argument(
        "--min-trajectory-length", type=at_least(1), metavar="N", help="longer histories hold out 10 more (paper)"
    )
    one.add_argument("--unseen-share", type=float, metavar="F", help="fraction of users kept from training (paper)")
    one.add_argument("--split-seed", type=at_least(0), metavar="S", help="draws the unseen users (paper)")
    one.add_argument("--shards", type=at_least(1), default=1, metavar="N", help="files that share the histories")
    one.add_argument("--engine", default="duckdb", choices=("duckdb", "spark"), help="what reads and sorts the log")
    one.set_defaults(run=_prepare, go_on="{output} was not made; the same command begins anew.")


def _prepare(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.data.cuts import MEASURES
    from sr_transformers.data.prepare import prepare
    from sr_transformers.data.protocols import PROTOCOLS

    given = {
        "user_id": options.user_column,
        "item_id": options.item_column,
        "timestamp": options.timestamp_column,
        "domain": options.domain_column,
        "rating": options.rating_column,
    }
    with plain_warnings(options.command):
        data = prepare(
            options.source,
            options.output,
            columns={ours: theirs for ours, theirs in given.items() if theirs},
            split=options.split,
            min_interactions=options.min_interactions,
            **{name: getattr(options, name) for name in MEASURES},
            min_trajectory_length=options.min_trajectory_length,
            unseen_share=options.unseen_share,
            split_seed=options.split_seed,
            min_rating=options.min_rating,
            since=options.since,
            until=options.until,
            repeats=options.repeats,
            time_unit=options.time_unit,
            names=options.names,
            separator=options.separator,
            shards=options.shards,
            engine=options.engine,
            protocol=options.protocol,
            min_item_interactions=options.min_item_interactions,
        )
    print(f"{options.output}: {data.manifest['split']}. {data.manifest['leaks']}")
    if options.protocol:
        print("\n".join(f"  {options.protocol}: {text}" for text in PROTOCOLS[options.protocol].differs))
    for name, value in data.manifest["counts"].items():
        moment = name in ("first", "last", "validation_from", "test_from")
        shown = f"{value}" if moment else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
        print(f"  {name.replace('_', ' '):42} {shown}")
