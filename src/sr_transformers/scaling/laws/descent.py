"""Runs a law downhill from one start: within bounds, then to the very bottom of the valley it ends in."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize, root

from sr_transformers.scaling.laws.forms import BoundLaw

DELTA = 1e-3

_ROUNDS = 4  # of an optimizer that stopped on a slope, where residuals go from the square to the straight part
_FLOOR_LEAVES = np.log(0.5)  # a floor below this share of the loss may be on its way to nothing


def huber(residuals: np.ndarray, delta: float) -> np.ndarray:
    """`r^2 / 2` up to delta, `delta (|r| - delta / 2)` beyond.

    >>> huber(np.array([0.5, 3.0]), 1.0).tolist()
    [0.125, 2.5]
    """
    size = np.abs(residuals)
    square = np.minimum(size, delta)
    return square * (size - 0.5 * square)


def minimum(
    bound: BoundLaw, log_loss: np.ndarray, weights: np.ndarray, start: np.ndarray, delta: float = DELTA
) -> tuple[np.ndarray, float, bool]:
    """Runs downhill from a start.

    Returns:
        theta, the objective there, and whether the gradient vanishes (along bounds that were hit: its inner part).
    """
    scale = delta * delta  # so that the optimizer's tolerances see numbers of order 1

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, jacobian = bound.log_loss(theta)
        residuals = value - log_loss
        gradient = (weights * np.clip(residuals, -delta, delta)) @ jacobian
        return float(weights @ huber(residuals, delta)) / scale, gradient / scale

    limits = bound.limits(log_loss)
    low, high = np.array(limits).T
    theta = np.clip(start, low, high)
    # The gradient sums terms of up to w delta / delta^2; what is left must be small against that.
    small = 1e-4 * max(weights.sum() / delta, 1.0)
    for _ in range(_ROUNDS):
        # SLSQP keeps the bounds. L-BFGS-B would too, but its small factorizations wake all threads of the BLAS: 100
        # times slower where other programs use the cores.
        options = {"ftol": 1e-10, "maxiter": 500}
        found = minimize(objective, theta, jac=True, method="SLSQP", bounds=limits, options=options)
        theta = _bottom(bound, objective, np.clip(found.x, low, high), low, high)
        if floor_may_leave(bound, theta):
            # A floor on its way to nothing gets ever less gradient and stops anywhere: ask for the bound itself.
            without = _bottom(bound, objective, np.concatenate([low[:1], theta[1:]]), low, high)
            if objective(without)[0] <= objective(theta)[0]:
                theta = without
        value, gradient = objective(theta)
        blocked = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
        left = float(np.abs(np.where(blocked, 0.0, gradient)).max())
        if left <= small:
            break
    return theta, value * scale, left <= small


def floor_may_leave(bound: BoundLaw, theta: np.ndarray) -> bool:
    """Whether the floor is so low that points hardly tell where it is."""
    return bool(bound.first) and bool(theta[0] < bound.log_loss(theta)[0].mean() + _FLOOR_LEAVES)


def _bottom(
    bound: BoundLaw,
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]],
    theta: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """The bottom of theta's valley within the bounds; coordinates on a bound stay there.

    Exponents that leave their bounds on the way are fixed there, and the rest goes on without them.
    """
    at, free = theta, (theta > low) & (theta < high)
    while free.any():
        below = _descend(bound, objective, at, free)
        outside = free & ((below <= low) | (below >= high))
        if not outside.any():
            return below if objective(below)[0] <= objective(theta)[0] * (1 + 1e-12) else theta
        at, free = np.clip(below, low, high), free & ~outside
    return theta


def _descend(
    bound: BoundLaw,
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]],
    theta: np.ndarray,
    free: np.ndarray,
) -> np.ndarray:
    """Downhill by BFGS where the valley is straight (`BoundLaw.straighten`), then to the root of the gradient.

    A flat valley's objective tells its bottom to half of a float's digits, and a line search ends wherever rounding
    ends it, which differs between processors; the gradient tells it to nearly all.
    """
    # With floor and powers all free; without one of them the others do not trade, and theta itself will do.
    trading = bool(free[: bound.first + bound.num_powers].all())
    whole = bound.straighten(theta) if trading else theta.copy()

    def theta_of(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return bound.bend(z) if trading else (z, np.eye(len(z)))

    def straight(part: np.ndarray) -> tuple[float, np.ndarray]:
        z = whole.copy()
        z[free] = part
        bent, jacobian = theta_of(z)
        if np.isnan(bent[0]):
            return np.inf, np.zeros_like(part)
        value, gradient = objective(bent)
        return value, (gradient @ jacobian)[free]

    down = minimize(straight, whole[free], jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": 300})
    still = root(lambda part: straight(part)[1], down.x, method="hybr").x
    # A root may be a saddle, or far away where the way there was not smooth.
    whole[free] = still if straight(still)[0] <= down.fun * (1 + 1e-12) else down.x
    return theta_of(whole)[0]
