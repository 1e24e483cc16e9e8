"""Which interactions are for training, which are validation and test targets. Each split says what it leaks.

A split is, for every user, how many of the first interactions may be trained on, and lists of held-out targets as
(user, position in the history). The history that predicts a target is everything before that position.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from sr_transformers.data.cuts import MEASURES, blocks, count_before, moments

LEAVE_ONE_OUT = "leave_one_out"
TEMPORAL = "temporal"
PAPER = "paper"
LAST_BASKET = "last_basket"
SPLITS = (LEAVE_ONE_OUT, TEMPORAL, PAPER, LAST_BASKET)

TRAJECTORY_LENGTH = 10
PAPER_DEFAULTS = {"min_trajectory_length": 15, "unseen_share": 0.2, "seed": 0}

LEAKS = {
    LEAVE_ONE_OUT: (
        "leave-one-out: users' last interactions lie at different times, so training data of some users is younger "
        "than test targets of others; popularity and trends leak from the future."
    ),
    TEMPORAL: (
        "global time split: nothing after the first validation moment is trained on, counted or in the vocabulary; "
        "validation targets between the two moments are part of the test histories, as they would be in service. What "
        "filters left out before the split (a k-core counts rows of all times) was chosen with the future in view."
    ),
    PAPER: (
        "the paper's split: a share of the users never enters training, vocabulary or counts (the cold-start pool), "
        "and the last 10 interactions of long histories are held out as trajectory; but users' histories end at "
        "different times, so as with leave-one-out popularity and trends leak from the future, also into the pool."
    ),
    LAST_BASKET: (
        "last basket: nothing of a user's last two moments is trained on; but users' last moments differ, so as with "
        "leave-one-out popularity and trends leak from the future."
    ),
}


@dataclass
class Split:
    """Result of a split over U users.

    Attributes:
        train_length: `(U,)` int64, the first so many interactions of each user are for training.
        validation, test: `(M, 2)` int64 rows (user, position of the target in the history).
        notes: counts of users that could not be given a target, by reason.
    """

    train_length: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """Which split, and its parameters; None stands for the default.

    Attributes:
        split: one of `SPLITS`.
        validation_from, test_from, validation_share, test_share, validation_days, test_days: where the two periods of
            `temporal` begin, each given one way at most, see `cuts.moments`.
        min_trajectory_length, unseen_share, seed: see `paper`; 15, 0.2 and 0 by default.

    Raises:
        ValueError: for an unknown split, or parameters of another one.
    """

    split: str = LEAVE_ONE_OUT
    validation_from: int | str | None = None
    test_from: int | str | None = None
    validation_share: float | None = None
    test_share: float | None = None
    validation_days: int | None = None
    test_days: int | None = None
    min_trajectory_length: int | None = None
    unseen_share: float | None = None
    seed: int | None = None

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r} is not known; choose from {', '.join(SPLITS)}.")
        given = [name for name in MEASURES if getattr(self, name) is not None]
        if self.split != TEMPORAL and given:
            raise ValueError(f"not for split {self.split!r}, but for 'temporal': {', '.join(given)}.")
        for period in ("validation", "test"):
            ways = [name for name in given if name.startswith(period)]
            if len(ways) > 1:
                raise ValueError(f"{' and '.join(ways)} both say where {period} begins; give one of them.")
        of_paper = {self.min_trajectory_length, self.unseen_share, self.seed}
        if self.split != PAPER and of_paper != {None}:
            raise ValueError("min_trajectory_length, unseen_share and split_seed belong to split='paper'.")

    def parameters(self) -> dict[str, Any]:
        """What the split is told, the paper's defaults filled in."""
        if self.split == TEMPORAL:
            given = {name: getattr(self, name) for name in MEASURES}
            return {name: value for name, value in given.items() if value is not None}
        if self.split == PAPER:
            given = {name: getattr(self, name) for name in PAPER_DEFAULTS}
            return {name: PAPER_DEFAULTS[name] if value is None else value for name, value in given.items()}
        return {}

    def described(self) -> dict[str, Any]:
        """For the manifest: which split, its parameters, what it leaks."""
        parameters = self.parameters()
        told = {"split_parameters": parameters} if parameters else {}
        return {"split": self.split, **told, "leaks": LEAKS[self.split]}

    def apply(
        self,
        lengths: np.ndarray,
        timestamps: np.ndarray,
        user_ids: pa.Array,
        unit: str | None,
        millionths: bool = False,
    ) -> "Split":
        """Splits U histories that lie one after the other.

        Args:
            lengths: `(U,)` int64.
            timestamps: `(sum of lengths,)` int64, rising within a user; may be a mapped file.
            user_ids: `(U,)` raw ids.
            unit, millionths: of the timestamps, see `parse_moment`.
        """
        parameters = self.parameters()
        if self.split == TEMPORAL:
            return temporal(lengths, timestamps, *moments(timestamps, parameters, unit, millionths))
        if self.split == PAPER:
            return paper(lengths, user_ids.to_pylist(), **parameters)
        if self.split == LAST_BASKET:
            return last_basket(lengths, timestamps)
        return leave_one_out(lengths)


