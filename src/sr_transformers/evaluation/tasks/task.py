"""What a task is made of: options, passes over users, groups of users, and the plan that ties them together."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sr_transformers.data.logs.timestamps import UNITS
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.metrics import hit_rate, ndcg, reciprocal_rank


@dataclass(frozen=True)
class TaskOptions:
    """Everything that moves a number; part of every report.

    Attributes:
        ks: cut-offs of HR and NDCG.
        list_length: k of the recommended lists whose coverage, Gini index and popularity are reported.
        filter_seen: take the items of a user's own history out of the ranking; None: see `evaluator.seen_choice`. The
            paper keeps them.
        tail_groups: groups of equal training mass of the long-tail task.
        cold_item_edges: upper ends of the buckets of training counts of the cold-items task, ascending.
        cold_user_lengths: history lengths of the cold-start task, descending; users have more interactions than the
            first.
        domain_history: most recent items that the multi-domain task shows and looks for the target's domain in; the
            paper's models read 50.
        perturbation_rate: probability with which the robustness task hits an item of a history.
        horizon: items to foresee in the trajectory task.
        month: length of a month of the time-drift task in the log's unit of time; None: taken from the size of the
            timestamps.
        seed: of perturbations and of the bootstrap.
        draws: of the bootstrap.
        confidence: of the intervals, a fraction.

    Raises:
        ValueError: for a value outside its range.
    """

    ks: tuple[int, ...] = (5, 10, 20)
    list_length: int = 10
    filter_seen: bool | None = None
    tail_groups: int = 4
    cold_item_edges: tuple[int, ...] = (5, 10, 20, 50, 100)
    cold_user_lengths: tuple[int, ...] = (50, 40, 30, 20, 10, 5)
    domain_history: int = 50
    perturbation_rate: float = 0.3
    horizon: int = 10
    month: int | None = None
    seed: int = 0
    draws: int = 1000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        whole = {"tail_groups": self.tail_groups, "list_length": self.list_length, "horizon": self.horizon}
        whole |= {
            "domain_history": self.domain_history,
            "draws": self.draws,
            "month": 1 if self.month is None else self.month,
        }
        for name, value in whole.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be at least 0.")
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"ks are {list(self.ks)}; give cut-offs of at least 1.")
        if not 0 <= self.perturbation_rate <= 1:
            raise ValueError(f"perturbation_rate is {self.perturbation_rate}; it is a probability.")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; it is a fraction, 0.95 for example.")
        if not _strictly(self.cold_item_edges) or min(self.cold_item_edges) < 1:
            raise ValueError(f"cold_item_edges are {list(self.cold_item_edges)}; give ascending counts of at least 1.")
        if not _strictly(self.cold_user_lengths[::-1]) or min(self.cold_user_lengths) < 1:
            raise ValueError(
                f"cold_user_lengths are {list(self.cold_user_lengths)}; give descending lengths of at least 1."
            )

    @property
    def headlines(self) -> tuple[str, str]:
        """Metrics that models are compared by: HR and NDCG at 10, or at the first cut-off if 10 is none of them."""
        k = 10 if 10 in self.ks else self.ks[0]
        return f"hr@{k}", f"ndcg@{k}"


def _strictly(values: Sequence[int]) -> bool:
    return len(values) > 0 and all(first < second for first, second in itertools.pairwise(values))


@dataclass
class Outcome:
    """What a scorer did for M users under one condition, in a few numbers per user: these are held for all users.

    Attributes:
        users: `(M,)` int64 rows of the prepared log, each once.
        top: `(M, k)` int32 recommended tokens, best first; -1 is none.
        values: `(M,)` float32 by metric; NaN where a user has no value.
        ranks: `(M,)` int32 of the targets, where there is one target per user; `metrics.MISSED` for one without rank.
    """

    users: np.ndarray
    top: np.ndarray
    values: dict[str, np.ndarray]
    ranks: np.ndarray | None = None

    def metrics(self, ks: Sequence[int]) -> dict[str, np.ndarray]:
        """All metrics, `(M,)` float64 each: those that follow from the ranks, then the values."""
        found = {}
        if self.ranks is not None:
            for k in ks:
                found[f"hr@{k}"], found[f"ndcg@{k}"] = hit_rate(self.ranks, k), ndcg(self.ranks, k)
            found["mrr"] = reciprocal_rank(self.ranks)
        return found | {name: value.astype(np.float64) for name, value in self.values.items()}

    def of(self, rows: np.ndarray | None) -> "Outcome":
        """Some of the users, by index; None: all."""
        if rows is None:
            return self
        values = {name: value[rows] for name, value in self.values.items()}
        return Outcome(self.users[rows], self.top[rows], values, None if self.ranks is None else self.ranks[rows])


@dataclass(frozen=True)
class Pass:
    """One run over users that a scorer has to make.

    Attributes:
        key: passes of the same key are the same run.
        run: from a scorer to its outcomes by condition.
    """

    key: str
    run: Callable[[Scorer], dict[str, Outcome]]


@dataclass(frozen=True)
class Group:
    """Some users under one condition: a row of a table, a point of a figure.

    Attributes:
        name: unique in its task.
        pass_key, condition: where the outcome is found.
        rows: indices into the outcome; None: all of it.
        base: name of the group that this one is compared with; None for a base itself.
        facts: what is known of the group before anything is scored.
    """

    name: str
    pass_key: str
    condition: str
    rows: np.ndarray | None = None
    base: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A task on a prepared log.

    Attributes:
        protocol: what is done, in one sentence.
        passes: runs that it needs.
        groups: in the order of tables and figures.
        headlines: metrics that are compared between models; those that a group's outcome has.
        facts: counts of what was left out, and the like.
    """

    protocol: str
    passes: tuple[Pass, ...]
    groups: tuple[Group, ...]
    headlines: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


_MONTH = math.floor(365.25 / 12 * 86400)  # seconds


@dataclass(frozen=True)
class NotRun:
    """Why a task does not apply to a log."""

    reason: str


def month_length(timestamps: Sequence[int], month: int | None, unit: str | None = None) -> int | None:
    """Length of a mean month (a twelfth of 365.25 days) in the unit of the timestamps, or `month` if it is given.

    Where the unit is not known it follows from the numbers: seconds, milliseconds, microseconds and nanoseconds since
    1970 lie three orders of magnitude apart, and between the years 1973 and 5138 each has its own number of digits.
    None if the numbers are none of these.

    >>> month_length([956703932, 1046454590], None)
    2629800
    >>> month_length([0, 99], None) is None
    True
    """
    if month is not None:
        return month
    if unit is not None:
        return _MONTH * UNITS[unit]
    for power in (0, 3, 6, 9):
        if all(1e8 <= moment / 10**power < 1e11 for moment in timestamps):
            return _MONTH * 10**power
    return None
