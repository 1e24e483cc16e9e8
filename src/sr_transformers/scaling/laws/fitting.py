"""Fits a law: Huber loss on log residuals, analytic gradients, many starts, and a status instead of a hope.

    objective = sum_i w_i huber(log L_i - log loss_i), delta = 1e-3, summed (not averaged)

A fit never fails in silence: `Fit.status` is "converged", or says which bound was hit, which term vanished, which
points are too few. It refuses to say how sure it is; `uncertainty` does that.

Source: Hoffmann et al. 2022 (form, Huber), Besiroglu et al. 2024 (summed; stop only at the minimum).
"""

from dataclasses import dataclass, field

import numpy as np

from sr_transformers.scaling.laws.constraints import ConstrainedLaw, Constraints
from sr_transformers.scaling.laws.descent import DELTA, minimum
from sr_transformers.scaling.laws.forms import UNIQUE, BoundLaw, Law, law_named
from sr_transformers.scaling.laws.points import Points

CONVERGED, BOUND_HIT, DEGENERATE = "converged", "bound_hit", "degenerate"
UNDER_DETERMINED, NOT_CONVERGED = "under_determined", "not_converged"

_VANISHED = 1e-4  # share of the loss below which a term is not visible
_CONDITION = 1e6


@dataclass
class Fit:
    """A fitted law.

    Attributes:
        law: name of the form.
        params: parameters by name; E, A and B in the unit of the loss (A and B at N = 1, D = 1).
        objective: summed Huber loss at `params`.
        status: converged, bound_hit, degenerate, under_determined or not_converged; `reason` says it in words.
        num_points: points fitted.
        num_parameters: Q, those that were chosen: neither fixed nor tied to another.
        starts: starts tried; `starts_agreeing`: those that ended at this objective (1e-6 of it).
        log_rmse: root mean square of the log residuals, about the relative error of the loss.
        constraints: what the fit had to keep.
        theta: internal coordinates (`bind`); the bootstrap starts there.
    """

    law: str
    params: dict[str, float]
    objective: float
    status: str
    reason: str
    num_points: int
    num_parameters: int
    starts: int
    starts_agreeing: int
    log_rmse: float
    constraints: Constraints
    theta: np.ndarray = field(repr=False)

    @property
    def usable(self) -> bool:
        """Whether the numbers mean something: the minimum was found and every parameter is visible in the points."""
        return self.status == CONVERGED


def bind(law: Law, points: Points, constraints: Constraints) -> BoundLaw:
    """The law on points, in the coordinates that the constraints leave free."""
    bound = law.bind(points.columns)
    return ConstrainedLaw(bound, constraints) if constraints else bound


def fit(
    law: Law | str,
    points: Points,
    starts: int = 24,
    seed: int = 0,
    delta: float = DELTA,
    constraints: Constraints | None = None,
) -> Fit:
    """Fits a law to points.

    Args:
        law: a form or its name.
        points: at least as many as parameters, with the law's columns (`Points.require`).
        starts: random starting points beside those that a grid of exponents and linear least squares give.
        seed: of the starts.
        delta: where the Huber loss turns from squares to absolute values, in log units.
        constraints: parameters that are fixed or tied; None: all are free.

    Raises:
        ValueError: for constraints that the law cannot keep, for a fixed floor above all losses, if a column is
            missing, if a variable has one distinct value, or if there are fewer points than parameters.
    """
    law = law_named(law) if isinstance(law, str) else law
    points.require(law)
    constraints = constraints or Constraints()
    bound = bind(law, points, constraints)
    log_loss = np.log(points.values(law))
    floor = constraints.fixed.get(law.names[0]) if law.has_floor else None
    if floor is not None and np.log(1.0 - floor if law.name == "saturating" else floor) >= log_loss.max():
        raise ValueError(
            f"{law.names[0]} is fixed at {floor:g}, which no point lies beyond: nothing is left for the powers to "
            "describe. Fix it between the best value measured and what no model can reach."
        )
    weights = np.ones(len(log_loss))
    candidates = [*grid_starts(bound, log_loss), *random_starts(bound, log_loss, starts, np.random.default_rng(seed))]
    ends = [minimum(bound, log_loss, weights, start, delta) for start in candidates]
    theta, best, settled = min(ends, key=lambda end: end[1])
    agreeing = sum(value <= best * (1 + 1e-6) + 1e-18 for _, value, _ in ends)
    residuals, jacobian = bound.log_loss(theta)
    residuals = residuals - log_loss
    status, reason = _judge(bound, theta, log_loss, jacobian, settled, points, law)
    return Fit(
        law.name,
        bound.decode(theta),
        best,
        status,
        reason,
        len(log_loss),
        len(theta),
        len(candidates),
        agreeing,
        float(np.sqrt(np.mean(residuals**2))),
        constraints,
        theta,
    )


