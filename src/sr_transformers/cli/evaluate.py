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
    one.add_argument("--part", default="test", choices=("test", "validation"))
    one.add_argument("--target", default="item", choices=("item", "basket"),
                     help="basket: the whole next basket, all that the user takes at one moment, too")  # fmt: skip
    one.add_argument("--k", type=at_least(1), nargs="+", default=[1, 5, 10, 20, 50], help="cut-offs of HR and NDCG")
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
    from sr_transformers.data.histories import PreparedData
    from sr_transformers.evaluation.baselines import baselines
    from sr_transformers.evaluation.baskets import PARTS, evaluate_baskets, next_baskets
    from sr_transformers.evaluation.comparison import evaluate_beside
    from sr_transformers.evaluation.evaluator import seen_choice, table
    from sr_transformers.evaluation.loading import Checkpoint
    from sr_transformers.evaluation.translation import open_scorer
    from sr_transformers.public import shown_names

    check_place(options.json)
    data = PreparedData(options.data).verified()
    checkpoints = [Checkpoint(name, revision=revision_of(options, place)) for place, name in enumerate(options.model)]
    scorers: list = [open_scorer(one, data, options.bf16, options.compile) for one in checkpoints]
    for scorer, name in zip(scorers, shown_names([one.name for one in checkpoints]), strict=True):
        scorer.name = name
    choice = SEEN[options.seen]
    filter_seen = seen_choice(choice, [scorer.filter_seen for scorer in scorers], data)
    if options.target == "basket":
        next_baskets(data, options.part)  # a log that has none is told before the long work
    floors = baselines(data, filter_seen)
    reports = evaluate_beside(scorers, floors, data, options.part, options.k, filter_seen, progress=True)
    of_baskets = [
        evaluate_baskets(scorer, data, options.part, options.k, filter_seen, progress=True)
        for scorer in (*scorers, *floors)
        if options.target == "basket"
    ]
    write_document(options.json, reports + of_baskets)
    metrics = [f"{name}@{k}" for k in options.k for name in ("hr", "ndcg", "coverage")] + ["mrr", "loss"]
    print(table(reports, metrics))
    if of_baskets:
        metrics = [f"{part}{name}@{k}" for part in PARTS for k in options.k for name in ("recall", "ndcg")]
        print("\n" + table(of_baskets, metrics))
