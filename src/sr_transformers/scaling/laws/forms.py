"""The forms of scaling laws: loss as a sum of a floor and of powers of size and data.

    n           L(N)    = E + A / N^alpha
    d           L(D)    = E + B / D^beta
    joint       L(N, D) = E + A / N^alpha + B / D^beta
    kaplan      L(N, D) = E + ((A / N^alpha)^(1 / beta) + (B / D^beta)^(1 / beta))^beta
    repeated    the joint law of effective parameters N' and effective data D', when data repeat
    power       L(N)    = A / N^alpha, no floor: what n is compared with
    saturating  M(N)    = M_inf - A / N^alpha, for a metric M such as HR@10: the form n for the misses 1 - M

The form kaplan has the same two ends as joint, A / N^alpha for endless data and B / D^beta for an endless model;
between them it is nearer to the larger of the two, so that few data leave little for size to gain. With N_c =
A^(1/alpha) the form n is the paper's E + (N_c / N)^alpha. A law computes log L by log-sum-exp and its exact Jacobian,
in coordinates that suit an optimizer: the logarithms of E and of every power's value at the centre of the
data, and the exponents. No law knows how it is fitted; `fitting` does that.

Source: joint form: Hoffmann et al. 2022; kaplan: Kaplan et al. 2020, "Scaling Laws for Neural Language Models",
equation 1.5, and a floor; repeated: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models",
equations 5-7 (effective data) and appendix A (effective parameters).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

N, D, UNIQUE = "N", "D", "unique"
TOGETHER = ("joint", "kaplan")  # the forms of loss by size and data
EXPONENTS = (1e-3, 5.0)  # what a fit may find
LOG_REPEATS = (np.log(0.05), np.log(1e4))
_FAR = 50.0  # logarithms: e^50 of anything here is no number of a law


@dataclass(frozen=True)
class Law:
    """A floor and a power of each variable.

    Attributes:
        name: as the command line calls it.
        variables: columns of the points it reads: N, D, unique (distinct interactions behind D).
        names: parameters by the names that papers use, in the order of results: E, then coefficients, then exponents.
        formula: for people.
    """

    name: str
    variables: tuple[str, ...]
    names: tuple[str, ...]
    formula: str

    @property
    def powers(self) -> tuple[str, ...]:
        """The variables that have a power of their own."""
        return tuple(name for name in self.variables if name != UNIQUE)

    @property
    def has_floor(self) -> bool:
        return self.names[0] in ("E", "M_inf")

    @property
    def num_parameters(self) -> int:
        return len(self.names)

    def kind_of(self, name: str) -> str:
        """Of a parameter: "floor", "coefficient", "exponent" or "repeats" (R_D, R_N)."""
        place, k = self.names.index(name) - int(self.has_floor), len(self.powers)
        return "floor" if place < 0 else ("coefficient", "exponent", "repeats")[min(place // k, 2)]

    def bind(self, columns: Mapping[str, np.ndarray]) -> "BoundLaw":
        """The law on given points."""
        return {"repeated": BoundRepeatedLaw, "kaplan": BoundKaplanLaw}.get(self.name, BoundLaw)(self, columns)

    def predict(self, params: Mapping[str, float], columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Loss in the unit of E (nats), or the metric for the saturating form; `(P,)` float64."""
        bound = self.bind(columns)
        value = np.exp(bound.log_loss(bound.encode(params))[0])
        return 1.0 - value if self.name == "saturating" else value


