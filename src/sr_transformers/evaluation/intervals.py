"""Intervals and paired tests by the bootstrap over users (and over seeds, where a model was trained with several).

Each draw takes as many users as there are, with replacement, and computes every statistic anew. The draws of a set of
users depend on that set and the seed alone. So models, and conditions on the same users, are compared pair by pair,
while sets without common users are drawn independently. Intervals are percentiles of the draws (Efron and Tibshirani
1993, chapter 13).
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_WEIGHTS = 1 << 21  # user weights held at a time, in numbers: 16 MiB


@dataclass(frozen=True)
class Estimate:
    """A statistic of the data and of every draw. Arithmetic keeps draws paired.

    Attributes:
        point: on the data itself; NaN if it has no value.
        draws: `(draws,)` float64.
    """

    point: float
    draws: np.ndarray

    def __sub__(self, other: "Estimate") -> "Estimate":
        with np.errstate(invalid="ignore"):  # between two infinite ratios
            return Estimate(self.point - other.point, self.draws - other.draws)

    def relative_to(self, base: "Estimate") -> "Estimate":
        """self / base - 1; NaN or infinite where the base is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return Estimate(float(np.float64(self.point) / np.float64(base.point) - 1), self.draws / base.draws - 1)

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Percentile interval; None if a draw has no finite value (a ratio to a metric that can be 0)."""
        if not (np.isfinite(self.point) and np.all(np.isfinite(self.draws))):
            return None
        low, high = np.quantile(self.draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)

    def summary(self, confidence: float) -> dict[str, float | None]:
        """`value`, `low`, `high`; None where there is none."""
        low, high = self.interval(confidence) or (None, None)
        return {"value": self.point if np.isfinite(self.point) else None, "low": low, "high": high}

    def p_value(self) -> float | None:
        """Two-sided bootstrap test against 0: twice the smaller share of draws on either side, 2 / (draws + 1) or more.

        None if a draw has no finite value.
        """
        if not np.all(np.isfinite(self.draws)):
            return None
        below, above = int((self.draws <= 0).sum()), int((self.draws >= 0).sum())
        return min(1.0, 2 * (min(below, above) + 1) / (len(self.draws) + 1))


def user_weights(users: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each user is in each draw: blocks `(b, M)` of float64 that add up to `draws` rows.

    Args:
        users: `(M,)` int64 rows of the log; the draws depend on them.
    """
    count = len(users)
    rng = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(users, np.int64).tobytes())])
    block = max(_WEIGHTS // count, 1)
    for start in range(0, draws, block):
        yield np.stack(
            [
                np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
                for _ in range(min(block, draws - start))
            ]
        )


def bootstrap(values: np.ndarray, users: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of C statistics over users.

    Args:
        values: `(M, C)` float64; NaN where a user has no value, and takes no part.
        users: `(M,)` int64.

    Returns:
        `(C,)` means of the data and `(draws, C)` means of the draws; NaN where no user drawn has a value.
    """
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    partly = np.nonzero(~there.all(0))[0]  # few columns: counting for all would double the work

    def means(weights: np.ndarray) -> np.ndarray:
        counts = np.repeat(weights.sum(1)[:, None], values.shape[1], 1)
        counts[:, partly] = weights @ there[:, partly]
        with np.errstate(invalid="ignore"):
            return (weights @ filled) / counts

    rows = [means(weights) for weights in user_weights(users, draws, seed)]
    return means(np.ones((1, len(users))))[0], np.concatenate(rows)


def over_seeds(points: Sequence[float], draws: np.ndarray, seed: Sequence[int]) -> Estimate:
    """Mean over R training seeds; every draw also takes R of them with replacement.

    Args:
        points: R values.
        draws: `(R, draws)`.
        seed: of the choice of seeds. The same for all metrics and groups of a model, so that these stay paired.
    """
    count = len(points)
    chosen = np.random.default_rng(seed).integers(0, count, (count, draws.shape[1]))
    return Estimate(float(np.mean(points)), np.take_along_axis(draws, chosen, 0).mean(0))
