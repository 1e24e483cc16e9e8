"""The rank of each target among all items: the one place where scores become ranks.

Scores of a batch are many numbers (users x items). What is computed from all of them passes through a scratch area a
few rows at a time: fresh memory of the scores' size costs more than the arithmetic.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sr_transformers.data.vocabulary import NUM_SPECIAL, UNK_ID
from sr_transformers.evaluation.metrics import MISSED
from sr_transformers.lsrm.scoring_lsrm import top_k_items

_SCORES = 1 << 25  # scores held at a time, in numbers: 128 MiB of float32
_SCRATCH = 1 << 20  # numbers in the scratch area
_SOME = 1 << 12  # items of which the best is about as good as that of all
_FEW = 1 << 16  # numbers for which all of this takes longer than to do it plainly


def rows_of_scores(vocab_size: int) -> int:
    """How many users to score at a time so that memory stays bounded whatever the catalogue."""
    return min(max(_SCORES // vocab_size, 1), 512)


def pairs_of(histories: Sequence[np.ndarray], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The (row, token) pairs, int64, of the tokens of every history: an index into its row of scores."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    tokens = np.concatenate(histories).astype(np.int64) if len(rows) else np.zeros(0, np.int64)
    return torch.from_numpy(rows).to(device), torch.from_numpy(tokens).to(device)


@dataclass
class Ranking:
    """Result for B users.

    Attributes:
        ranks: `(B,)` int64 in [1, V - 2], 1 is best; `MISSED` for a target that the scorer cannot name: one outside
            the vocabulary, or one with the score minus infinity.
        top: `(B, k)` int64 tokens, best first; -1 where no item is left to recommend.
    """

    ranks: np.ndarray
    top: np.ndarray


def rank_targets(
    scores: torch.Tensor, targets: torch.Tensor, seen: tuple[torch.Tensor, torch.Tensor] | None, top_k: int
) -> Ranking:
    """Ranks targets by full ranking.

    Ties count against the model: an item scored equal to the target stands above it, so a constant scorer gets the
    last rank. Special tokens take no part. Seen items are taken out, the target never is. A target outside the
    vocabulary (`UNK_ID`), or one that the scorer never names (minus infinity), has no rank: it is `MISSED`.

    Args:
        scores: `(B, V)` floating point, of a model that has not diverged (`scoring_lsrm.refuse_diverged`); overwritten.
        targets: `(B,)` int64.
        seen: (row, token) int64 pairs to take out of the ranking, or None.
        top_k: how many tokens to list in `top`; clipped to the number of items.
    """
    vocab_size = scores.shape[1]
    target_scores = scores.gather(1, targets[:, None])
    if seen is not None:
        scores[seen] = -torch.inf
        scores.scatter_(1, targets[:, None], target_scores)
    scores[:, :NUM_SPECIAL] = -torch.inf
    above = count_above(scores, target_scores)
    values, tokens = top_k_items(scores, min(top_k, vocab_size - NUM_SPECIAL))
    return as_ranking(above, targets, target_scores, values, tokens)


def count_above(scores: torch.Tensor, target_scores: torch.Tensor) -> torch.Tensor:
    """`(B,)` int64, how many scores of each row of `(B, V)` are at least `(B, 1)` that of the target."""
    # As floats, which add up several times faster than booleans; exact far beyond any catalogue.
    exact = torch.float32 if scores.shape[1] < 1 << 24 else torch.float64
    return torch.cat(
        [torch.ge(part, target_scores[rows], out=scratch).sum(1, dtype=exact) for rows, part, scratch in _parts(scores)]
    ).long()


def as_ranking(
    above: torch.Tensor, targets: torch.Tensor, target_scores: torch.Tensor, values: torch.Tensor, tokens: torch.Tensor
) -> Ranking:
    """What `rank_targets` returns, from counts (`count_above`), and `(B, k)` best scores and their tokens."""
    ranks = torch.where((targets == UNK_ID) | (target_scores[:, 0] == -torch.inf), MISSED, above)
    top = torch.where(values == -torch.inf, -1, tokens)
    return Ranking(ranks.cpu().numpy().astype(np.int64), top.cpu().numpy())


def _parts(scores: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """A few rows at a time: where they are, the rows, and scratch of their shape that the next ones use again."""
    height = max(_SCRATCH // scores.shape[1], 1)
    scratch = torch.empty_like(scores[:height])
    for start in range(0, len(scores), height):
        part = scores[start : start + height]
        yield slice(start, start + height), part, scratch[: len(part)]


def log_partition(scores: torch.Tensor) -> torch.Tensor:
    """`(B,)` logarithm of the sum of exponentials of every row of `(B, V)` scores, which stay as they are."""
    if scores.numel() < _FEW:
        return scores.logsumexp(1)
    # Powers of 2, which take a third of the time of powers of e, relative to the best of some items instead of all.
    binary = math.log2(math.e)
    shift = scores[:, :_SOME].amax(1, keepdim=True) * -binary
    sums = torch.cat(
        [
            torch.add(shift[rows], part, alpha=binary, out=scratch).exp2_().sum(1)
            for rows, part, scratch in _parts(scores)
        ]
    )
    # On the CPU: not every device has float64.
    found = ((sums.cpu().double().log2() - shift[:, 0].cpu().double()) / binary).to(scores)
    beyond = ~torch.isfinite(found)  # NaN, or others so much better that float32 does not hold the sum
    if bool(beyond.any()):
        found[beyond] = scores[beyond].logsumexp(1)
    return found
