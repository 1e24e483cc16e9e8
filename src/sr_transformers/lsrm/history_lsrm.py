# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""What a user's own past, and what followed the same items elsewhere, add to the scores of single items.

    p(v) ~ exp(h . w_v + b_v)

b_v is 0 for almost all items. For an item of the user's own past it comes from tables over how often, how long ago and
at which intervals the user came back to it, for a successor (an item that followed one of the last items in the
training data) from a table over how often it did; what a cell of a table is worth depends on the state h. All of it is
known before the target: counts of the past, and the moment of the last known interaction.

The past is given as `columns`: one entry per interaction, together with the stretch of places for which it is the most
recent one of its item. So a place has exactly one entry per distinct item of its past, whole histories cost no more
than that, and everything an entry holds was known when it was made.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .configuration_lsrm import LAGS, NUM_SPECIAL, LSRMConfig
from .item_scores_lsrm import ItemScores
from .scoring_lsrm import wide

# Classes of counts (1, 2, 3, 4-5, 6-8, 9-15, 16 and more), of steps (powers of 2) and of times (powers of 2 of the
# usual time between two baskets, from a sixteenth on; class 0 is "in the current basket").
COUNT_BOUNDS = (1, 2, 3, 4, 6, 9, 16)
_COUNTS, _STEPS, _TIMES = len(COUNT_BOUNDS), 12, 12
_RATIOS, _REGULAR = 11, 3  # time since the last purchase over the item's own interval; baskets 2, 3-5, 6 and more
_SHARES, _SUPPORT = 11, 3  # successors: share of the transitions (powers of 2); transitions 1, 2-3, 4 and more
# Tables of zeros have far to go: their values move this many times faster than other weights.
_GAIN = 2.0

# name of a part -> cells of its table
_CELLS = {
    "recency": _COUNTS * _STEPS,
    "baskets": _COUNTS * _TIMES,
    "intervals": _RATIOS * _REGULAR + 1,
    "bigrams": 3,
}


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values.to(wide(values.dtype))


def _count_class(count: torch.Tensor) -> torch.Tensor:
    """Class of a count, 1 or more."""
    bounds = torch.tensor(COUNT_BOUNDS[1:], device=count.device, dtype=count.dtype)
    return torch.bucketize(count.contiguous(), bounds, right=True)


def _power(value: torch.Tensor, classes: int) -> torch.Tensor:
    """Class of a number, 1 or more: its power of 2, rounded down."""
    return value.clamp(min=1.0).log2().floor().clamp(max=classes - 1).long()


def _time_class(time: torch.Tensor) -> torch.Tensor:
    """Class of a time in usual intervals; 0 for no time at all."""
    return torch.where(time > 0, _power(time * 16.0, _TIMES - 1) + 1, 0)


class ZeroLinear(nn.Linear):
    """A linear map that begins as zero: what it is for is not there at first."""


class ZeroEmbedding(nn.Embedding):
    """A table that begins as zero, likewise."""


class LSRMClock(nn.Module):
    """Where in a basket an interaction stands, and how long after the basket before, as part of the input."""

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.time_unit = config.time_unit
        self.items_so_far = ZeroEmbedding(_COUNTS, config.hidden_size)
        self.time_before = ZeroEmbedding(_TIMES, config.hidden_size)

    def forward(self, clock: torch.Tensor) -> torch.Tensor:
        """`(B, T, d)` to be added to the embeddings, of `(B, T, 2)` (`own_items_lsrm.Pasts.clock`)."""
        return self.items_so_far(_count_class(clock[..., 0])) + self.time_before(
            _time_class(clock[..., 1] / self.time_unit)
        )


