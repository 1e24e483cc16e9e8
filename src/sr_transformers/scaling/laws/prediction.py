"""What a fitted law says about runs that nobody made: held-out sizes, compute-optimal sizes, what to buy next.

Predictions beyond the largest size measured are extrapolations; `reach` says by how much. Nothing here says what
happens where the law stops holding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from sr_transformers.scaling.laws.bootstrap import LEVEL, Bootstrap, bootstrap
from sr_transformers.scaling.laws.fitting import Fit, fit
from sr_transformers.scaling.laws.forms import UNIQUE, D, Law, N, law_named
from sr_transformers.scaling.laws.points import Points


@dataclass
class HeldOut:
    """A law fitted to some runs against what others measured: the paper's experiment.

    Attributes:
        fitted, refits: fit and bootstrap of the runs that were known.
        rows: a dictionary per held-out run: N, D, measured, predicted, relative_error (predicted / measured - 1), low
            and high (interval of one new run; None if there is none), inside (None likewise).
        reaches: how far the held-out runs lie beyond the others, by variable: largest N over largest N, D over D.
    """

    fitted: Fit
    refits: Bootstrap
    rows: list[dict[str, float | bool | None]]
    reaches: dict[str, float]

    @property
    def reach(self) -> float:
        """The farthest of them."""
        return max(self.reaches.values())


def hold_out_largest(
    points: Points,
    law: Law | str,
    largest: int = 2,
    draws: int = 200,
    seed: int = 0,
    level: float = LEVEL,
) -> HeldOut:
    """Fits without the `largest` largest sizes N and predicts their runs.

    Raises:
        ValueError: if nothing is held out, or what is left cannot be fitted.
    """
    law = law_named(law) if isinstance(law, str) else law
    if N not in law.variables:
        raise ValueError(f"law {law.name} does not know N; hold out sizes with n, joint, repeated or saturating.")
    sizes = np.unique(points.columns[N])
    if not 1 <= largest < len(sizes):
        raise ValueError(f"cannot hold out {largest} of {len(sizes)} sizes; choose 1..{len(sizes) - 1}.")
    held = points.columns[N] >= sizes[-largest]
    return hold_out(points.take(~held), points.take(held), law, draws, seed, level)


def hold_out(
    known: Points, unseen: Points, law: Law | str, draws: int = 200, seed: int = 0, level: float = LEVEL
) -> HeldOut:
    """Fits the known points and predicts the unseen ones.

    Raises:
        ValueError: if the known points cannot be fitted.
    """
    law = law_named(law) if isinstance(law, str) else law
    fitted = fit(law, known, seed=seed)
    refits = bootstrap(fitted, known, draws, seed)
    predicted = law.predict(fitted.params, unseen.columns)
    bounds = refits.of_new_run(unseen.columns, level)
    measured = unseen.columns["metric" if law.name == "saturating" else "loss"]
    rows: list[dict[str, float | bool | None]] = []
    for index in range(len(unseen)):
        low, high = (None, None) if np.isnan(bounds[index, 0]) else map(float, bounds[index])
        rows.append(
            {
                **{name: float(unseen.columns[name][index]) for name in (N, D) if name in unseen.columns},
                "measured": float(measured[index]),
                "predicted": float(predicted[index]),
                "relative_error": float(predicted[index] / measured[index] - 1.0),
                "low": low,
                "high": high,
                "inside": None if low is None or high is None else bool(low <= measured[index] <= high),
            }
        )
    reaches = {name: float(unseen.columns[name].max() / known.columns[name].max()) for name in law.variables}
    return HeldOut(fitted, refits, rows, reaches)


def width_of(num_parameters: float, width_per_layer: float = 25.0) -> float:
    """Width d of a model of N parameters in the blocks with d / L as given (25: the paper's six sizes have 16 to 32).

    >>> round(width_of(829_440_000))
    1200
    """
    return (num_parameters * width_per_layer / 12.0) ** (1.0 / 3.0)


def training_flops(
    num_parameters: float, interactions: float, vocab_size: int = 0, width_per_layer: float = 25.0
) -> float:
    """C = 6 N D, and the head's 6 V d D if V is given."""
    head = vocab_size * width_of(num_parameters, width_per_layer) if vocab_size else 0.0
    return 6.0 * (num_parameters + head) * interactions


def compute_optimal(
    params: Mapping[str, float],
    flops: float,
    vocab_size: int = 0,
    width_per_layer: float = 25.0,
    law: Law | str = "joint",
    passes: float = 1.0,
) -> dict[str, float]:
    """N and D that a law of both gives the lowest loss for a budget of FLOPs, the head's share included if V is given.

    Args:
        law: whose parameters these are: joint or kaplan.
        passes: over the D interactions that the budget pays for: as many as the runs made that the law describes.

    Returns:
        N, D, loss, and head_share, the part of the FLOPs that the head takes.

    Raises:
        ValueError: for a budget that is not positive, or another law.
    """
    if not flops > 0:
        raise ValueError(f"the budget is {flops} FLOPs; it must be above 0.")
    law = law_named(law) if isinstance(law, str) else law
    if law.variables != (N, D) or not set(law.names) <= set(params):
        raise ValueError("compute-optimal sizes need a law of size and data; fit --law joint, or --law kaplan.")
    once = flops / passes

    def loss(log_n: float) -> float:
        n = np.exp(log_n)
        d = once / training_flops(n, 1.0, vocab_size, width_per_layer)
        return float(law.predict(params, {N: np.array([n]), D: np.array([d])})[0])

    found = minimize_scalar(loss, bounds=(0.0, float(np.log(once / 6.0))), method="bounded", options={"xatol": 1e-9})
    n = float(np.exp(found.x))
    d = once / training_flops(n, 1.0, vocab_size, width_per_layer)
    return {"N": n, "D": d, "loss": float(found.fun), "head_share": 1.0 - 6.0 * n * d / once}


def bottleneck(
    params: Mapping[str, float], n: float, d: float, factor: float = 2.0, law: Law | str = "joint"
) -> dict[str, float | str]:
    """What lowers the loss more: a model `factor` times as large, or as much more data.

    Args:
        law: whose parameters these are: joint or kaplan.

    Returns:
        loss, gain_from_size and gain_from_data in nats, size_left and data_left (what an endless model, endless data
        would still gain), and bottleneck: "data", "size", or "neither" if both gains are below 0.002 nats.
    """
    law = law_named(law) if isinstance(law, str) else law
    columns = {N: np.array([n, n * factor, n]), D: np.array([d, d, d * factor])}
    now, larger, more = law.predict(params, columns).tolist()
    gains = {"gain_from_size": now - larger, "gain_from_data": now - more}
    name = (
        "neither" if max(gains.values()) < 0.002 else max(gains, key=lambda key: gains[key]).removeprefix("gain_from_")
    )
    return {
        "loss": now,
        **gains,
        "size_left": now - params["E"] - params["B"] * d ** -params["beta"],
        "data_left": now - params["E"] - params["A"] * n ** -params["alpha"],
        "bottleneck": name,
    }


def epochs_worth(
    params: Mapping[str, float], n: float, unique: float, worth: float = 0.01, most: int = 1000
) -> dict[str, float]:
    """When more epochs stop paying under the data-constrained law: doubling them gains less than `worth` nats.

    Returns:
        epochs, the loss there, loss_once (one epoch) and loss_limit (endless epochs).

    Raises:
        ValueError: for another law's parameters.
    """
    if "R_D" not in params:
        raise ValueError("epochs need the data-constrained law (R_D, R_N); fit --law repeated.")
    law = law_named("repeated")

    def loss(epochs: np.ndarray) -> np.ndarray:
        size = np.ones_like(epochs)
        return law.predict(params, {N: n * size, D: unique * epochs, UNIQUE: unique * size})

    epochs = np.arange(1.0, most + 1)
    gains = loss(epochs) - loss(2 * epochs)
    stop = int(np.argmax(gains < worth)) if (gains < worth).any() else most - 1
    return {
        "epochs": float(epochs[stop]),
        "loss": float(loss(epochs[stop : stop + 1])[0]),
        "loss_once": float(loss(epochs[:1])[0]),
        "loss_limit": float(loss(np.array([1e9]))[0]),
    }
