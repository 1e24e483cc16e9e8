"""NDCG@k for `evaluate`; the arithmetic is `sr_transformers.evaluation.metrics`.

The loader of `evaluate` finds imports by a regular expression: one import a line, none inside a function.
"""

import datasets
import evaluate
import numpy as np

from sr_transformers.evaluation.metrics import ndcg

_INPUTS = """
Args:
    predictions: rank of each target, int64 from 1 (the best) on, -1 for one that nothing could name (it counts as 0);
        `evaluate` cuts fractions off.
    k: cut-off.

Returns:
    ndcg: mean over targets, in [0, 1].

Raises:
    ValueError: for a rank or a k below 1, a rank of -1 apart.
"""


class NDCG(evaluate.Metric):
    """Mean of 1 / log2(rank + 1) where rank <= k, else 0; the ideal DCG of one target is 1."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean of 1 / log2(rank + 1) where rank <= k, else 0; the ideal DCG of one target is 1.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], k: int = 10) -> dict[str, float]:
        return {"ndcg": float(ndcg(np.asarray(predictions), k).mean())}