class LSRMHistory(nn.Module):
    """Scores of single items from the user's own past and from successors, see the head of this file.

    Args:
        config: `history` names the parts, `num_successors` K, `time_unit` the usual time between two baskets.
    """

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.parts = tuple(config.history)
        self.time_unit = config.time_unit
        self.own_parts = [part for part in _CELLS if part in self.parts]
        cells = sum(_CELLS[part] for part in self.own_parts)
        if cells:
            self.own_table = ZeroLinear(config.hidden_size, cells)
        if "items" in self.parts:
            self.item_table = ZeroEmbedding(config.vocab_size, 2)
        self.successor_tokens: torch.Tensor
        self.successor_counts: torch.Tensor
        self.successor_totals: torch.Tensor
        if "successors" in self.parts:
            self.successor_table = ZeroLinear(config.hidden_size, LAGS * _SHARES * _SUPPORT)
            shape = (LAGS, config.vocab_size, config.num_successors)
            self.register_buffer("successor_tokens", torch.zeros(shape, dtype=torch.int32))
            self.register_buffer("successor_counts", torch.zeros(shape, dtype=torch.int32))
            self.register_buffer("successor_totals", torch.zeros(shape[:2], dtype=torch.int32))

    def forward(self, hidden: torch.Tensor, columns: Mapping[str, torch.Tensor]) -> list[ItemScores]:
        """What is added to the scores of which items.

        Args:
            hidden: `(B, T, d)` states.
            columns: of `own_items_lsrm.Pasts`; in training also `data.transitions.later_transitions`.

        Returns:
            One `ItemScores` for own items, and one for every lag of the successors.
        """
        found = []
        if self.own_parts or "items" in self.parts:
            found.append(self._own(hidden, columns))
        if "successors" in self.parts:
            found += [self._successors(hidden, columns, lag) for lag in range(LAGS)]
        return found

    def _own(self, hidden: torch.Tensor, columns: Mapping[str, torch.Tensor]) -> ItemScores:
        width = hidden.shape[1]
        begin, stretch = columns["begin"], (columns["end"] - columns["begin"]).clamp(min=0)

        def spread(of_column: torch.Tensor) -> torch.Tensor:
            return of_column.repeat_interleave(stretch)

        first = stretch.cumsum(0) - stretch
        place = torch.arange(int(stretch.sum()), device=begin.device) + spread(begin - first)
        rows = place + spread(columns["line"] * width)
        since: Any = None
        counts = baskets = _count_class(columns["count"])
        if "time" in columns:
            baskets = _count_class(columns["baskets"])
            since = columns["now"].reshape(-1).index_select(0, rows) - spread(columns["time"])
        values = torch.zeros(len(rows), device=hidden.device, dtype=wide(hidden.dtype))
        if self.own_parts:
            worth = _wide(self.own_table(hidden)).reshape(-1)
            begins, offset = rows * self.own_table.out_features, 0
            for part in self.own_parts:
                if part == "recency":
                    steps = (place - spread(columns["place"])).float()
                    cell = _power(steps + 1.25, _STEPS) + spread(counts * _STEPS)
                elif part == "baskets":
                    cell = _time_class(since / self.time_unit) + spread(baskets * _TIMES)
                elif part == "intervals":
                    cell = self._interval_cell(columns, since, spread)
                else:
                    before = spread(columns["before"])
                    last, second = (columns["recent"][lag].reshape(-1).index_select(0, rows) for lag in (0, 1))
                    cell = torch.where(before == last, 1, torch.where(before == second, 2, 0))
                    cell = cell * (before >= NUM_SPECIAL)
                values = values + worth.index_select(0, begins + (cell + offset))
                offset += _CELLS[part]
        if "items" in self.parts:
            of_item = _wide(self.item_table(columns["token"]))
            again = spread(of_item[:, 0] + of_item[:, 1] * (baskets - 2))
            values = values + (again if since is None else again * (since > 0))
        return ItemScores(rows, spread(columns["token"]), values * _GAIN)

    def _interval_cell(
        self,
        columns: Mapping[str, torch.Tensor],
        since: torch.Tensor,
        spread: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        baskets = columns["baskets"]
        intervals = (baskets - 1).clamp(min=1) / (columns["time"] - columns["first"]).clamp(min=1e-9)
        ratio = _power((since * spread(intervals)).square() * 32.0, _RATIOS)
        regular = (baskets >= 3).long() + (baskets >= 6).long()
        cell = ratio * _REGULAR + spread(regular)
        return torch.where((since > 0) & spread(baskets > 1), cell, _RATIOS * _REGULAR)

    def _successors(self, hidden: torch.Tensor, columns: Mapping[str, torch.Tensor], lag: int) -> ItemScores:
        item = columns["recent"][lag].reshape(-1)
        row = (item >= NUM_SPECIAL).nonzero()[:, 0]
        item = item[row]
        counts, totals = (table[lag].index_select(0, item) for table in (self.successor_counts, self.successor_totals))
        if f"later_rows_{lag}" in columns:  # in training: what the user did from the target on
            later = columns[f"later_rows_{lag}"]
            place = row.new_zeros(hidden.shape[0] * hidden.shape[1]).index_put((row,), torch.arange(len(row)).to(row))
            of_row = place[later]
            totals = totals.index_add(0, of_row, -torch.ones_like(later, dtype=totals.dtype))
            same = self.successor_tokens[lag][item[of_row]] == columns[f"later_tokens_{lag}"][:, None]
            which, successor = same.nonzero(as_tuple=True)
            taken = torch.ones_like(which, dtype=counts.dtype)
            counts = counts.index_put((of_row[which], successor), -taken, accumulate=True)
        entry, successor = (counts > 0).nonzero(as_tuple=True)
        counts = counts[entry, successor]
        share = _power(totals[entry].float() / counts, _SHARES)
        cell = share * _SUPPORT + (counts >= 2).long() + (counts >= 4).long()
        cells = _SHARES * _SUPPORT
        worth = _wide(self.successor_table(hidden)).reshape(-1)
        rows = row[entry]
        values = worth.index_select(0, rows * (LAGS * cells) + lag * cells + cell)
        return ItemScores(
            rows, self.successor_tokens[lag].index_select(0, item)[entry, successor].long(), values * _GAIN
        )


__all__ = ["LSRMClock", "LSRMHistory", "ZeroEmbedding", "ZeroLinear"]
