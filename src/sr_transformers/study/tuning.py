"""A learning rate for every size: tried on the small ones, carried on to the large ones by a power law of N.

Sizes that are not tuned bend the law (Porian et al. 2024): with one rate for all, the small sizes look worse or the
large ones diverge. The choice is made on validation loss, never on test loss.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def best_rate(rates: Sequence[float], losses: Sequence[float]) -> tuple[float, int]:
    """The rate at the bottom of a parabola in log rate through the best rate and its two neighbours.

    Returns:
        The rate, and where the best one tried stands: 0 between others; -1 or 1 at the lower or upper end of those
        tried (then it is that one, and the true optimum may lie beyond).

    Raises:
        ValueError: if no loss is finite.

    >>> rate, end = best_rate([1e-3, 1e-2, 1e-1], [2.0, 1.0, 2.0])
    >>> round(rate, 6), end
    (0.01, 0)
    """
    tried = sorted(zip(rates, losses, strict=True))
    known = [loss if math.isfinite(loss) else math.inf for _, loss in tried]
    best = int(np.argmin(known))
    if known[best] == math.inf:
        raise ValueError(f"no run of the learning rates {list(rates)} has a finite loss; try smaller rates.")
    if best in (0, len(known) - 1):
        return tried[best][0], -1 if best == 0 else 1
    y = np.array(known[best - 1 : best + 2])
    if np.isinf(y).any():  # a neighbour diverged: no parabola, and no reason to look beyond it
        return tried[best][0], 0
    x = np.log([rate for rate, _ in tried[best - 1 : best + 2]])
    curve = np.polyfit(x, y, 2)
    bottom = -curve[1] / (2 * curve[0]) if curve[0] > 0 else x[1]
    return float(np.exp(np.clip(bottom, x[0], x[2]))), 0


def next_rate(rates: Sequence[float], end: int) -> float:
    """The rate to try beyond an end, as far from it as its neighbour is; two digits.

    >>> next_rate([2e-3, 8e-3], -1), next_rate([2e-3, 8e-3], 1)
    (0.0005, 0.032)
    """
    ordered = sorted(rates)
    outer, inner = (ordered[0], ordered[1]) if end < 0 else (ordered[-1], ordered[-2])
    return float(f"{outer * outer / inner:.2g}")


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
