"""`sr-transformers data describe`, `append`, `verify`, `publish`: look at logs, add days, check files, show them."""

import argparse

from sr_transformers.cli.publish import add_repository
from sr_transformers.cli.values import plain_warnings


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the commands and their options."""
    parser = commands.add_parser("data", help="look at a log, add new days to a prepared one, check its files")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    one = actions.add_parser("describe", help="sizes, lengths, popularity, repeats, ties, time and leaks of a log")
    one.add_argument("source", help="a prepared folder, or what `prepare` takes")
    for column in ("user", "item", "timestamp", "domain"):
        one.add_argument(f"--{column}-column", metavar="NAME", help=f"the log's name of the {column} column")
    one.add_argument("--time-unit", choices=("s", "ms", "us"), help="of times that are numbers")
    one.add_argument("--json", metavar="FILE", help="write the report there")
    one.add_argument("--figure", metavar="FILE", help="draw it there (.png, .svg or .pdf)")
    one.set_defaults(run=_describe)
    two = actions.add_parser("append", help="a new prepared folder with new days added")
    two.add_argument("folder", help="the prepared folder; it stays as it is")
    two.add_argument("source", help="the new rows, as for `prepare`")
    two.add_argument("--output", required=True, help="folder to make")
    two.set_defaults(run=_append, go_on="{output} was not made; the same command begins anew.")
    three = actions.add_parser("verify", help="compare the files of a prepared folder with the digests in its manifest")
    three.add_argument("folder", help="the prepared folder")
    three.set_defaults(run=_verify)
    four = actions.add_parser("publish", help="publish a prepared log, with its user ids, as a data set on the Hub")
    four.add_argument("folder", help="the prepared folder")
    add_repository(four)
    four.add_argument("--license", required=True, help="of the data; other needs --license-name")
    four.add_argument("--dry-run", metavar="FOLDER", help="write the exact folder there and send nothing")
    four.set_defaults(run=_publish)
    for action in (one, two):
        action.add_argument("--names", nargs="+", metavar="NAME", help="columns of CSV files that have no header line")
        action.add_argument("--separator", metavar="TEXT", help="between the fields of CSV files")


def _describe(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.cli.documents import check_place, write_document
    from sr_transformers.data.describe import as_text, describe, draw

    check_place(options.json, (options.source,), ("sparsity", "popularity"))
    given = {
        "user_id": options.user_column,
        "item_id": options.item_column,
        "timestamp": options.timestamp_column,
        "domain": options.domain_column,
    }
    columns = {ours: theirs for ours, theirs in given.items() if theirs}
    with plain_warnings(options.command):
        report = describe(options.source, columns, options.time_unit, options.names, options.separator)
    write_document(options.json, report, ensure_ascii=False)
    print(as_text(report))
    if options.figure:
        draw(report, options.figure)


def _append(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.data.append import append

    with plain_warnings(options.command):
        data = append(options.folder, options.source, options.output, options.names, options.separator)
    counts = data.manifest["counts"]
    print(
        f"{options.output}: {counts['interactions']:,} interactions of {counts['users']:,} users, "
        f"{counts['items_in_vocabulary']:,} items in the vocabulary"
    )


def _verify(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.data.manifest import verify

    files = verify(options.folder)
    size = sum(said["bytes"] for said in files.values())
    print(f"{options.folder}: {len(files)} files of {size:,} bytes together are what was made")


def _publish(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.hub.data_set import publish_data
    from sr_transformers.hub.model_card import CardOptions

    where = publish_data(
        options.folder,
        options.repo,
        CardOptions(options.license, options.license_name, options.license_link),
        private=options.private,
        branch=options.branch,
        dry_run=options.dry_run,
    )
    print(f"nothing was sent; {where} holds what would be" if options.dry_run else where)
