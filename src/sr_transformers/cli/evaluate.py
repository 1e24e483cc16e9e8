"""`sr-transformers evaluate`: checkpoints and baselines by full ranking."""

import argparse
import json
from pathlib import Path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("evaluate", help="full ranking of a checkpoint beside the baselines")
    one.add_argument("--model", action="append", default=[], help="folder or Hub id; may be given several times")
    one.add_argument("--data", required=True, help="prepared folder")
    one.add_argument("--part", default="test", choices=("test", "validation"))
    one.add_argument("--k", type=int, nargs="+", default=[1, 5, 10, 20, 50], help="cut-offs of HR and NDCG")
    one.add_argument("--seen", choices=("auto", "remove", "keep"), default="auto",
                     help="seen items in the ranking; auto keeps them where users repeat items")  # fmt: skip
    one.add_argument("--bf16", action="store_true", help="compute the models' layers in bfloat16: faster, less exact")
    one.add_argument("--compile", action="store_true",
                     help="translate the layers by torch.compile; pays for hundreds of thousands of users")  # fmt: skip
    one.add_argument("--json", metavar="FILE", help="write the reports here too")
    one.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.data.histories import PreparedData
    from sr_transformers.evaluation.baselines import baselines
    from sr_transformers.evaluation.evaluator import evaluate, table
    from sr_transformers.evaluation.loading import load_model
    from sr_transformers.evaluation.model_scorer import ModelScorer, check_vocabulary

    data = PreparedData(options.data)
    filter_seen = {"auto": None, "remove": True, "keep": False}[options.seen]
    scorers: list = [
        ModelScorer(load_model(name), name=name, reuse_memory=True, bf16=options.bf16, compile=options.compile)
        for name in options.model
    ]
    for scorer in scorers:
        check_vocabulary(scorer.name, scorer.model.config, data)
    scorers += baselines(data)
    reports = [evaluate(scorer, data, options.part, options.k, filter_seen, progress=True) for scorer in scorers]
    metrics = [f"{name}@{k}" for k in options.k for name in ("hr", "ndcg", "coverage")] + ["mrr", "loss"]
    print(table(reports, metrics))
    if options.json:
        Path(options.json).write_text(json.dumps(reports, indent=2) + "\n")
