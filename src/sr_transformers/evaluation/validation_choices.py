"""What baselines learn from the validation targets of a log: a window, a half-life, the weights of a mixture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import UNK_ID
from sr_transformers.evaluation.experts import OwnItems
from sr_transformers.evaluation.log_counts import RecentCounts
from sr_transformers.evaluation.ranking import rows_of_scores

AT_MOST = 20_000  # targets; of more, every so many-th
_ROUNDS = 2_000
_STILL = 1e-9  # nats per target: gains of a round that are none


@dataclass
class Known:
    """Validation targets with what is known before them.

    Attributes:
        histories: known items of each, oldest first.
        times: their moments; with query_time each has one more, the target's own.
        targets: `(B,)` int64 tokens, none of them outside the vocabulary.
    """

    histories: list[np.ndarray]
    times: list[np.ndarray]
    targets: np.ndarray


def validation_targets(data: PreparedData, query_time: bool = False) -> list[Known]:
    """Validation targets, as many at a time as may be scored together; query_time: with their moments."""
    rows = data.targets("validation")
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), AT_MOST)).astype(np.int64)]
    targets = np.array([data.items(user, position + 1, position)[0] for user, position in rows.tolist()], np.int64)
    rows, targets = rows[targets != UNK_ID], targets[targets != UNK_ID]
    step, found = rows_of_scores(data.vocab_size), []
    for first in range(0, len(rows), step):
        part = Known([], [], targets[first : first + step])
        for user, position in rows[first : first + step].tolist():
            known = data.items(user, position) != UNK_ID
            part.histories.append(data.items(user, position)[known])
            kept = np.concatenate([known, np.ones(int(query_time), bool)])
            part.times.append(data.timestamps(user, position + query_time)[kept])
        found.append(part)
    return found


def best_window(recent: RecentCounts, popularity: np.ndarray, known: Sequence[Known]) -> int:
    """The window in stretches, a power of 2, whose counts explain targets best in equal parts with popularity.

    Args:
        popularity: `(V,)` probabilities.
    """
    windows = [1]
    while windows[-1] * 2 <= recent.stretches:
        windows.append(windows[-1] * 2)
    if not known:  # nothing to choose by: all that there is
        return windows[-1]
    gains = np.zeros(len(windows))
    for part in known:
        ended = recent.ended(OwnItems(part.histories, part.times, len(popularity)).now)
        for place, window in enumerate(windows):
            share = recent.at(ended, window, part.targets) / np.maximum(recent.totals(ended, window), 1)
            gains[place] += np.log(0.5 * share + 0.5 * popularity[part.targets]).sum()
    return windows[int(np.argmax(gains))]


def best_half_life(
    half_lives: Sequence[float], outside_basket: bool, popularity: np.ndarray, known: Sequence[Known]
) -> float:
    """The half-life whose frequencies explain targets best in equal parts with popularity; see `best_window`."""
    if not known:
        return half_lives[-1]
    gains = np.zeros(len(half_lives))
    for part in known:
        masses = OwnItems(part.histories, part.times, len(popularity)).frequencies(half_lives, outside_basket)
        share = masses.at(part.targets) / np.maximum(masses.totals, np.finfo(np.float64).tiny)
        gains += np.log(0.5 * share + 0.5 * popularity[part.targets, None]).sum(0)
    return half_lives[int(np.argmax(gains))]


def maximise_likelihood(probabilities: np.ndarray, speaks: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Weights of a mixture whose silent components are left out, by EM (its M step a minorisation, which without
    silent components is the usual one).

    Args:
        probabilities: `(M, K)` of M targets by K experts, 0 where an expert is silent.
        speaks: `(M, K)` bool; in every row some expert gives the target a probability.

    Returns:
        `(K,)` weights that sum to 1, and the mean loss in nats; equal weights and None without targets. To the targets
        one is added that all experts explain alike, so that no weight is 0 and a target that only one of them knows has
        a finite loss.
    """
    count, size = probabilities.shape
    weights, loss = np.full(size, 1 / size), np.inf
    for _ in range(_ROUNDS if count else 0):
        spoken, found = speaks @ weights, probabilities @ weights
        before, loss = loss, -float(np.log(found / spoken).mean())
        if before - loss < _STILL:
            break
        weights = (weights * (probabilities.T @ (1 / found)) + 1 / size) / (speaks.T @ (1 / spoken) + 1)
        weights /= weights.sum()
    return weights, loss if count else None
