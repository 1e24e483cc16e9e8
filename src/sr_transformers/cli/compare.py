"""`sr-transformers compare`: which of several runs is better on one log, and how sure that is."""

import argparse
import itertools
from pathlib import Path

from sr_transformers.cli.values import SEEN, at_least


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("compare", help="runs on one prepared log, user by user, with intervals")
    one.add_argument("runs", nargs="+", metavar="[NAME=]RUN[,RUN...]",
                     help="folder or Hub id of a model; several with commas are one entry, the same with other seeds. "
                     "All are compared with the first entry")  # fmt: skip
    one.add_argument("--revision", nargs="+", metavar="REVISION",
                     help="branch, tag or commit of each run that is on the Hub, in their order")  # fmt: skip
    one.add_argument("--data", required=True, help="prepared folder")
    one.add_argument("--baselines", action="store_true", help="compare with the baselines too")
    one.add_argument("--part", default="test", choices=("test", "validation"), help="which targets")
    one.add_argument("--k", type=at_least(1), default=10, help="cut-off of HR and NDCG")
    one.add_argument("--seen", choices=tuple(SEEN), default="auto",
                     help="seen items in the ranking; auto does as the runs did")  # fmt: skip
    one.add_argument("--json", metavar="FILE", help="write the comparison here too")
    one.add_argument("--figures", metavar="FOLDER", help="draw the differences there")
    one.set_defaults(run=_compare)


def _compare(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.cli.documents import check_figures, check_place, write_document
    from sr_transformers.data.prepared import PreparedData
    from sr_transformers.evaluation.baselines import baselines
    from sr_transformers.evaluation.loading import Checkpoint
    from sr_transformers.evaluation.protocol import cut_offs, request_choice, seen_choice
    from sr_transformers.evaluation.significance import check_run, compare, draw, table
    from sr_transformers.evaluation.translation import open_scorer
    from sr_transformers.public import shown_names

    named = [_entry(one) for one in options.runs]
    names = [run for _, runs in named for run in runs]
    check_place(options.json, (options.data, *names), ("protocol", "entries"))
    check_figures(options.figures)
    revisions = iter(_revisions(names, options.revision))
    asked = [[(run, next(revisions)) for run in runs] for _, runs in named]
    told = shown_names([", ".join(f"{run}@{at}" if at else run for run, at in runs) for runs in asked])
    shown = [name or of_runs for (name, _), of_runs in zip(named, told, strict=True)]
    if len(set(shown)) < len(shown):
        raise ValueError(f"two entries are called alike ({', '.join(shown)}); give them names, NAME=RUN.")
    data = PreparedData(options.data).verified()
    (k,) = cut_offs([options.k], data)
    opened = {name: [Checkpoint(run, revision=at) for run, at in runs] for name, runs in zip(shown, asked, strict=True)}
    for name, checkpoints in opened.items():
        if len({one.name for one in checkpoints}) < len(checkpoints):
            raise ValueError(f"{name} names a run twice; runs of one entry differ in their seed.")
    entries: dict[str, list] = {name: [open_scorer(one, data) for one in runs] for name, runs in opened.items()}
    scorers = [scorer for one in entries.values() for scorer in one]
    filter_seen = seen_choice(SEEN[options.seen], [scorer.filter_seen for scorer in scorers], data)
    query_time = request_choice(scorers)
    for one in itertools.chain.from_iterable(opened.values()):
        check_run(one, data, filter_seen, query_time)
    if options.baselines:
        floors: dict[str, list] = {scorer.name: [scorer] for scorer in baselines(data, filter_seen, query_time)}
        if taken := ", ".join(entries.keys() & floors.keys()):
            raise ValueError(f"{taken}: a baseline has that name too; give your runs another, NAME=RUN.")
        entries |= floors
    found = compare(entries, data, options.part, k, filter_seen, progress=True)
    write_document(options.json, found)
    print(table(found))
    for path in draw(found, options.figures) if options.figures else []:
        print(path)


def _revisions(runs: list[str], given: list[str] | None) -> list[str | None]:
    """Of every run the revision; folders have none.

    Raises:
        ValueError: if there are not as many as runs on the Hub.
    """
    on_hub = [not Path(run).is_dir() for run in runs]
    if given is not None and len(given) != sum(on_hub):
        raise ValueError(
            f"--revision has {len(given)} of {sum(on_hub)} runs on the Hub; give one for each, in their order (main if "
            "it has no other)."
        )
    rest = iter(given or ())
    return [next(rest, None) if there else None for there in on_hub]


def _entry(text: str) -> tuple[str | None, list[str]]:
    """Name and runs of `[NAME=]RUN[,RUN...]`.

    >>> _entry("with=runs/a,runs/b"), _entry("runs/a")
    (('with', ['runs/a', 'runs/b']), (None, ['runs/a']))
    """
    name, sign, runs = text.rpartition("=")
    found = [run for run in runs.split(",") if run]
    if not found or (sign and not name):
        raise ValueError(f"{text!r} names no run; write RUN, or NAME=RUN,RUN for one recipe with several seeds.")
    return (name or None), found
