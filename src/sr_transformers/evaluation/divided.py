"""Ranks and lists where each process has the scores of some of the items (`lsrm.divided_lsrm`): what goes between
processes are the targets' scores, numbers of items above them, and the best of each.

The results are those of `evaluation.ranking`, in all processes: ties count against the model in ranks, and of equal
scores the smaller token comes first in lists.
"""

import numpy as np
import torch
import torch.distributed as dist

from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.ranking import Ranking, as_ranking, count_above, log_partition
from sr_transformers.lsrm.divided_lsrm import Division, log_sum
from sr_transformers.lsrm.scoring_lsrm import top_k_items


def held_tokens(tokens: np.ndarray, part: Division | None) -> np.ndarray:
    """Which tokens have their scores here, as places in a row of scores; all of them where nothing is divided."""
    if part is None:
        return tokens
    return tokens[(tokens >= part.first) & (tokens < part.last)] - part.first


def log_partition_of(scores: torch.Tensor, part: Division | None) -> torch.Tensor:
    """`ranking.log_partition` over the scores of all processes."""
    if part is None:
        return log_partition(scores)
    here = log_partition(scores) if scores.shape[1] else scores.new_full((len(scores),), -torch.inf)
    return log_sum(here, part)


def scores_at(scores: torch.Tensor, tokens: torch.Tensor, part: Division | None) -> torch.Tensor:
    """`(B, n)` scores of `(B, n)` tokens, wherever they are."""
    if part is None:
        return scores.gather(1, tokens)
    found = scores.new_full(tokens.shape, -torch.inf)
    if scores.shape[1]:
        places = (tokens - part.first).clamp(0, scores.shape[1] - 1)
        here = (tokens >= part.first) & (tokens < part.first + scores.shape[1])
        found = torch.where(here, scores.gather(1, places), found)
    dist.all_reduce(found, dist.ReduceOp.MAX, part.group)
    return found


def best_of(scores: torch.Tensor, k: int, part: Division | None, less: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`scoring_lsrm.top_k_items` over the scores of all processes; fewer than k if they have fewer, `less` left out."""
    if part is None:
        return top_k_items(scores, min(k, scores.shape[1] - less))
    columns = torch.tensor(scores.shape[1], device=scores.device)
    dist.all_reduce(columns, group=part.group)
    k = min(k, int(columns) - less)
    values = scores.new_full((len(scores), k), -torch.inf)
    tokens = torch.full((len(scores), k), -1, device=scores.device)
    here = min(k, scores.shape[1])
    if here:
        values[:, :here], tokens[:, :here] = top_k_items(scores, here)
        tokens[:, :here] += part.first
    of_all = []
    for mine in (values, tokens):
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size(part.group))]
        dist.all_gather(parts, mine, group=part.group)
        of_all.append(torch.cat(parts, 1))
    # Tokens rise from process to process, so that a stable order leaves the smaller of equal ones first.
    values, order = of_all[0].sort(dim=1, descending=True, stable=True)
    return values[:, :k], of_all[1].gather(1, order)[:, :k]


def rank_targets_of(
    scores: torch.Tensor,
    targets: torch.Tensor,
    seen: tuple[torch.Tensor, torch.Tensor] | None,
    top_k: int,
    part: Division,
) -> Ranking:
    """`ranking.rank_targets` of scores of which each process has its columns.

    Args:
        scores: `(B, columns here)`; overwritten.
        targets: `(B,)` int64 tokens; seen: pairs (row, token) or None.
    """
    columns = scores.shape[1]
    target_scores = scores_at(scores, targets[:, None], part)
    if seen is not None:
        here = (seen[1] >= part.first) & (seen[1] < part.first + columns)
        scores[seen[0][here], seen[1][here] - part.first] = -torch.inf
        mine = ((targets >= part.first) & (targets < part.first + columns)).nonzero()[:, 0]
        scores[mine, targets[mine] - part.first] = target_scores[mine, 0]
    scores[:, : max(NUM_SPECIAL - part.first, 0)] = -torch.inf
    above = count_above(scores, target_scores) if columns else torch.zeros_like(targets)
    dist.all_reduce(above, group=part.group)
    values, tokens = best_of(scores, top_k, part, NUM_SPECIAL)
    return as_ranking(above, targets, target_scores, values, tokens)


__all__ = ["best_of", "held_tokens", "log_partition_of", "rank_targets_of", "scores_at"]
