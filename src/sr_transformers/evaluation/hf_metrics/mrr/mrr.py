"""MRR for `evaluate`; the arithmetic is `sr_transformers.evaluation.metrics`.

The loader of `evaluate` finds imports by a regular expression: one import a line, none inside a function.
"""

import datasets
import evaluate
import numpy as np

from sr_transformers.evaluation.metrics import hit_rate, reciprocal_rank

_INPUTS = """
Args:
    predictions: rank of each target, int64 from 1 (the best) on, -1 for one that nothing could name (it counts as 0);
        `evaluate` cuts fractions off.
    k: cut-off, beyond which a target counts as 0; None: none.

Returns:
    mrr: mean over targets, in [0, 1].

Raises:
    ValueError: for a rank or a k below 1, a rank of -1 apart.
"""


class MRR(evaluate.Metric):
    """Mean of 1 / rank where rank <= k, else 0."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean of 1 / rank where rank <= k, else 0; by default k is as large as need be.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], k: int | None = None) -> dict[str, float]:
        ranks = np.asarray(predictions)
        values = reciprocal_rank(ranks)
        return {"mrr": float((values if k is None else values * hit_rate(ranks, k)).mean())}
