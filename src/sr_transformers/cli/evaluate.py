"""`sr-transformers evaluate`: checkpoints and baselines by full ranking."""

import argparse

from sr_transformers.cli.revisions import RevisionOfModel, revision_of
from sr_transformers.cli.values import SEEN, at_least


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("evaluate", help="full ranking of a checkpoint beside the baselines")
    one.add_argument("--model", action="append", default=[], help="folder or Hub id; may be given several times")
    one.add_argument("--revision", action=RevisionOfModel, help="branch, tag or commit, on the Hub, of the --model "
                     "before it")  # fmt: skip
    one.add_argument("--data", required=True, help="prepared folder")
    one.add_argument("--part", default="test", choices=("test", "validation"), help="which targets")
    one.add_argument("--target", choices=("item", "basket", "period"),
                     help="item: the next one, always shown; basket: also all that the user takes at one moment; "
                     "period: also all that the user does after the cut of a temporal split")  # fmt: skip
    one.add_argument("--k", type=at_least(1), nargs="+",
                     help="cut-offs of HR and NDCG; 1 5 10 20 50 unless a protocol has others")  # fmt: skip
    one.add_argument("--seen", choices=tuple(SEEN), default="auto",
                     help="seen items in the ranking; auto does as the models' runs did, and without any keeps them "
                     "where users repeat items")  # fmt: skip
    one.add_argument("--bf16", action="store_true", help="compute the models' layers in bfloat16: faster, less exact")
    one.add_argument("--compile", action="store_true",
                     help="translate the layers by torch.compile; pays for hundreds of thousands of users")  # fmt: skip
    one.add_argument("--json", metavar="FILE", help="write the reports here too")
    one.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.cli.documents import check_place, write_document
    from sr_transformers.data.prepared import PreparedData
    from sr_transformers.evaluation.baselines import baselines
    from sr_transformers.evaluation.baskets import METRICS, PARTS, evaluate_baskets, next_baskets
    from sr_transformers.evaluation.comparison import evaluate_beside
    from sr_transformers.evaluation.evaluator import table
    from sr_transformers.evaluation.loading import Checkpoint
    from sr_transformers.evaluation.periods import evaluate_periods, whole_periods
    from sr_transformers.evaluation.protocol import cut_offs, request_choice, seen_choice, target_choice
    from sr_transformers.evaluation.translation import open_scorer
    from sr_transformers.public import shown_names

    if (options.bf16 or options.compile) and not options.model:
        raise ValueError("--bf16 and --compile say how models compute; add --model, or leave them out.")
    check_place(options.json, (*options.model, options.data), ("protocol", "metrics"))
    data = PreparedData(options.data).verified()
    target, ks = target_choice(options.target, data), cut_offs(options.k, data)
    checkpoints = [Checkpoint(name, revision=revision_of(options, place)) for place, name in enumerate(options.model)]
    scorers: list = [open_scorer(one, data, options.bf16, options.compile) for one in checkpoints]
    for scorer, name in zip(scorers, shown_names([one.name for one in checkpoints]), strict=True):
        scorer.name = name
    choice = SEEN[options.seen]
    filter_seen = seen_choice(choice, [scorer.filter_seen for scorer in scorers], data)
    query_time = request_choice(scorers)
    # What asks for sets too: a log that has none is told before the long work.
    find, evaluate_sets = {
        "basket": (next_baskets, evaluate_baskets),
        "period": (whole_periods, evaluate_periods),
    }.get(target, (None, None))
    if find is not None:
        find(data, options.part)
    floors = baselines(data, filter_seen, query_time)
    reports = evaluate_beside(scorers, floors, data, options.part, ks, filter_seen, progress=True)
    of_sets = [
        evaluate_sets(scorer, data, options.part, ks, filter_seen, progress=True)
        for scorer in (*scorers, *floors)
        if evaluate_sets is not None
    ]
    write_document(options.json, reports + of_sets)
    metrics = [f"{name}@{k}" for k in ks for name in ("hr", "ndcg", "coverage")] + ["mrr", "loss"]
    print(table(reports, metrics))
    if of_sets:
        metrics = [f"{part}{name}@{k}" for part in PARTS for k in ks for name in METRICS]
        print("\n" + table(of_sets, metrics))
