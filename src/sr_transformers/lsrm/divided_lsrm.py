# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""An item table divided by rows over the processes of a group: look-ups, scores and losses, each process with its rows.

    loss = sum_i [ m_i + log sum_p sum_{v in p} exp(h_i . w_v - m_i) - h_i . w_{t_i} ]
     m_i = max_p max_{v in p} h_i . w_v

Every process of the group has the same batch and the same states, and some of the items. Between them go one maximum,
one sum and one target's score for each row, and the gradient of the states; nothing of the table's size is put
together. Where an item's row lies the table is read as it is elsewhere, so losses and gradients are those of one
process.

A table counts as divided if its weight is a DTensor cut by rows over a mesh of one dimension called "tp", as
transformers' tensor parallelism leaves it. Other DTensors (FSDP) are not: there processes have batches of their own.

What it refuses: processes of one group with different batches, negatives or dropout, and "mix" in `history`, whose
counts every process would keep whole.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Shard

from .item_scores_lsrm import ItemScores

MESH = "tp"  # name of the mesh's dimension, as transformers has it
_CHECKSUM = 1 << 40  # whole numbers below it are exact in float64
_ALIKE = 1e-3  # relative difference of states that were computed in the same way on different machines


class Division(NamedTuple):
    """Which rows of a table are in this process.

    Attributes:
        first, last: the first row that is here, and the one after the last; equal if none is.
        most: rows of the process with most of them.
        group: the processes that have the table together.
    """

    first: int
    last: int
    most: int
    group: Any

    def inside(self, items: tuple[int, int]) -> tuple[int, int]:
        """Of a range of rows of the whole table the one that is here, counted from the first row here."""
        begin, end = (min(max(row, self.first), self.last) - self.first for row in items)
        return begin, end

    def held(self, tokens: Any) -> Any:
        """Which of the tokens, a tensor or an array, are rows here; bool."""
        return (tokens >= self.first) & (tokens < self.last)

    def only(self, scores: ItemScores) -> ItemScores:
        """The scores of items that are here, counted from the first row here. Their gradient is made whole again."""
        here = self.held(scores.tokens).nonzero()[:, 0]
        values = whole_gradient(scores.values, self).index_select(0, here)
        return ItemScores(scores.rows.index_select(0, here), scores.tokens[here] - self.first, values)


