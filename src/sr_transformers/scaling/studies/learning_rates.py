"""A learning rate and a dropout rate for every size, from those that were best for some: the rule between them.

Sizes that are not tuned bend the law (Porian et al. 2024): with one rate for all, the small sizes look worse, and the
large ones diverge or overfit. Learning rates of all sizes follow a power law of N through the bottoms of parabolas in
log rate, dropout rates a line in log N through the best ones. `rate_search` finds the best ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Tuned:
    """What tuning found.

    Attributes:
        rates, dropouts: the best by N, of the tuned sizes; no dropouts if none were tried.
        at_edge: sizes whose best rate is an end of its ladder, by what was tuned; a dropout of 0 is no end.
        most_dropout: the highest dropout on the ladder: no size gets more.
    """

    rates: dict[float, float] = field(default_factory=dict)
    dropouts: dict[float, float] = field(default_factory=dict)
    at_edge: dict[str, list[str]] = field(default_factory=lambda: {"learning_rate": [], "dropout": []})
    most_dropout: float = 0.0

    def rates_for(self, num_parameters: float) -> tuple[float, float | None]:
        """Learning rate and dropout rate of a size."""
        dropout = dropout_for(num_parameters, self.dropouts, self.most_dropout) if self.dropouts else None
        return rate_for(num_parameters, self.rates), dropout

    def describe(self) -> dict[str, Any]:
        """For plan.json."""
        a, b = rate_law(self.rates)
        return {
            "learning_rates": {f"{n:.0f}": rate for n, rate in self.rates.items()},
            "dropouts": {f"{n:.0f}": rate for n, rate in self.dropouts.items()},
            "at_edge": self.at_edge,
            "law": {"log_rate_at_N_1": a, "slope": b},
        }

    def text(self) -> str:
        """For people."""
        rate, dropout = self.rates_for(1e5)
        more = "" if dropout is None else f", dropout {dropout:g}"
        return f"at N = 100,000: learning rate {rate:.2g}, to the power {rate_law(self.rates)[1]:.2f} of N{more}"


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
    known = [finite(loss) for _, loss in tried]
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
    rate = math.exp(a + b * math.log(num_parameters))
    return round(rate, max(6, 1 - math.floor(math.log10(rate))))  # two digits at least: never to nothing


def dropout_for(num_parameters: float, found: Mapping[float, float], most: float) -> float:
    """The dropout of a size, by the line in log N through the best ones, between 0 and `most`; two digits.

    >>> dropout_for(1e5, {1e4: 0.0, 1e6: 0.2}, 0.3), dropout_for(1e9, {1e4: 0.0, 1e6: 0.2}, 0.3)
    (0.1, 0.3)
    """
    x, y = np.log(list(found)), np.array(list(found.values()))
    slope, height = (0.0, float(y.mean())) if len(x) < 2 else map(float, np.polyfit(x, y, 1))
    return round(min(max(height + slope * math.log(num_parameters), 0.0), most), 2)


def finite(loss: float) -> float:
    """The loss, a diverged one as infinity."""
    return loss if math.isfinite(loss) else math.inf
