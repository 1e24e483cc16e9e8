"""`sr-transformers tasks`: the five challenging tasks and three more, for one or several checkpoints."""

import argparse

from sr_transformers.cli.revisions import RevisionOfModel, revision_of
from sr_transformers.cli.values import MOST_DRAWS, SEEN, at_least

_TASKS = (
    "overall",
    "long_tail",
    "cold_start",
    "multi_domain",
    "robustness",
    "trajectory",
    "cold_items",
    "time_drift",
)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser(
        "tasks", help="long tail, cold start, domains, robustness, trajectory, drift; with intervals"
    )
    one.add_argument("--model", action="append", default=[], metavar="[NAME=]PATH[,PATH...]",
                     help="folder or Hub id; several paths are one model trained with several seeds; may be given "
                     "several times: the first is what the others are compared with")  # fmt: skip
    one.add_argument("--revision", action=RevisionOfModel, help="branch, tag or commit, on the Hub, of all paths of "
                     "the --model before it")  # fmt: skip
    one.add_argument("--data", required=True, help="prepared folder")
    one.add_argument("--task", action="append", choices=_TASKS, help="may be given several times; default: all")
    one.add_argument(
        "--no-baselines",
        action="store_true",
        help="leave out popularity, the Markov chain, the user's own frequencies and mix",
    )
    one.add_argument("--seen", choices=tuple(SEEN), default="auto",
                     help="seen items in the ranking; auto does as the models' runs did, and without any keeps them "
                     "where users repeat items")  # fmt: skip
    one.add_argument("--window", type=at_least(1), metavar="N", help="items a model reads; default: all that it can")
    one.add_argument("--k", type=at_least(1), nargs="+", help="cut-offs of HR and NDCG (5 10 20 if left out)")
    one.add_argument("--tail-groups", type=at_least(1), metavar="N",
                     help="groups of equal training mass, from head to tail (4 if left out)")  # fmt: skip
    one.add_argument(
        "--cold-item-edges",
        type=at_least(1),
        nargs="+",
        metavar="N",
        help="upper ends of training counts (5 10 20 50 100 if left out)",
    )
    one.add_argument(
        "--cold-user-lengths",
        type=at_least(1),
        nargs="+",
        metavar="N",
        help="history lengths, longest first (50 40 30 20 10 5 if left out)",
    )
    one.add_argument(
        "--domain-history",
        type=at_least(1),
        metavar="N",
        help="recent items in which the domain is looked for (50 if left out)",
    )
    one.add_argument("--perturbation-rate", type=float, metavar="P",
                     help="probability with which an item is hit: half of those are replaced, half deleted or padded "
                     "(0.3 if left out)")  # fmt: skip
    one.add_argument("--horizon", type=at_least(1), metavar="N", help="items of the trajectory (10 if left out)")
    one.add_argument("--month", type=at_least(1), metavar="T", help="a month in the log's unit of time")
    one.add_argument(
        "--seed", type=at_least(0), metavar="S", help="of perturbations and of the bootstrap (0 if left out)"
    )
    one.add_argument("--draws", type=at_least(1, MOST_DRAWS), metavar="N", help="of the bootstrap (1000 if left out)")
    one.add_argument("--json", metavar="FILE", help="write the report here")
    one.add_argument("--figures", metavar="FOLDER", help="draw a figure per task here (PNG and SVG)")
    one.set_defaults(run=_tasks)


def _tasks(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.cli.documents import check_figures, check_place, write_document
    from sr_transformers.data.prepared import PreparedData
    from sr_transformers.evaluation.loading import Checkpoint
    from sr_transformers.evaluation.tasks.contestants import model_contestant
    from sr_transformers.evaluation.tasks.figures import draw
    from sr_transformers.evaluation.tasks.markdown import markdown
    from sr_transformers.evaluation.tasks.runner import baseline_contestants, run_tasks, with_seen_choice
    from sr_transformers.evaluation.tasks.task import TaskOptions
    from sr_transformers.public import shown_names

    if options.window and not options.model:
        raise ValueError("--window says what models read; add --model, or leave it out.")
    models = [text.rpartition("=") for text in options.model]
    check_place(options.json, (options.data, *(path for *_, paths in models for path in paths.split(","))), ("tasks",))
    check_figures(options.figures)
    data = PreparedData(options.data).verified()
    given = {
        "ks": options.k and tuple(options.k),
        "tail_groups": options.tail_groups,
        "cold_item_edges": options.cold_item_edges and tuple(options.cold_item_edges),
        "cold_user_lengths": options.cold_user_lengths and tuple(options.cold_user_lengths),
        "domain_history": options.domain_history,
        "perturbation_rate": options.perturbation_rate,
        "horizon": options.horizon,
        "month": options.month,
        "seed": options.seed,
        "draws": options.draws,
        "filter_seen": SEEN[options.seen],
    }
    settings = TaskOptions(**{key: value for key, value in given.items() if value is not None})
    named, opened = [], []
    for place, (name, _, paths) in enumerate(models):
        named.append(name)
        opened.append([Checkpoint(path, revision=revision_of(options, place)) for path in paths.split(",")])
    shown = shown_names([",".join(one.name for one in seeds) for seeds in opened])
    contestants = [
        model_contestant(name or other, seeds, data, options.window)
        for name, other, seeds in zip(named, shown, opened, strict=True)
    ]
    settings = with_seen_choice(settings, contestants, data)
    if not options.no_baselines:
        contestants += baseline_contestants(data, settings)
    report = run_tasks(contestants, data, options.task, settings, progress=True)
    write_document(options.json, report, indent=None, separators=(",", ":"))
    print(markdown(report))
    if options.figures:
        draw(report, options.figures)
