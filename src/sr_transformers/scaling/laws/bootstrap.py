"""How sure a fit is: bootstrap over runs, intervals for parameters and for predictions.

A draw gives every run (each seed is a run) a random weight and fits again from the minimum of all of them; where the
floor is not seen well, so that there may be several minima, from a grid's best points too. Weights are exponential, not
the counts of drawing with replacement: counts leave out a third of the runs, and in a grid of a few sizes and amounts
of data some draws then lose an end of it, which makes intervals too wide. No interval is given where there is none: for
fewer than two points to spare, or for a fit that did not converge; the reason stands in `Bootstrap.reason`.

Source: Bayesian bootstrap, Rubin 1981; bootstrap of scaling laws by counts, Besiroglu et al. 2024. How often
the truth lies inside is measured by benchmarks/scaling_coverage.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sr_transformers.scaling.laws.descent import DELTA, floor_may_leave, minimum
from sr_transformers.scaling.laws.fitting import Fit, bind, grid_starts
from sr_transformers.scaling.laws.forms import law_named
from sr_transformers.scaling.laws.points import Points

LEVEL = 0.95


@dataclass
class Bootstrap:
    """Refits of reweighted runs.

    Attributes:
        params: `(draws,)` by parameter name; empty if there is no interval.
        log_residuals: `(P,)` log measured - log fitted, widened by sqrt(P / (P - Q)): the spread of single runs.
        reason: why there are no intervals; empty if there are.
    """

    law: str
    params: dict[str, np.ndarray] = field(repr=False)
    log_residuals: np.ndarray = field(repr=False)
    draws: int = 0
    seed: int = 0
    reason: str = ""

    def intervals(self, level: float = LEVEL) -> dict[str, tuple[float, float] | None]:
        """Interval of every parameter, or None."""
        names = law_named(self.law).names
        if self.reason:
            return dict.fromkeys(names)
        return {name: interval(self.params[name], level) for name in names}

    def rows(self) -> list[dict[str, float]]:
        """The parameters of every refit; empty if there is no interval."""
        return [{name: float(values[draw]) for name, values in self.params.items()} for draw in range(self.draws)]

    def of_law(self, columns: Mapping[str, np.ndarray], level: float = LEVEL) -> np.ndarray:
        """`(P, 2)` interval of the law's own value at new points, the mean of many runs; nan if there is none."""
        return self._bounds(self._curves(columns), columns, level)

    def of_new_run(self, columns: Mapping[str, np.ndarray], level: float = LEVEL) -> np.ndarray:
        """`(P, 2)` interval of what one new run measures there: the law's and a run's own scatter; nan if none."""
        curves = self._curves(columns)
        if curves is not None:
            # Every refit with every run's residual: nothing random is left in it.
            noise = np.exp(self.log_residuals)[:, None, None]
            metric = law_named(self.law).name == "saturating"
            curves = 1.0 - (1.0 - curves) * noise if metric else curves * noise
            curves = curves.reshape(-1, curves.shape[-1])
        return self._bounds(curves, columns, level)

    def _curves(self, columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
        if self.reason:
            return None
        law = law_named(self.law)
        return np.stack([law.predict(row, columns) for row in self.rows()])

    def _bounds(self, curves: np.ndarray | None, columns: Mapping[str, np.ndarray], level: float) -> np.ndarray:
        if curves is None:
            return np.full((len(next(iter(columns.values()))), 2), np.nan)
        tail = (1.0 - level) / 2
        return np.quantile(curves, [tail, 1.0 - tail], axis=0).T


def bootstrap(fitted: Fit, points: Points, draws: int = 200, seed: int = 0, delta: float = DELTA) -> Bootstrap:
    """Fits again to reweighted runs.

    Args:
        fitted: the fit of exactly these points.
        draws: refits; 0 gives none.

    Raises:
        ValueError: for a negative number of draws.
    """
    if draws < 0:
        raise ValueError(f"bootstrap is {draws}; it must be 0 (none) or more, 200 for intervals.")
    law = law_named(fitted.law)
    log_loss = np.log(points.values(law))
    bound = bind(law, points, fitted.constraints)
    residuals = log_loss - bound.log_loss(fitted.theta)[0]
    spare = points.num_distinct(law) - fitted.num_parameters
    widened = (residuals - residuals.mean()) * np.sqrt(len(residuals) / max(len(residuals) - fitted.num_parameters, 1))
    result = Bootstrap(law.name, {}, widened, 0, seed)
    if draws == 0:
        result.reason = "no bootstrap was asked for."
    elif spare < 2:
        result.reason = (
            f"{points.num_distinct(law)} distinct points for {fitted.num_parameters} parameters leave "
            f"{max(spare, 0)} to spare; intervals need at least 2."
        )
    elif not fitted.usable:
        result.reason = f"the fit is {fitted.status.replace('_', ' ')}: {fitted.reason}"
    if result.reason:
        return result
    starts = [fitted.theta]
    if floor_may_leave(bound, fitted.theta):
        starts += grid_starts(bound, log_loss)
    rng = np.random.default_rng(seed)
    found: list[dict[str, float]] = []
    for _ in range(draws):
        weights = rng.exponential(size=len(log_loss))
        weights *= len(weights) / weights.sum()
        ends = (minimum(bound, log_loss, weights, start, delta) for start in starts)
        found.append(bound.decode(min(ends, key=lambda end: end[1])[0]))
    result.draws = draws
    result.params = {name: np.array([one[name] for one in found]) for name in law.names}
    return result


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of the values of refits."""
    tail = (1.0 - level) / 2
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)