def division(weight: Any) -> Division | None:
    """How the rows of a weight are divided; None for a weight that is whole here, or spread in another way."""
    if not isinstance(weight, DTensor):
        return None
    mesh = weight.device_mesh
    if mesh.ndim != 1 or mesh.mesh_dim_names != (MESH,) or weight.placements != (Shard(0),):
        return None
    rows = weight.shape[0]
    size, first = Shard.local_shard_size_and_offset(rows, mesh.size(), mesh.get_local_rank())
    first = min(int(first), rows)
    return Division(first, first + int(size), -(-rows // mesh.size()), mesh.get_group())


def head_division(head: Any) -> Division | None:
    """`division` of a head that does nothing but multiply with its weight."""
    return division(head.weight) if isinstance(head, nn.Linear) and head.bias is None else None


class _WholeGradient(torch.autograd.Function):
    """What all processes have alike and each uses for its items only: the gradient is the sum over them."""

    @staticmethod
    def forward(ctx, values, group):
        ctx.group = group
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


class _Sum(torch.autograd.Function):
    """The sum over processes that go on alike with it: each has the whole gradient already."""

    @staticmethod
    def forward(ctx, values, group):
        values = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(values, group=group)
        return values

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class _Columns(torch.autograd.Function):
    """Columns of all processes side by side, for processes that go on alike with them."""

    @staticmethod
    def forward(ctx, values, part, columns):
        ctx.first, ctx.width = part.first, values.shape[-1]
        return side_by_side(values, part, columns)

    @staticmethod
    def backward(ctx, grad):
        return grad[..., ctx.first : ctx.first + ctx.width], None, None


def whole_gradient(values: torch.Tensor, part: Division) -> torch.Tensor:
    """The same values; their gradient will be the sum of those of all processes."""
    return _WholeGradient.apply(values, part.group)


def side_by_side(values: torch.Tensor, part: Division, columns: int) -> torch.Tensor:
    """`(..., columns)` of `(..., columns here)` of every process."""
    widest = nn.functional.pad(values, (0, part.most - values.shape[-1])).contiguous()
    parts = [torch.empty_like(widest) for _ in range(dist.get_world_size(part.group))]
    dist.all_gather(parts, widest, group=part.group)
    return torch.cat(parts, -1)[..., :columns]


def look_up(table: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    """`(..., d)` rows of a table, divided or not, at `(...)` tokens."""
    weight: Any = table.weight
    part = division(weight)
    if part is None:
        return table(ids)
    return rows_at(weight.to_local(), ids, part, table.padding_idx)


def rows_at(rows: torch.Tensor, ids: torch.Tensor, part: Division, padding_idx: int | None = None) -> torch.Tensor:
    """`(..., d)` rows of a divided table at `(...)` tokens, the same in all processes.

    Args:
        rows: those that are here.
        padding_idx: the token whose row learns nothing.
    """
    here = part.held(ids)
    if not len(rows):
        found = rows.sum() + rows.new_zeros(*ids.shape, rows.shape[1])  # it has a gradient as in other processes
    else:
        padding = padding_idx is not None and part.first <= padding_idx < part.last
        places = (ids - part.first).masked_fill(~here, 0)
        found = nn.functional.embedding(places, rows, padding_idx - part.first if padding else None)  # type: ignore[operator]
        found = found.masked_fill(~here[..., None], 0.0)
    return _Sum.apply(found, part.group)


def divided_logits(states: torch.Tensor, vectors: torch.Tensor, part: Division, columns: int) -> torch.Tensor:
    """`(..., columns)` products of states with the rows of all processes, in all of them.

    Args:
        vectors: the rows that are here.
        columns: rows of the whole table.
    """
    return _Columns.apply(nn.functional.linear(whole_gradient(states, part), vectors), part, columns)


def softmax_over(
    group: Any, top: torch.Tensor, z: torch.Tensor, target_logit: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same three over all processes: `(n, 1)` each, the maximum to base 2, the sum of powers relative to it, and
    the target's logit, 0 where the target is not."""
    most = top.clone()
    dist.all_reduce(most, dist.ReduceOp.MAX, group)
    both = torch.cat([z * torch.exp2(top - most), target_logit], 1)
    dist.all_reduce(both, group=group)
    return most, both[:, :1], both[:, 1:]


def log_sum(values: torch.Tensor, part: Division) -> torch.Tensor:
    """`(B,)` logarithm of the sum of exponentials of `(B,)`, one of every process."""
    found = [torch.empty_like(values) for _ in range(dist.get_world_size(part.group))]
    dist.all_gather(found, values.contiguous(), group=part.group)
    return torch.stack(found).logsumexp(0)


@torch.no_grad()
def check_same_batch(
    part: Division, states: torch.Tensor, targets: torch.Tensor, negative_ids: torch.Tensor | None
) -> None:
    """Refuses processes that do not compute the same: each would learn its items from other rows.

    Args:
        states: `(N, d)`; targets: `(N,)`; negative_ids: `(S,)` or None.

    Raises:
        ValueError: in all processes alike, saying what differs.
    """
    said = [torch.zeros(3, dtype=torch.float64, device=states.device)]
    said[0][0] = len(targets)
    for place, tokens in enumerate((targets, negative_ids), 1):
        if tokens is not None and len(tokens):
            order = torch.arange(1, len(tokens) + 1, device=tokens.device)
            said[0][place] = (tokens * order).sum() % _CHECKSUM
    said.append(states[0].double() if len(states) else said[0].new_zeros(states.shape[1]))
    mine = torch.cat(said)
    both = torch.stack([mine, -mine])
    dist.all_reduce(both, dist.ReduceOp.MAX, part.group)
    apart = both[0] + both[1]
    apart[3:] -= _ALIKE * (1.0 + both[0][3:].abs())
    differs = (apart > 0.0).tolist()
    if any(differs):
        names = ["numbers of targets", "targets", "negatives", "states (dropout draws other numbers)"]
        what = names[differs.index(True) if any(differs[:3]) else 3]
        raise ValueError(
            f"the processes that have the item table together have different {what}: give all of them the same rows of "
            "the batch, the same negatives, and the same seed before every step."
        )


def refuse_undivided(parts: Sequence[str], head: Any) -> None:
    """Refuses tables of `history` that would stay whole in every process beside a divided item table.

    Raises:
        ValueError: for "mix".
    """
    if "mix" in parts and head_division(head) is not None:
        raise ValueError(
            "the item table is divided over processes, but the counts of mix are not: each process would keep all of "
            "them. Load the model whole, or train one without mix in its history."
        )


def refuse_resizing(table: nn.Embedding) -> None:
    """Refuses another number of rows for a divided table.

    Raises:
        ValueError: if it is divided.
    """
    if division(table.weight) is not None:
        raise ValueError("the item table is divided over processes and keeps its size: resize the model whole.")


__all__ = ["MESH", "Division", "check_same_batch", "divided_logits", "division", "head_division", "log_sum", "look_up",
           "refuse_resizing", "refuse_undivided", "rows_at", "side_by_side", "softmax_over",
           "whole_gradient"]  # fmt: skip