def grid_starts(bound: BoundLaw, log_loss: np.ndarray, keep: int = 3) -> list[np.ndarray]:
    """Best starts from a grid of exponents: with these fixed the law is linear in E and its coefficients."""
    loss = np.exp(log_loss)
    first, k = bound.base.first, bound.num_powers
    grid = np.array([0.03, 0.08, 0.15, 0.3, 0.5, 0.9, 1.5])
    found: list[tuple[float, np.ndarray]] = []
    for exponents in np.stack(np.meshgrid(*[grid] * k), -1).reshape(-1, k):
        basis = np.concatenate([np.ones((first, len(loss))), np.exp(-exponents[:, None] * bound.x)]).T
        solution = np.linalg.lstsq(basis / loss[:, None], np.ones(len(loss)), rcond=None)[0]
        solution = np.maximum(solution, 1e-4 * loss.min())
        error = float(np.abs(np.log(basis @ solution) - log_loss).sum())
        found.append((error, np.concatenate([np.log(solution), exponents])))
    found.sort(key=lambda one: one[0])
    return [_start(theta, bound, 2.0) for _, theta in found[:keep]]


def random_starts(bound: BoundLaw, log_loss: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Starts all over the place: any share of the loss for any term, exponents from 0.02 to 2."""
    first, k = bound.base.first, bound.num_powers
    top = float(log_loss.mean())
    return [
        _start(
            np.concatenate(
                [top + rng.uniform(-3.0, 0.0, first + k), np.exp(rng.uniform(np.log(0.02), np.log(2.0), k))]
            ),
            bound,
            rng.uniform(0.0, 4.0),
        )
        for _ in range(count)
    ]


def _start(powers: np.ndarray, bound: BoundLaw, log_r: float) -> np.ndarray:
    """The free coordinates of floor and powers, and of log R_D and log R_N where the law has them."""
    missing = bound.law.num_parameters - len(powers)
    return bound.inner(np.concatenate([powers, np.full(missing, log_r)]))


def _judge(
    bound: BoundLaw,
    theta: np.ndarray,
    log_loss: np.ndarray,
    jacobian: np.ndarray,
    settled: bool,
    points: Points,
    law: Law,
) -> tuple[str, str]:
    """Status and reason, the gravest first."""
    spare = points.num_distinct(law) - len(theta)
    if spare < 1:
        return UNDER_DETERMINED, (
            f"{points.num_distinct(law)} distinct points for {len(theta)} parameters: the law passes through "
            "them whatever they are; measure more sizes or amounts of data."
        )
    every = bound.base.log_loss(bound.theta(theta))[1]  # by all coordinates, fixed ones too
    k, first, names = bound.num_powers, bound.base.first, law.names
    free = [names[place] for place in bound.free]
    if UNIQUE in law.variables and points.num_values(UNIQUE) == 1 and {"B", "beta"} & set(free):
        return UNDER_DETERMINED, (
            f"{UNIQUE} has one distinct value ({points.columns[UNIQUE][0]:g}): what repeated data are worth against "
            "fresh data cannot be told; measure several amounts of distinct data."
        )
    for index, variable in enumerate(law.powers):
        bends = law.has_floor and law.name != "repeated" and names[first + k + index] in free
        if bends and points.num_values(variable) < 3:
            return UNDER_DETERMINED, (
                f"{variable} has 2 distinct values: no curve can be told from a line; measure a third."
            )
        if float(every[:, first + index].max()) < _VANISHED:
            moves = "the metric does not rise" if law.name == "saturating" else "the loss does not fall"
            return DEGENERATE, f"{moves} with {variable}: the term {names[first + index]} vanished."
    limits = bound.limits(log_loss)
    hit = [
        f"{name} at its {'lower' if value <= low + 1e-9 else 'upper'} bound"
        for name, value, (low, high) in zip(free, theta, limits, strict=True)
        if value <= low + 1e-9 or value >= high - 1e-9
    ]
    if bound.first and float(jacobian[:, 0].max()) < _VANISHED:
        others = [one for one in hit if not one.startswith(f"{names[0]} ")]
        hit = [f"{names[0]} at its bound: no floor is visible in these points", *others]
    if hit:
        return BOUND_HIT, "; ".join(hit) + "." + _advice(law, free, hit)
    scaled = jacobian / np.linalg.norm(jacobian, axis=0)
    condition = float(np.linalg.cond(scaled))
    if condition > _CONDITION:
        together = f"{' and '.join(law.variables)} move together, or " if len(law.variables) > 1 else ""
        exponents = f"{' and '.join(names[first + k : first + 2 * k])} {'are' if k > 1 else 'is'} too small"
        return DEGENERATE, (
            f"the parameters cannot be told apart (condition {condition:.1e}): {together}{exponents} for these points "
            "to bend."
        )
    if not settled:
        return NOT_CONVERGED, "the gradient does not vanish at the best point found; try more starts."
    return CONVERGED, "the gradient vanishes and every parameter is visible in the points."


def _advice(law: Law, free: list[str], hit: list[str]) -> str:
    """What to fix where the law of repeated data is asked for more than its points say."""
    first_step = [name for name in law.names if name in free and law.kind_of(name) != "repeats"]
    if law.name != "repeated" or not first_step or not any(one.startswith("R_") for one in hit):
        return ""
    given = " ".join(f"{name}={name}'s value" for name in first_step)
    return (
        f" Fit {', '.join(first_step)} to the runs that see their data once (--law joint), then this law with "
        f"--fix {given}; or fix the one at its bound."
    )
