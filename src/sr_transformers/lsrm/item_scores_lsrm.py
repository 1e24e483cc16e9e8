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
        kept = wanted.index_select(0, self.rows).nonzero()[:, 0]
        rows = (wanted.cumsum(0, dtype=torch.int32) - 1).index_select(0, self.rows.index_select(0, kept))
        return ItemScores(rows, self.tokens.index_select(0, kept), self.values.index_select(0, kept))

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
    ):
        self.store, self.top, self.tops = store, top[:, 0], torch.cat(tops)[:, 0]
        self.of_targets = torch.zeros_like(top)
        self.parts = []
        begin, size = blocks[0][0], blocks[0][1] - blocks[0][0]
        sizes = torch.tensor([last - first for first, last in blocks], device=store.device, dtype=torch.int32)
        for one in lists:
            # index_select and index_copy_: several times faster than indexing with tensors.
            inside, row, item, values = None, one.rows, one.tokens - begin, one.values
            if not whole:
                inside = ((row >= start) & (row < start + n)).nonzero()[:, 0]
                row, item = row.index_select(0, inside) - start, item.index_select(0, inside)
                values = values.index_select(0, inside)
            if len(blocks) == 1:
                top_place, place = row, row * size + item
            else:
                block = item // size
                top_place = block * n + row
                place = block * (size * n - size) + row * sizes.index_select(0, block) + item
            hit = (item == (target - begin).int().index_select(0, row)).nonzero()[:, 0]
            self.parts.append((inside, values.to(top.dtype), row, top_place, place.long(), hit))

    def apply(self, z: torch.Tensor) -> torch.Tensor:
        """Multiplies the exponentials and gives their new `(n, 1)` sum for the old one, both divided by `2 ** top`."""
        change, of_targets = torch.zeros_like(self.top), torch.zeros_like(self.top)
        scales = torch.exp2(self.tops.view(-1, len(self.top)) - self.top).reshape(-1)
        for _, values, row, top_place, place, hit in self.parts:
            old = self.store.index_select(0, place)
            new = (old.to(values.dtype) * values.exp()).to(old.dtype)
            self.store.index_copy_(0, place, new)
            difference = new.to(values.dtype) - old.to(values.dtype)
            if len(self.tops) > len(self.top):
                difference *= scales.index_select(0, top_place)
            change.index_add_(0, row, difference)
            of_targets.index_add_(0, row[hit], values[hit] * _LOG2_E)
        self.of_targets = of_targets[:, None]
        # A sum of nothing but what was taken away is as small as the type can tell.
        return torch.maximum(z + change[:, None], z * torch.finfo(self.store.dtype).eps)

    def gradients(self, grads: list[torch.Tensor], log_z: torch.Tensor, residual: torch.Tensor) -> None:
        """Writes the gradients of the values: the probability of the item, less 1 at the target."""
        for grad, (inside, values, row, top_place, place, hit) in zip(grads, self.parts, strict=True):
            scale = torch.exp2(self.tops.view(-1, len(log_z)) - log_z[:, 0]).reshape(-1)
            share = self.store.index_select(0, place).to(values.dtype) * scale.index_select(0, top_place)
            share[hit] = residual[row[hit], 0]
            if inside is None:
                grad.copy_(share)
            else:
                grad.index_copy_(0, inside, share.to(grad.dtype))


__all__ = ["AddedScores", "ItemScores", "add_scores"]
