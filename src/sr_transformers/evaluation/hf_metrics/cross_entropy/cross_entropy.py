"""Test cross-entropy for `evaluate`; the arithmetic is `sr_transformers.evaluation.metrics`.

The loader of `evaluate` finds imports by a regular expression: one import a line, none inside a function.
"""

import datasets
import evaluate
import numpy as np

from sr_transformers.evaluation.metrics import cross_entropy

_INPUTS = """
Args:
    predictions: natural logarithm of the probability that the model gave each target, over the whole vocabulary.

Returns:
    cross_entropy: mean negative log-probability, in nats per target.

Raises:
    ValueError: for a value above 0, or NaN.
"""


class CrossEntropy(evaluate.Metric):
    """Mean negative log-probability of the targets, in nats."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean negative log-probability of the targets, in nats.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("float64")}),
        )

    def _compute(self, predictions: list[float]) -> dict[str, float]:
        return {"cross_entropy": cross_entropy(np.asarray(predictions))}
