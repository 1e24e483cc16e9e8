"""The ranking metrics as modules of Hugging Face's `evaluate`, for pipelines that report through it.

    evaluate.load(metric_path("ndcg")).compute(predictions=ranks, k=10)

Nothing here imports `evaluate`; the modules beside this file do, when it loads them.
"""

from pathlib import Path

METRICS = ("coverage", "cross_entropy", "hit_rate", "mrr", "ndcg")


def metric_path(name: str) -> str:
    """Folder of a metric's module, for `evaluate.load`; it loads without a network.

    Raises:
        ValueError: for a metric that does not exist; the message lists those that do.
    """
    if name not in METRICS:
        raise ValueError(f"metric {name!r} is not known; choose from {', '.join(METRICS)}.")
    return str(Path(__file__).parent / name)
