"""coverage@k for `evaluate`; the arithmetic is `sr_transformers.evaluation.metrics`.

The loader of `evaluate` finds imports by a regular expression: one import a line, none inside a function.
"""

import datasets
import evaluate
import numpy as np

from sr_transformers.evaluation.metrics import coverage

_INPUTS = """
Args:
    predictions: recommended item tokens of each user, best first, int64; at least k each, -1 where there is none.
    num_items: number of items that could be recommended.
    k: cut-off.

Returns:
    coverage: fraction of the items that stand among the first k of anybody, in [0, 1].

Raises:
    ValueError: for a k or num_items below 1.
"""


class Coverage(evaluate.Metric):
    """Fraction of the items that are recommended to anybody within the first k."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Fraction of the items that are recommended to anybody within the first k.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("int64"))}),
        )

    def _compute(self, predictions: list[list[int]], num_items: int, k: int = 10) -> dict[str, float]:
        return {"coverage": coverage(np.asarray(predictions), num_items, k)}