LAWS = {
    law.name: law
    for law in (
        Law("n", (N,), ("E", "A", "alpha"), "L = E + A / N^alpha"),
        Law("d", (D,), ("E", "B", "beta"), "L = E + B / D^beta"),
        Law("joint", (N, D), ("E", "A", "B", "alpha", "beta"), "L = E + A / N^alpha + B / D^beta"),
        Law(
            "kaplan",
            (N, D),
            ("E", "A", "B", "alpha", "beta"),
            "L = E + ((A / N^alpha)^(1 / beta) + (B / D^beta)^(1 / beta))^beta",
        ),
        Law(
            "repeated",
            (N, D, UNIQUE),
            ("E", "A", "B", "alpha", "beta", "R_D", "R_N"),
            "L = E + A / N'^alpha + B / D'^beta, D' = U + U R_D (1 - exp(-(D / U - 1) / R_D)), N' alike",
        ),
        Law("power", (N,), ("A", "alpha"), "L = A / N^alpha"),
        Law("saturating", (N,), ("M_inf", "A", "alpha"), "M = M_inf - A / N^alpha"),
    )
}


def law_named(name: str) -> Law:
    """The law of a name.

    Raises:
        ValueError: if there is none.
    """
    if name not in LAWS:
        raise ValueError(f"law {name!r} is not known; choose from {', '.join(LAWS)}.")
    return LAWS[name]


