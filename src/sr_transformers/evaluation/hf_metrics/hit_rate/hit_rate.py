"""HR@k for `evaluate`; the arithmetic is `sr_transformers.evaluation.metrics`.

The loader of `evaluate` finds imports by a regular expression: one import a line, none inside a function.
"""

import datasets
import evaluate
import numpy as np

from sr_transformers.evaluation.metrics import hit_rate

_INPUTS = """
Args:
    predictions: rank of each target, int64 from 1 (the best) on, -1 for one that nothing could name (it counts as 0);
        `evaluate` cuts fractions off.
    k: cut-off.

Returns:
    hit_rate: mean over targets, in [0, 1].

Raises:
    ValueError: for a rank or a k below 1, a rank of -1 apart.
"""


class HitRate(evaluate.Metric):
    """Share of targets with rank <= k; with one target per user also Recall@k."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of targets with rank <= k; with one target per user also Recall@k.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], k: int = 10) -> dict[str, float]:
        return {"hit_rate": float(hit_rate(np.asarray(predictions), k).mean())}
