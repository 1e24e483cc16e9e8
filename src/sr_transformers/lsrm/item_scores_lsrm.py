# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Numbers that are added to the scores of a few items of every row, and how the chunked loss takes them in."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

_LOG2_E = math.log2(math.e)


class ItemScores(NamedTuple):
    """Numbers to be added to the scores of single items.

    Attributes:
        rows: `(P,)` int32, places of the flattened batch, `line * T + place`; in any order.
        tokens: `(P,)` int32; a row has a token once at most.
        values: `(P,)` float32.
    """

    rows: torch.Tensor
    tokens: torch.Tensor
    values: torch.Tensor

    def of(self, wanted: torch.Tensor) -> "ItemScores":
        """Those of the rows where `wanted` `(rows,)` is true, these rows counted from 0."""
        number = (wanted.cumsum(0, dtype=torch.int32) - 1).masked_fill(~wanted, -1)
        rows = number.index_select(0, self.rows)
        if len(rows) and int(rows.amin()) >= 0:  # nothing stands where nothing is wanted: so in training
            return self._replace(rows=rows)
        kept = (rows >= 0).nonzero()[:, 0]
        return ItemScores(*[values.index_select(0, kept) for values in (rows, self.tokens, self.values)])

    def at(self, places: torch.Tensor, width: int) -> "ItemScores":
        """Those at `places` `(K,)` of rows of `width`, each place asked for once; K places a row from now on."""
        kept = places.new_full((width,), -1).index_put((places,), torch.arange(len(places)).to(places)).int()
        place = kept.index_select(0, self.rows % width)
        inside = (place >= 0).nonzero()[:, 0]
        rows = self.rows[inside] // width * len(places) + place[inside]
        return ItemScores(rows, self.tokens[inside], self.values.index_select(0, inside))

    def between(self, first: int, last: int) -> "ItemScores":
        """Those of the rows `first .. last - 1`, counted from 0."""
        inside = ((self.rows >= first) & (self.rows < last)).nonzero()[:, 0]
        return ItemScores(self.rows[inside] - first, self.tokens[inside], self.values.index_select(0, inside))


def add_scores(scores: torch.Tensor, extra: list[ItemScores]) -> torch.Tensor:
    """`(rows, V)` scores with all of `extra` added; what is no item stays as it is."""
    flat = scores.reshape(-1)
    for rows, tokens, values in extra:
        flat = flat.index_add(0, rows.long() * scores.shape[-1] + tokens, values.to(flat.dtype))
    return flat.view_as(scores)


class AddedScores:
    """Scores added to single items of a chunk of the loss: its exponentials are there already, and are multiplied.

    Args:
        lists: of the whole batch; start, n: the rows of the chunk; whole: there are no others.
        target: `(n,)` tokens.
        blocks: first item of every block, and the one after its last; store: the blocks' exponentials, one after the
            other; tops: `(n, 1)` each, the logarithm (to base 2) that they were divided by; top: the last one.
        learns: whether `gradients` will be asked for.
    """

    def __init__(
        self,
        lists: Sequence[ItemScores],
        start: int,
        n: int,
        whole: bool,
        target: torch.Tensor,
        blocks: list[tuple[int, int]],
        store: torch.Tensor,
        tops: list[torch.Tensor],
        top: torch.Tensor,
        learns: bool,
    ):
        self.store, self.top, self.target, self.learns = store, top[:, 0], target.int(), learns
        self.of_targets = torch.zeros_like(top)
        self.scales = None if len(blocks) == 1 else torch.exp2(torch.cat(tops)[:, 0].view(-1, n) - self.top).reshape(-1)
        self.lists: list[ItemScores] = []
        self.inside: list[torch.Tensor | None] = []
        # index_select and index_copy_: several times faster than indexing with tensors.
        for one in lists:
            inside = None
            if not whole:
                inside = ((one.rows >= start) & (one.rows < start + n)).nonzero()[:, 0]
                one = ItemScores(*[values.index_select(0, inside) for values in one])
                one = one._replace(rows=one.rows - start)
            self.lists.append(one)
            self.inside.append(inside)
        # Where the exponential of an item stands: `in_store[item] + row * widths[item]`.
        self.begin, size = blocks[0][0], blocks[0][1] - blocks[0][0]
        item = torch.arange(blocks[-1][1] - self.begin, device=store.device, dtype=torch.int32)
        block = item // size
        self.widths = torch.where(block < len(blocks) - 1, size, len(item) - (len(blocks) - 1) * size).int()
        self.block = block * n
        self.in_store = item + block * (size * n - size)
        self.shares: list[torch.Tensor] = []
        self.hits: list[torch.Tensor] = []

    def apply(self, z: torch.Tensor) -> torch.Tensor:
        """Multiplies the exponentials and gives their new `(n, 1)` sum for the old one, both divided by `2 ** top`."""
        change, of_targets = torch.zeros_like(self.top), torch.zeros_like(self.top)
        for row, token, added in self.lists:
            values = added.to(change.dtype)
            place, scale = self._place(row, token)
            old = self.store.index_select(0, place)
            new = values.exp().mul_(old).to(old.dtype)
            self.store.index_copy_(0, place.long(), new)
            old, new = self._scaled(old, scale), self._scaled(new, scale)
            change.index_add_(0, row, new - old)
            hit = (token == self.target.index_select(0, row)).nonzero()[:, 0]
            of_targets.index_add_(0, row[hit], values[hit] * _LOG2_E)
            self.hits.append(hit)
            self.shares.append(new)
        if self.learns:  # later lists may have the same items
            for index, (row, token, _) in enumerate(self.lists[:-1]):
                place, scale = self._place(row, token)
                self.shares[index] = self._scaled(self.store.index_select(0, place), scale)
        self.of_targets = of_targets[:, None]
        # A sum of nothing but what was taken away is as small as the type can tell.
        return torch.maximum(z + change[:, None], z * torch.finfo(self.store.dtype).eps)

    def _place(self, row: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Where exponentials stand, and what they are to be multiplied by (None: 1)."""
        item = token - self.begin
        if self.scales is None:
            return row * len(self.widths) + item, None
        place = row * self.widths.index_select(0, item) + self.in_store.index_select(0, item)
        return place, self.scales.index_select(0, self.block.index_select(0, item) + row)

    def _scaled(self, values: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        values = values.to(self.top.dtype)
        return values if scale is None else values * scale

    def gradients(self, grads: list[torch.Tensor], log_z: torch.Tensor, residual: torch.Tensor) -> None:
        """Writes the gradients of the values: the probability of the item, less 1 at the target."""
        scale = torch.exp2(self.top - log_z[:, 0])
        for grad, (row, _, _), inside, share, hit in zip(
            grads, self.lists, self.inside, self.shares, self.hits, strict=True
        ):
            share *= scale.index_select(0, row)
            share[hit] = residual[row[hit], 0]
            if inside is None:
                grad.copy_(share)
            else:
                grad.index_copy_(0, inside, share.to(grad.dtype))


__all__ = ["AddedScores", "ItemScores", "add_scores"]
