"""A learning rate and a dropout rate for every size: tried on some, carried on to the others by a rule.

Sizes that are not tuned bend the law (Porian et al. 2024): with one rate for all, the small sizes look worse, and the
large ones diverge or overfit. For each size of the section `tuning`, the smallest first:

1. walk the ladder of learning rates: start where the study says, or at the rate that the smaller sizes suggest, try the
   two neighbours, go on to the better side until the best rate tried has both of them tried or is an end of the ladder;
2. walk the ladder of dropout rates at that rate in the same way, from the best one of the size before;
3. if that changed the dropout, walk the rates again from the best one: with less dropout the best rate is another.

Learning rates of all sizes follow a power law of N through the bottoms of parabolas in log rate, dropout rates a line
in log N through the best ones. The choice is made on validation loss, never on test loss.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.scaling.studies.study import PlannedRun, Study, Tuning
from sr_transformers.scaling.studies.workers import Workers


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


def least_runs(study: Study) -> list[PlannedRun]:
    """As many runs as tuning does at least, for an estimate: three rates and two more dropouts for every size."""
    if (plan := study.tuning) is None:
        return []
    dropout = _middle(plan.dropouts) if plan.dropouts else None
    pairs = [(rate, dropout) for rate in plan.learning_rates[:3]]
    pairs += [(_middle(plan.learning_rates), other) for other in [one for one in plan.dropouts if one != dropout][:2]]
    return [study.tuning_run(size, *pair) for size in plan.sizes for pair in pairs]


def tune(workers: Workers, folder: Path, tell: Callable[[str], None]) -> Tuned:
    """Tries rates on the sizes of the study's section `tuning`; finished runs are not done again.

    Raises:
        ValueError: if the study tunes nothing, or no run of a size has a finite loss.
    """
    study, plan = workers.study, workers.study.tuning
    if plan is None:
        raise ValueError(f"study {study.name} tunes no learning rate; add a section `tuning`.")
    found = Tuned(most_dropout=max(plan.dropouts, default=0.0))

    def losses(size: str, pairs: Sequence[tuple[float, float | None]]) -> list[float]:
        runs = [study.tuning_run(size, rate, dropout) for rate, dropout in pairs]
        records = {run.name: record for run, record, _ in workers.train([(run, folder / run.name) for run in runs])}
        return [records[run.name].validation.get("loss", math.nan) for run in runs]

    for size in plan.sizes:
        n = float(study.sizes[size].num_non_embedding_parameters)
        dropout = _middle(plan.dropouts) if plan.dropouts else None
        if found.dropouts:
            dropout = _nearest(plan.dropouts, list(found.dropouts.values())[-1])
        start = _nearest(plan.learning_rates, rate_for(n, found.rates)) if found.rates else _middle(plan.learning_rates)
        start, dropout = plan.start.get(size, (start, dropout))
        tried, dropout = descend(plan, start, dropout, lambda pairs: losses(size, pairs))  # noqa: B023
        best, edge = best_rate(list(tried), list(tried.values()))
        found.rates[n] = best
        found.at_edge["learning_rate"] += [size] if edge else []
        said = f"{size}: learning rate {best:.2g}" + (" (an end of the ladder)" if edge else "")
        if dropout is not None:
            found.dropouts[n] = dropout
            edge = dropout == plan.dropouts[-1] or dropout == plan.dropouts[0] > 0
            found.at_edge["dropout"] += [size] if edge else []
            said += f", dropout {dropout:g}" + (" (an end of the ladder)" if edge else "")
        tell(said)
    return found


def descend(
    plan: Tuning,
    rate: float,
    dropout: float | None,
    losses: Callable[[list[tuple[float, float | None]]], Sequence[float]],
) -> tuple[dict[float, float], float | None]:
    """Walks learning rates and dropout rates in turn, until a walk of one leaves the other where it was.

    Args:
        rate, dropout: where to start, both on the ladders of the plan; dropout None: it is not tuned.
        losses: of several pairs (rate, dropout) at once; a pair may be asked for again.

    Returns:
        Loss by rate, rising, of the walk at the best dropout, and that dropout.
    """
    while True:
        tried = walk(plan.learning_rates, rate, lambda rates: losses([(one, dropout) for one in rates]))  # noqa: B023
        rate = min(tried, key=lambda one: _finite(tried[one]))
        if dropout is None:
            return tried, None
        others = walk(plan.dropouts, dropout, lambda some: losses([(rate, one) for one in some]))  # noqa: B023
        best = min(others, key=lambda one: _finite(others[one]))
        if best == dropout:
            return tried, dropout
        dropout = best


def walk(ladder: Sequence[float], start: float, losses: Callable[[list[float]], Sequence[float]]) -> dict[float, float]:
    """Tries a rung and its neighbours, and on towards the lower loss until the best rung's neighbours are tried too.

    Args:
        losses: of several rungs at once, which may be computed side by side.

    Returns:
        Loss by rung tried, rising.

    >>> walk([1, 2, 4, 8, 16], 2, lambda rungs: [abs(rung - 8) for rung in rungs])
    {1: 7, 2: 6, 4: 4, 8: 0, 16: 8}
    """
    tried: dict[float, float] = {}
    best = list(ladder).index(start)
    while True:
        new = [ladder[i] for i in (best - 1, best, best + 1) if 0 <= i < len(ladder) and ladder[i] not in tried]
        if not new:
            return dict(sorted(tried.items()))
        tried.update(zip(new, losses(new), strict=True))
        best = list(ladder).index(min(tried, key=lambda rung: _finite(tried[rung])))


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
    known = [_finite(loss) for _, loss in tried]
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
    return round(math.exp(a + b * math.log(num_parameters)), 6)


def dropout_for(num_parameters: float, found: Mapping[float, float], most: float) -> float:
    """The dropout of a size, by the line in log N through the best ones, between 0 and `most`; two digits.

    >>> dropout_for(1e5, {1e4: 0.0, 1e6: 0.2}, 0.3), dropout_for(1e9, {1e4: 0.0, 1e6: 0.2}, 0.3)
    (0.1, 0.3)
    """
    x, y = np.log(list(found)), np.array(list(found.values()))
    slope, height = (0.0, float(y.mean())) if len(x) < 2 else map(float, np.polyfit(x, y, 1))
    return round(min(max(height + slope * math.log(num_parameters), 0.0), most), 2)


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _middle(ladder: Sequence[float]) -> float:
    return ladder[(len(ladder) - 1) // 2]


def _nearest(ladder: Sequence[float], value: float) -> float:
    return min(ladder, key=lambda rung: abs(math.log(max(rung, 1e-9)) - math.log(max(value, 1e-9))))
