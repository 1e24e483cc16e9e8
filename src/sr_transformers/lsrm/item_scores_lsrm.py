# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Numbers that are added to the scores of a few items of every row, and how the chunked loss takes them in."""

import math
from typing import Any, NamedTuple

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


def add_scores(scores: torch.Tensor, extra: ItemScores) -> torch.Tensor:
    """`(rows, V)` scores with `extra` added; what is no item stays as it is."""
    rows, tokens, values = extra
    flat = scores.reshape(-1)
    return flat.index_add(0, rows.long() * scores.shape[-1] + tokens, values.to(flat.dtype)).view_as(scores)


class AddedScores:
    """Scores added to single items of a chunk of the loss: its exponentials are there already, and are multiplied.

    Args:
        scores: of the whole batch; start, n: the rows of the chunk; whole: there are no others.
        target: `(n,)` tokens.
        blocks: first item of every block, and the one after its last; store: the blocks' exponentials, one after the
            other; tops: `(n, 1)` each, the logarithm (to base 2) that they were divided by; top: the last one.

    Attributes:
        of_targets: `(n, 1)`, what `apply` found for the targets, as logarithms to base 2.
    """

    def __init__(
        self,
        scores: ItemScores,
        start: int,
        n: int,
        whole: bool,
        target: torch.Tensor,
        blocks: list[tuple[int, int]],
        store: torch.Tensor,
        tops: list[torch.Tensor],
        top: torch.Tensor,
    ):
        self.store, self.top, self.target = store, top[:, 0], target.int()
        # index_select and index_copy_: several times faster than indexing with tensors.
        self.inside: torch.Tensor | None = None
        if not whole:
            self.inside = ((scores.rows >= start) & (scores.rows < start + n)).nonzero()[:, 0]
            scores = ItemScores(*[values.index_select(0, self.inside) for values in scores])
            scores = scores._replace(rows=scores.rows - start)
        self.scores, self.blocks = scores, blocks
        self.scales = None if len(blocks) == 1 else torch.exp2(torch.cat(tops)[:, 0].view(-1, n) - self.top).reshape(-1)

    def apply(self, z: torch.Tensor) -> torch.Tensor:
        """Multiplies the exponentials and gives their new `(n, 1)` sum for the old one, both divided by `2 ** top`."""
        row, token, values = self.scores
        values = values.to(self.top.dtype)
        place, scale = self._place(row, token)
        old = self.store.index_select(0, place)
        new = values.exp().mul_(old).to(old.dtype)
        self.store.index_copy_(0, place.long(), new)
        old, self.share = self._scaled(old, scale), self._scaled(new, scale)
        change = torch.zeros_like(self.top).index_add_(0, row, self.share - old)
        self.hit = (token == self.target.index_select(0, row)).nonzero()[:, 0]
        of_targets = torch.zeros_like(self.top).index_add_(0, row[self.hit], values[self.hit] * _LOG2_E)
        self.of_targets = of_targets[:, None]
        # A sum of nothing but what was taken away is as small as the type can tell.
        return torch.maximum(z + change[:, None], z * torch.finfo(self.store.dtype).eps)

    def _place(self, row: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Where exponentials stand, and what they are to be multiplied by (None: 1)."""
        blocks, n = self.blocks, len(self.top)
        begin, size, width = blocks[0][0], blocks[0][1] - blocks[0][0], blocks[-1][1] - blocks[0][0]
        own = token - begin
        if self.scales is None:
            return own.add_(row, alpha=width), None
        # An item's exponential stands at `in_store[item] + row * widths[item]`.
        item = torch.arange(width, device=row.device, dtype=torch.int32)
        block = item // size
        widths = torch.where(block < len(blocks) - 1, size, width - (len(blocks) - 1) * size).int()
        in_store = item + block * (size * n - size)
        place = row * widths.index_select(0, own) + in_store.index_select(0, own)
        return place, self.scales.index_select(0, (block * n).index_select(0, own).add_(row))

    def _scaled(self, values: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        values = values.to(self.top.dtype)
        return values if scale is None else values * scale

    def gradient(self, grad: Any, log_z: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Puts into the gradient of all values that of the chunk's: the probability of the item, less 1 at the
        target."""
        row = self.scores.rows
        share = self.share.mul_(torch.exp2(self.top - log_z[:, 0]).index_select(0, row))
        share[self.hit] = residual[row[self.hit], 0]
        share = share.to(grad.dtype)
        return share if self.inside is None else grad.index_copy_(0, self.inside, share)


__all__ = ["AddedScores", "ItemScores", "add_scores"]
