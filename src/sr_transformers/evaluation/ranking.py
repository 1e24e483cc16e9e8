"""The rank of each target among all items: the one place where scores become ranks."""

from dataclasses import dataclass

import numpy as np
import torch

from sr_transformers.data.vocabulary import NUM_SPECIAL, UNK_ID

_SCORES = 1 << 24  # scores held at a time, in numbers: 64 MiB of float32


def rows_of_scores(vocab_size: int) -> int:
    """How many users to score at a time so that memory stays bounded whatever the catalogue."""
    return min(max(_SCORES // vocab_size, 1), 512)


@dataclass
class Ranking:
    """Result for B users.

    Attributes:
        ranks: `(B,)` int64 in [1, V]; 1 is best.
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
    vocabulary (`UNK_ID`) gets the last rank, V.

    Args:
        scores: `(B, V)` floating point; overwritten.
        targets: `(B,)` int64.
        seen: (row, token) int64 pairs to take out of the ranking, or None.
        top_k: how many tokens to list in `top`; clipped to the number of items.

    Raises:
        ValueError: if a score is NaN (NaN compares false with everything, so a diverged model would be ranked first).
    """
    vocab_size = scores.shape[1]
    # max propagates NaN and reads the scores once, without a mask of their size.
    if bool(torch.isnan(scores.amax(1)).any()):
        raise ValueError("a score is NaN: the model has diverged, there is no ranking.")
    target_scores = scores.gather(1, targets[:, None])
    if seen is not None:
        scores[seen] = -torch.inf
        scores.scatter_(1, targets[:, None], target_scores)
    scores[:, :NUM_SPECIAL] = -torch.inf
    ranks = (scores >= target_scores).sum(1)
    ranks = torch.where(targets == UNK_ID, vocab_size, ranks)
    best = scores.topk(min(top_k, vocab_size - NUM_SPECIAL), dim=1)
    top = torch.where(best.values == -torch.inf, -1, best.indices)
    return Ranking(ranks.cpu().numpy().astype(np.int64), top.cpu().numpy())