class BoundLaw:
    """A law on P points: log L and its Jacobian in internal coordinates theta.

    theta = (e, c_1 .. c_K, p_1 .. p_K): e = log E (absent without a floor), p_k the exponent of variable k, c_k the
    logarithm of its power at the mean m_k of log x_k, so that power k is exp(c_k - p_k (log x_k - m_k)). Centred so,
    coefficients and exponents hardly correlate and every start runs downhill to the same place.
    """

    def __init__(self, law: Law, columns: Mapping[str, np.ndarray]):
        self.law = law
        logs = [np.log(np.asarray(columns[name], dtype=np.float64)) for name in law.powers]
        self.centres = np.array([one.mean() for one in logs])
        self.x = np.stack(logs) - self.centres[:, None]  # (K, P)
        self.num_powers = len(logs)
        self.first = int(law.has_floor)  # place of the first coefficient in theta

    # What `constraints.ConstrainedLaw` does otherwise: here all coordinates are free.

    @property
    def base(self) -> "BoundLaw":
        """The law with all its coordinates."""
        return self

    @property
    def free(self) -> np.ndarray:
        """Places, among the coordinates of `base`, of those that an optimizer moves."""
        return np.arange(self.law.num_parameters)

    def theta(self, free: np.ndarray) -> np.ndarray:
        """All coordinates, from the free ones."""
        return free

    def inner(self, theta: np.ndarray) -> np.ndarray:
        """The free coordinates of all."""
        return theta[self.free]

    def limits(self, log_loss: np.ndarray) -> list[tuple[float, float]]:
        """Of theta: floors and powers from e^-16 of the smallest loss on, exponents from 0.001 to 5."""
        low, high = float(log_loss.min()), float(log_loss.max())
        floor, power = (low - 16.0, high), (low - 16.0, high + 3.0)
        return [floor] * self.first + [power] * self.num_powers + [EXPONENTS] * self.num_powers

    def log_loss(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(P,)` log L and its Jacobian `(P, Q)`, by log-sum-exp: nothing overflows."""
        k, first = self.num_powers, self.first
        powers = theta[first : first + k, None] - theta[first + k : first + 2 * k, None] * self.x
        floor = np.full((first, self.x.shape[1]), theta[0])
        value, weights = log_sum_exp(np.concatenate([floor, powers]))
        return value, np.concatenate([weights, -weights[first:] * self.x]).T

    def straighten(self, theta: np.ndarray) -> np.ndarray:
        """z: where the valley along which floor, coefficients and exponents trade is straight; theta without a floor.

        z = (log L, log s_1 .. log s_K, log p_1 .. log p_K, rest), L the law's value at the centre of the data and
        -s_k its slope there in log x_k. Points that show level and slopes but hardly a bend leave only the p_k open,
        and the way along them is a line; in theta it is a curve on which every optimizer creeps.
        """
        if not self.first:
            return theta.copy()
        k = self.num_powers
        level, shares = log_sum_exp(theta[: 1 + k, None])
        exponents = theta[1 + k : 1 + 2 * k]
        slopes = np.log(shares[1:, 0]) + np.log(exponents)
        return np.concatenate([level, slopes, np.log(exponents), theta[1 + 2 * k :]])

    def bend(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """theta of z, and its Jacobian `(Q, Q)`; theta is nan where the powers leave nothing for the floor, and beyond
        anything that a law could be."""
        jacobian = np.eye(len(z))
        if not self.first:
            return z, jacobian
        k = self.num_powers
        log_shares = z[1 : 1 + k] - z[1 + k : 1 + 2 * k]
        floor = 1.0 - np.exp(np.minimum(log_shares, 1.0)).sum()
        if not floor > 0 or np.abs(z).max() > _FAR:
            return np.full_like(z, np.nan), jacobian
        exponents = np.exp(z[1 + k : 1 + 2 * k])
        coefficient, exponent = np.arange(1, 1 + k), np.arange(1 + k, 1 + 2 * k)
        jacobian[0, coefficient] = -np.exp(log_shares) / floor
        jacobian[0, exponent] = np.exp(log_shares) / floor
        jacobian[coefficient, 0] = 1.0
        jacobian[coefficient, exponent] = -1.0
        jacobian[exponent, exponent] = exponents
        return np.concatenate([[z[0] + np.log(floor)], z[0] + log_shares, exponents, z[1 + 2 * k :]]), jacobian

    def encode(self, params: Mapping[str, float]) -> np.ndarray:
        """Internal coordinates of parameters by name; E of 0 becomes a floor far below any loss."""
        k, first, names = self.num_powers, self.first, self.law.names
        floor = [1.0 - params["M_inf"] if names[0] == "M_inf" else params["E"]] if first else []
        exponents = np.array([params[name] for name in names[first + k : first + 2 * k]])
        coefficients = [params[name] for name in names[first : first + k]]
        logs = np.log(np.maximum(np.array([*floor, *coefficients]), 1e-300))
        return np.concatenate([logs[:first], logs[first:] - exponents * self.centres, exponents])

    def decode(self, theta: np.ndarray) -> dict[str, float]:
        """Parameters by name."""
        k, first = self.num_powers, self.first
        exponents = theta[first + k : first + 2 * k]
        coefficients = np.exp(theta[first : first + k] + exponents * self.centres)
        floor = np.exp(theta[:first])
        values = [*(1.0 - floor if self.law.names[0] == "M_inf" else floor), *coefficients, *exponents]
        return {name: float(value) for name, value in zip(self.law.names, values, strict=False)}


class BoundKaplanLaw(BoundLaw):
    """The form kaplan on P points: the floor and (X^(1/beta) + Y^(1/beta))^beta, of X = A / N^alpha, Y = B / D^beta."""

    def log_loss(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        e, c_n, c_d, alpha, beta = theta
        beta = max(beta, 1e-4)  # an optimizer without bounds may look at less
        powers = np.stack([c_n - alpha * self.x[0], c_d - beta * self.x[1]])
        together, shares = log_sum_exp(powers / beta)
        value, (w_e, w) = log_sum_exp(np.stack([np.full_like(together, e), beta * together]))
        by_beta = together - (shares * powers).sum(0) / beta - shares[1] * self.x[1]
        return value, np.stack([w_e, w * shares[0], w * shares[1], -w * shares[0] * self.x[0], w * by_beta]).T


class BoundRepeatedLaw(BoundLaw):
    """The data-constrained law on P points, with two coordinates more: log R_D and log R_N.

    U distinct interactions seen D / U times are worth D' = U + U R_D (1 - exp(-(D / U - 1) / R_D)): all of D for few
    epochs, never more than U (1 + R_D). Parameters beyond U_N, the number that U interactions can feed (where the two
    powers of the joint law fall equally fast: alpha A / U_N^alpha = beta B / U^beta), lose worth alike with R_N.
    """

    def __init__(self, law: Law, columns: Mapping[str, np.ndarray]):
        super().__init__(law, columns)
        self.log_n = np.log(np.asarray(columns[N], dtype=np.float64))
        self.log_u = np.log(np.asarray(columns[UNIQUE], dtype=np.float64))
        self.repeats = np.asarray(columns[D], dtype=np.float64) / np.asarray(columns[UNIQUE], dtype=np.float64) - 1.0

    def limits(self, log_loss: np.ndarray) -> list[tuple[float, float]]:
        return [*super().limits(log_loss), LOG_REPEATS, LOG_REPEATS]

    def log_loss(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As for `BoundLaw`, by the chain rule through N' and D'."""
        e, c_n, c_d, alpha, beta, log_rd, log_rn = theta
        alpha, beta = max(alpha, 1e-4), max(beta, 1e-4)  # an optimizer without bounds may look at less
        m_n, m_d = self.centres
        # Effective data; with g(r, s) = log(1 + e^s (1 - exp(-r e^-s))), s = log R.
        g_d, _, g_d_s = _discount(self.repeats, log_rd)
        log_d = self.log_u + g_d
        # U_N: log U_N = (log(alpha / beta) + c_n - c_d + alpha m_n - beta m_d + beta log U) / alpha.
        log_feed = (np.log(alpha / beta) + c_n - c_d + alpha * m_n - beta * m_d + beta * self.log_u) / alpha
        fed = log_feed < self.log_n
        # log N - log U_N can be enormous at a wild start; there N' is its limit anyway.
        excess = np.clip(self.log_n - log_feed, 0.0, 50.0)
        g_n, g_n_r, g_n_s = _discount(np.expm1(excess), log_rn)
        log_n = np.where(fed, log_feed + g_n, self.log_n)
        # d log N' / d log U_N = 1 + g_r * dr/dlogU_N, r = N / U_N - 1.
        slope = np.where(fed, 1.0 - g_n_r * np.exp(excess), 0.0)
        feed_jacobian = np.stack(
            [
                np.full_like(log_n, 1.0 / alpha),
                np.full_like(log_n, -1.0 / alpha),
                (1.0 / alpha + m_n - log_feed) / alpha,
                (-1.0 / beta - m_d + self.log_u) / alpha,
            ]
        )
        terms = np.stack([np.full_like(log_n, e), c_n - alpha * (log_n - m_n), c_d - beta * (log_d - m_d)])
        value, (w_e, w_n, w_d) = log_sum_exp(terms)
        through_n = -alpha * w_n * slope * feed_jacobian  # (4, P): by way of U_N
        jacobian = np.stack(
            [
                w_e,
                w_n + through_n[0],
                w_d + through_n[1],
                -w_n * (log_n - m_n) + through_n[2],
                -w_d * (log_d - m_d) + through_n[3],
                -beta * w_d * g_d_s,
                -alpha * w_n * np.where(fed, g_n_s, 0.0),
            ]
        )
        return value, jacobian.T

    def encode(self, params: Mapping[str, float]) -> np.ndarray:
        return np.concatenate([super().encode(params), np.log([params["R_D"], params["R_N"]])])

    def decode(self, theta: np.ndarray) -> dict[str, float]:
        return {**super().decode(theta), "R_D": float(np.exp(theta[5])), "R_N": float(np.exp(theta[6]))}


def log_sum_exp(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(P,)` log of the sum over the first axis of exp `(T, P)`, and the share `(T, P)` of every term."""
    top = terms.max(axis=0)
    parts = np.exp(terms - top)
    total = parts.sum(axis=0)
    return top + np.log(total), parts / total


def _discount(repeats: np.ndarray, log_r: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log(1 + R (1 - exp(-repeats / R))), and its derivatives by the repeats and by log R."""
    r = np.exp(np.clip(log_r, -30.0, 30.0))  # as with exponents: an optimizer without bounds may look beyond
    left = np.exp(-repeats / r)
    worth = 1.0 - r * np.expm1(-repeats / r)
    return np.log(worth), left / worth, (-r * np.expm1(-repeats / r) - repeats * left) / worth
