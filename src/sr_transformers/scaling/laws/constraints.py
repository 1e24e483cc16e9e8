"""Parameters of a law that a fit must not choose: fixed at a value, or tied to be equal.

Published data-constrained laws are fitted in two steps: E, A, B, alpha and beta from runs that see their data once,
then R_D and R_N alone from runs that repeat them (Muennighoff et al. 2023, appendix A). Others tie alpha and beta. In
the internal coordinates of `laws.BoundLaw` each such condition is linear, so a constrained law is the law on an affine
subspace: theta = T u + t, u what is left to choose.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sr_transformers.scaling.laws.forms import BoundLaw, Law


@dataclass(frozen=True)
class Constraints:
    """What a fit must keep.

    Attributes:
        fixed: value by parameter name, in the unit of results (A and B at N = 1, D = 1).
        tied: pairs of names that are equal; exponents, or R_D and R_N.
    """

    fixed: Mapping[str, float] = field(default_factory=dict)
    tied: tuple[tuple[str, str], ...] = ()

    def check(self, law: Law) -> None:
        """Whether a law can be fitted so.

        Raises:
            ValueError: for a name that the law does not have, a value that cannot be, a pair that cannot be tied.
        """
        known = ", ".join(law.names)
        for name in (*self.fixed, *(name for pair in self.tied for name in pair)):
            if name not in law.names:
                raise ValueError(f"law {law.name} has no parameter {name!r}; its parameters are {known}.")
        for name, value in self.fixed.items():
            if not (np.isfinite(value) and value > 0) or (name == "M_inf" and value >= 1):
                raise ValueError(f"{name} is fixed at {value}; it must be a finite number above 0 (M_inf: below 1).")
        for one, other in self.tied:
            if (
                one == other
                or law.kind_of(one) != law.kind_of(other)
                or law.kind_of(one) not in ("exponent", "repeats")
            ):
                raise ValueError(f"{one} and {other} cannot be tied: tie two exponents, or R_D and R_N.")
            if one in self.fixed or other in self.fixed:
                raise ValueError(
                    f"{one} and {other} are tied, so fixing one of them fixes both: fix both, or tie none."
                )
        if len(self.fixed) + len(self.tied) >= law.num_parameters:
            raise ValueError(f"nothing is left to fit: law {law.name} has the parameters {known}.")

    def __bool__(self) -> bool:
        return bool(self.fixed or self.tied)


class ConstrainedLaw(BoundLaw):
    """A bound law in the coordinates u that its constraints leave free; what it calls theta is u.

    Raises:
        ValueError: as `Constraints.check`.
    """

    def __init__(self, base: BoundLaw, constraints: Constraints):
        law = base.law
        constraints.check(law)
        self.law, self._base, self.centres, self.x = law, base, base.centres, base.x
        self.num_powers = base.num_powers
        size, k = law.num_parameters, base.num_powers
        index = {name: place for place, name in enumerate(law.names)}
        matrix, offset = np.eye(size), np.zeros(size)
        for name, value in constraints.fixed.items():
            place, kind = index[name], law.kind_of(name)
            matrix[place] = 0.0
            if kind == "exponent":
                offset[place] = value
            elif kind == "coefficient":  # log A = c + p m, with p the power's exponent and m its centre
                offset[place] = np.log(value)
                matrix[place, place + k] = -self.centres[place - base.first]
            else:
                offset[place] = np.log(1.0 - value if name == "M_inf" else value)
        for name, value in constraints.fixed.items():  # a fixed coefficient beside its fixed exponent is a number
            if law.kind_of(name) == "exponent":
                offset += matrix[:, index[name]] * value
                matrix[:, index[name]] = 0.0
        for one, other in constraints.tied:
            matrix[:, index[one]] += matrix[:, index[other]]
            matrix[:, index[other]] = 0.0
        self._free = np.flatnonzero(np.abs(matrix).max(axis=0) > 0)
        self.matrix, self.offset = matrix[:, self._free], offset
        self.first = int(bool(base.first) and 0 in self.free)

    @property
    def base(self) -> BoundLaw:
        return self._base

    @property
    def free(self) -> np.ndarray:
        return self._free

    def theta(self, free: np.ndarray) -> np.ndarray:
        return self.matrix @ free + self.offset

    def limits(self, log_loss: np.ndarray) -> list[tuple[float, float]]:
        whole = self.base.limits(log_loss)
        return [whole[place] for place in self.free]

    def log_loss(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, jacobian = self.base.log_loss(self.theta(theta))
        return value, jacobian @ self.matrix

    def straighten(self, theta: np.ndarray) -> np.ndarray:
        return theta.copy()

    def bend(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return z, np.eye(len(z))

    def encode(self, params: Mapping[str, float]) -> np.ndarray:
        return self.inner(self.base.encode(params))

    def decode(self, theta: np.ndarray) -> dict[str, float]:
        return self.base.decode(self.theta(theta))
