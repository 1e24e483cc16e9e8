"""A learning rate and a dropout rate for every size, from those that were best for some: the rule between them.

Sizes that are not tuned bend the law (Porian et al. 2024): with one rate for all, the small sizes look worse, and the
large ones diverge or overfit. Every tuned size has what was best for it: a learning rate at the bottom of a parabola in
log rate, and a dropout rate. Between two tuned sizes log rate and dropout lie on the straight line in log N between
theirs; beyond the smallest and the largest they go on from it with the slope of the line through all of them.

On a part of the data the dropout is another: fewer interactions need more of it (`Tuned.rates_for`).

One line for all sizes would be less noisy, but what is best does not follow one: small models are hurt by any dropout,
and the best rate of large ones hardly falls. `rate_search` finds the best ones.
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
        whole: the fraction of the data that all this was tuned on.
        part, dropouts_of_part: a smaller one on which the dropout was tuned too, and the best by N there.
        cut_short: sizes whose search the budget ended.
    """

    rates: dict[float, float] = field(default_factory=dict)
    dropouts: dict[float, float] = field(default_factory=dict)
    at_edge: dict[str, list[str]] = field(default_factory=lambda: {"learning_rate": [], "dropout": []})
    most_dropout: float = 0.0
    whole: float = 1.0
    part: float | None = None
    dropouts_of_part: dict[float, float] = field(default_factory=dict)
    cut_short: list[str] = field(default_factory=list)

    def rates_for(self, num_parameters: float, fraction: float = 1.0) -> tuple[float, float | None]:
        """Learning rate and dropout rate of a size on a fraction of the data.

        The learning rate is the same for all. The dropout lies on the straight line in the logarithm of the fraction
        through the two fractions it was tuned on; if that was one alone, it is the same for all too.
        """
        rate = rate_for(num_parameters, self.rates)
        if not self.dropouts:
            return rate, None
        dropout = dropout_for(num_parameters, self.dropouts, self.most_dropout)
        if self.part is not None:
            there = dropout_for(num_parameters, self.dropouts_of_part, self.most_dropout)
            dropout += (there - dropout) * math.log(fraction / self.whole) / math.log(self.part / self.whole)
        return rate, round(min(max(dropout, 0.0), self.most_dropout), 2)

    def describe(self) -> dict[str, Any]:
        """For plan.json."""
        return {
            "learning_rates": {f"{n:.0f}": rate for n, rate in self.rates.items()},
            "dropouts": {f"{n:.0f}": rate for n, rate in self.dropouts.items()},
            "whole": self.whole,
            "part": self.part,
            "dropouts_of_part": {f"{n:.0f}": rate for n, rate in self.dropouts_of_part.items()},
            "at_edge": self.at_edge,
            "cut_short": self.cut_short,
            "slope_of_log_rate": slope_of_rates(self.rates),
        }

    def text(self) -> str:
        """For people."""
        parts = []
        for n in sorted(self.rates):
            rate, dropout = self.rates_for(n, self.whole)
            parts.append(f"N {n:,.0f}: {rate:.2g}" + ("" if dropout is None else f", dropout {dropout:g}"))
        return f"learning rates of the tuned sizes, carried to the others: {'; '.join(parts)}"


def best_rate(rates: Sequence[float], losses: Sequence[float]) -> tuple[float, int]:
    """The rate at the bottom of a parabola in log rate, kept between the neighbours of the best rate tried.

    The parabola is fitted to the best rate and up to two tried on either side of it: runs differ by their seed, and the
    loss is flat around its lowest.

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
    if math.inf in known[best - 1 : best + 2]:  # a neighbour diverged: no parabola, and no reason to look beyond it
        return tried[best][0], 0
    near = [place for place in range(max(best - 2, 0), min(best + 3, len(known))) if known[place] < math.inf]
    x = np.log([tried[place][0] for place in near])
    curve = np.polyfit(x, [known[place] for place in near], 2)
    bottom = -curve[1] / (2 * curve[0]) if curve[0] > 0 else math.log(tried[best][0])
    return float(np.exp(np.clip(bottom, math.log(tried[best - 1][0]), math.log(tried[best + 1][0])))), 0


def slope_of_rates(found: Mapping[float, float]) -> float:
    """Slope of log rate in log N through all the best rates, with which they go on beyond the tuned sizes.

    At most 0, and 0 for a single size: an extrapolation upwards is what makes large models diverge.
    """
    return min(_slope(np.log(list(found)), np.log(list(found.values()))), 0.0)


def rate_for(num_parameters: float, found: Mapping[float, float]) -> float:
    """The rate of a size, from the best rates by N.

    >>> found = {1e4: 1e-2, 1e6: 1e-4}
    >>> rate_for(1e4, found), rate_for(1e5, found), rate_for(1e8, found)
    (0.01, 0.001, 1e-06)
    """
    logs = {n: math.log(rate) for n, rate in found.items()}
    rate = math.exp(_between(num_parameters, logs, slope_of_rates(found)))
    return round(rate, max(6, 1 - math.floor(math.log10(rate))))  # two digits at least: never to nothing


def dropout_for(num_parameters: float, found: Mapping[float, float], most: float) -> float:
    """The dropout of a size, from the best ones by N, between 0 and `most`; two digits.

    >>> dropout_for(1e5, {1e4: 0.0, 1e6: 0.2}, 0.3), dropout_for(1e9, {1e4: 0.0, 1e6: 0.2}, 0.3)
    (0.1, 0.3)
    """
    slope = _slope(np.log(list(found)), np.array(list(found.values())))
    return round(min(max(_between(num_parameters, found, slope), 0.0), most), 2)


def _between(num_parameters: float, found: Mapping[float, float], slope: float) -> float:
    """Between two sizes on the line between theirs, beyond the ends on from the nearest with the slope."""
    sizes = sorted(found)
    x, ends = math.log(num_parameters), [math.log(sizes[0]), math.log(sizes[-1])]
    inside = min(max(x, ends[0]), ends[1])
    return float(np.interp(inside, np.log(sizes), [found[n] for n in sizes])) + slope * (x - inside)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return 0.0 if len(x) < 2 else float(np.polyfit(x, y, 1)[0])


def finite(loss: float) -> float:
    """The loss, a diverged one as infinity."""
    return loss if math.isfinite(loss) else math.inf