def leave_one_out(lengths: np.ndarray) -> Split:
    """Last interaction = test, the one before = validation, the rest = training.

    Users of fewer than 3 interactions are training data only.

    >>> leave_one_out(np.array([4, 2])).train_length.tolist()
    [2, 2]
    """
    lengths = lengths.astype(np.int64)
    held_out = np.nonzero(lengths >= 3)[0]
    train_length = lengths.copy()
    train_length[held_out] -= 2
    return Split(
        train_length,
        np.stack([held_out, lengths[held_out] - 2], axis=1),
        np.stack([held_out, lengths[held_out] - 1], axis=1),
        {"users_too_short_to_hold_out": int((lengths < 3).sum())},
    )


def last_basket(lengths: np.ndarray, timestamps: np.ndarray) -> Split:
    """All interactions of a user's last moment = test, those of the moment before = validation, the rest = training.

    The target of a part is its first interaction, which nothing of its basket helps to predict; the whole baskets are
    for `evaluation.baskets`. Users of fewer than 3 moments are training data only.

    Args:
        lengths: `(U,)` int.
        timestamps: `(sum of lengths,)` int64, by user and time.

    >>> split = last_basket(np.array([5, 2]), np.array([1, 4, 4, 9, 9, 1, 2]))
    >>> split.train_length.tolist(), split.validation.tolist(), split.test.tolist()
    ([1, 2], [[0, 1]], [[0, 3]])
    """
    lengths = lengths.astype(np.int64)
    last, before = np.zeros_like(lengths), np.zeros_like(lengths)  # first positions of the last two baskets
    moments = np.zeros_like(lengths)
    for first_user, after, start, stop in blocks(lengths):
        user = np.repeat(np.arange(first_user, after), lengths[first_user:after])
        times = np.asarray(timestamps[start:stop])
        begins = np.flatnonzero(np.diff(times, prepend=0) | np.diff(user, prepend=-1))
        user = user[begins]
        end = np.flatnonzero(np.diff(user, append=-1))  # each user's last basket, among those of the block
        moments[first_user:after] = np.bincount(user - first_user, minlength=after - first_user)
        offset = np.cumsum(lengths[first_user:after]) - lengths[first_user:after]
        last[user[end]] = begins[end] - offset[user[end] - first_user]
        several = end[moments[user[end]] > 1]
        before[user[several]] = begins[several - 1] - offset[user[several] - first_user]
    held_out = np.flatnonzero(moments >= 3)
    train_length = lengths.copy()
    train_length[held_out] = before[held_out]
    return Split(
        train_length,
        np.stack([held_out, before[held_out]], axis=1),
        np.stack([held_out, last[held_out]], axis=1),
        {"users_too_short_to_hold_out": int((moments < 3).sum())},
    )


