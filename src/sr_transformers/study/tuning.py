"""A learning rate for every size: tried on the small ones, carried on to the large ones by a power law of N.

Sizes that are not tuned bend the law (Porian et al. 2024): with one rate for all, the small sizes look worse or the
large ones diverge. The choice is made on validation loss, never on test loss.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def best_rate(rates: Sequence[float], losses: Sequence[float]) -> tuple[float, bool]:
    """The rate at the bottom of a parabola in log rate through the best of three neighbours.

    Returns:
        The rate, and whether the best one tried lies at an end of those tried (then it is that one, and the true
        optimum may lie beyond).

    Raises:
        ValueError: if no loss is finite.

    >>> rate, at_end = best_rate([1e-3, 1e-2, 1e-1], [2.0, 1.0, 2.0])
    >>> round(rate, 6), at_end
    (0.01, False)
    """
    known = sorted((math.log(r), x) for r, x in zip(rates, losses, strict=True) if math.isfinite(x))
    if not known:
        raise ValueError(f"no run of the learning rates {list(rates)} has a finite loss; try smaller rates.")
    best = min(range(len(known)), key=lambda i: known[i][1])
    if best in (0, len(known) - 1):
        return math.exp(known[best][0]), True
    x, y = np.array(known[best - 1 : best + 2]).T
    curve = np.polyfit(x, y, 2)
    bottom = -curve[1] / (2 * curve[0]) if curve[0] > 0 else x[1]
    return float(np.exp(np.clip(bottom, x[0], x[2]))), False


def rate_law(found: Mapping[float, float]) -> tuple[float, float]:
    """(a, b) of log rate = a + b log N through the best rates by N; b is at most 0, and 0 for a single size.

    Larger models never get a larger rate than the tuned ones: an extrapolation upwards is what makes runs diverge.
    """
    x, y = np.log(list(found)), np.log(list(found.values()))
    slope = 0.0 if len(x) < 2 else min(float(np.polyfit(x, y, 1)[0]), 0.0)
    return float(np.mean(y) - slope * np.mean(x)), slope


def rate_for(num_parameters: float, found: Mapping[float, float]) -> float:
    """The rate of a size, by the power law: tuned sizes follow it too, so that noise of one does not bend the curve.

    >>> round(rate_for(1e6, {1e4: 1e-2, 1e5: 1e-2}), 4)
    0.01
    """
    a, b = rate_law(found)
    return round(math.exp(a + b * math.log(num_parameters)), 6)
