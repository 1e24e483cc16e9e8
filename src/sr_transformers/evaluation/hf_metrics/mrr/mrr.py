"""MRR for `evaluate`; the arithmetic is `sr_transformers.evaluation.metrics`.

The loader of `evaluate` finds imports by a regular expression: one import a line, none inside a function.
"""

import datasets
import evaluate
import numpy as np

from sr_transformers.evaluation.metrics import reciprocal_rank

_INPUTS = """
Args:
    predictions: rank of each target, int64 from 1 (the best) on, -1 for one that nothing could name (it counts as 0);
        `evaluate` cuts fractions off.

Returns:
    mrr: mean over targets, in [0, 1].

Raises:
    ValueError: for a rank below 1, -1 apart.
"""


class MRR(evaluate.Metric):
    """Mean of 1 / rank."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean of 1 / rank.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int]) -> dict[str, float]:
        return {"mrr": float(reciprocal_rank(np.asarray(predictions)).mean())}