def temporal(lengths: np.ndarray, timestamps: np.ndarray, validation_from: int, test_from: int) -> Split:
    """Everything from a moment on is test, whoever the user; the stretch before it is validation.

    The target of a user is the first interaction in the period that has at least one interaction before it; one target
    per user and period ("first" among the ways to choose targets in "Time to Split", RecSys 2025, arXiv 2507.16289).
    All that a user does in a period is the other usual question, asked by `evaluation.periods`.

    Args:
        lengths: `(U,)` int.
        timestamps: `(sum of lengths,)` int64, by user and time.
        validation_from, test_from: first moments of the two periods, see `cuts.moments`.

    Raises:
        ValueError: if validation does not begin before test, or no training interaction lies before it.
    """
    if validation_from >= test_from:
        raise ValueError(f"validation begins at {validation_from}, not before test at {test_from}; give both moments.")
    before_validation = count_before(lengths, timestamps, validation_from)
    before_test = count_before(lengths, timestamps, test_from)
    if before_validation.sum() == 0:
        raise ValueError(f"no interaction lies before {validation_from}, the first moment of validation.")

    def first_targets(position: np.ndarray, period_end: np.ndarray) -> tuple[np.ndarray, int]:
        position = np.maximum(position, 1)  # a user's very first interaction has no history to be predicted from
        has_target = position < period_end
        active = np.nonzero(has_target)[0]
        return np.stack([active, position[active]], axis=1), int(((period_end > 0) & ~has_target).sum())

    validation, _ = first_targets(before_validation, before_test)
    test, without = first_targets(before_test, lengths.astype(np.int64))
    return Split(
        before_validation,
        validation,
        test,
        {
            "validation_from": validation_from,
            "test_from": test_from,
            "users_without_test_target": without,
            "users_without_training_interactions": int((before_validation == 0).sum()),
        },
    )


def paper(
    lengths: np.ndarray,
    user_ids: Sequence[str] | Sequence[int],
    min_trajectory_length: int,
    unseen_share: float,
    seed: int,
) -> Split:
    """The split of the paper's released code: unseen users, and for the others trajectory, test and validation.

    Unseen users have no training interactions and no targets. Of the other users, those of more than
    `min_trajectory_length` interactions hold out, from the end: 10 of the trajectory, 1 test, 1 validation. The rest
    is split leave-one-out. So the trajectory of a user is what follows the test target.

    Differs: who is unseen is drawn per user, from a hash of id and seed, so that a user stays in or out as the log
    grows; the pool has `unseen_share` of the users in expectation. The paper drew a fixed number.

    Args:
        lengths: `(U,)` int.
        user_ids: `(U,)`, raw ids.
        min_trajectory_length: the longest history that is split leave-one-out; 15 for MovieLens and 20 for Amazon in
            the paper, and at least 12.
        unseen_share: fraction of users, in (0, 1).
        seed: draws them.

    Raises:
        ValueError: for a `min_trajectory_length` that leaves nothing to train on, a share outside (0, 1), or a log of
            so few users that nobody is unseen.
    """
    if min_trajectory_length < TRAJECTORY_LENGTH + 2:
        raise ValueError(
            f"min_trajectory_length {min_trajectory_length} must be at least {TRAJECTORY_LENGTH + 2}: trajectory, test "
            "and validation take that many interactions."
        )
    if not 0 < unseen_share < 1:
        raise ValueError(f"unseen_share {unseen_share} must lie between 0 and 1.")
    unseen = np.fromiter((_draw(user, seed) < unseen_share for user in user_ids), bool, len(lengths))
    if not unseen.any():
        raise ValueError(
            f"none of the {len(lengths)} users is unseen at unseen_share {unseen_share}, seed {seed}: the paper's "
            "split needs more users, a larger share or another seed."
        )
    lengths = lengths.astype(np.int64)
    long = lengths > min_trajectory_length
    end = np.where(long, lengths - TRAJECTORY_LENGTH, lengths)
    short = end < 3
    held_out = np.nonzero(~unseen & ~short)[0]
    train_length = np.where(unseen, 0, np.where(short, end, end - 2))
    return Split(
        train_length,
        np.stack([held_out, end[held_out] - 2], axis=1),
        np.stack([held_out, end[held_out] - 1], axis=1),
        {
            "users_unseen": int(unseen.sum()),
            "users_with_trajectory": int((long & ~unseen).sum()),
            "users_too_short_to_hold_out": int((short & ~unseen).sum()),
        },
    )


def _draw(user: str | int, seed: int) -> float:
    """A number in [0, 1) that depends on id and seed alone."""
    digest = hashlib.blake2b(f"{seed} {user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
