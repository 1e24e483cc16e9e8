"""Which runs a budget buys: those that tell most about the law per second, in the order of their worth.

The worth of a run is what it adds to the information about the parameters of the joint law (D-optimal design): with
Jacobian rows j of log L at a guess of the law and equal relative noise, a run adds log(1 + j' M^-1 j) to log det M, M
the information of the runs already chosen. A variant (another dropout, another optimizer) is worth what another plain
run at its place would be, and less once the variant was run near there; so is any other run that is no point of the
law. Runs marked `must` come first.

Source: D-optimal design, for example Atkinson, Donev and Tobias 2007; the guess is the paper's alpha (.121).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sr_transformers.scaling.laws.forms import LAWS, D, N
from sr_transformers.scaling.studies.cost import Cost
from sr_transformers.scaling.studies.study import PlannedRun

GUESS = {"E": 4.5, "A": 4.0, "B": 150.0, "alpha": 0.121, "beta": 0.4}
_NOISE = 0.003  # relative, of one run's test loss between seeds
_PLAIN = ""  # key of the information of all runs that are no variant
_PRIOR = 1.0  # weak knowledge, so that the first run has a finite worth


def choose(
    runs: Sequence[PlannedRun],
    costs: Mapping[str, Cost],
    budget_seconds: float | None,
    finished: Sequence[PlannedRun] = (),
) -> list[PlannedRun]:
    """Runs to do, in order.

    Args:
        costs: by name of the run.
        budget_seconds: None: all of them, still in the order of their worth per second.
        finished: runs whose result is there already; they cost nothing and add information.

    Raises:
        ValueError: if the budget does not pay for the runs that must be kept.
    """
    information: dict[str, np.ndarray] = {}
    rows = _rows([*runs, *finished], costs)
    for run in finished:
        _add(information, run, rows[run.name])
    left = {run.name: run for run in runs if run.name not in {one.name for one in finished}}
    remaining = np.inf if budget_seconds is None else budget_seconds
    must = sum(costs[run.name].seconds for run in left.values() if run.must)
    if must > remaining:
        raise ValueError(
            f"the runs marked `must` take about {must / 60:.1f} minutes, the budget is {remaining / 60:.1f}; raise "
            "--budget or mark fewer."
        )
    chosen: list[PlannedRun] = []
    for only_must in (True, False):
        while True:
            fitting = [
                run for run in left.values() if (run.must or not only_must) and costs[run.name].seconds <= remaining
            ]
            if not fitting:
                break
            best = max(fitting, key=lambda run: _worth(information, run, rows[run.name]) / costs[run.name].seconds)
            _add(information, best, rows[best.name])
            remaining -= costs[best.name].seconds
            chosen.append(left.pop(best.name))
    return chosen


def _rows(runs: Sequence[PlannedRun], costs: Mapping[str, Cost]) -> dict[str, np.ndarray]:
    law = LAWS["joint"]
    columns = {
        N: np.array([run.size.num_non_embedding_parameters for run in runs], dtype=np.float64),
        D: np.array([max(costs[run.name].targets / run.epochs, 1) for run in runs], dtype=np.float64),
    }
    bound = law.bind(columns)
    jacobian = bound.log_loss(bound.encode(GUESS))[1]
    return {run.name: row / _NOISE for run, row in zip(runs, jacobian, strict=True)}


def _beside(run: PlannedRun) -> bool:
    """Whether a run is no point of the law."""
    return run.is_variant or not run.in_law


def _matrix(information: dict[str, np.ndarray], run: PlannedRun, size: int) -> np.ndarray:
    """What is known about the law where this run is made: the plain runs, and for a variant its own runs too."""
    nothing = np.zeros((size, size))
    own = information.get(run.block, nothing) if _beside(run) else nothing
    return np.eye(size) * _PRIOR + information.get(_PLAIN, nothing) + own


def _worth(information: dict[str, np.ndarray], run: PlannedRun, row: np.ndarray) -> float:
    return float(np.log1p(row @ np.linalg.solve(_matrix(information, run, len(row)), row)))


def _add(information: dict[str, np.ndarray], run: PlannedRun, row: np.ndarray) -> None:
    key = run.block if _beside(run) else _PLAIN
    information[key] = information.get(key, np.zeros((len(row), len(row)))) + np.outer(row, row)
