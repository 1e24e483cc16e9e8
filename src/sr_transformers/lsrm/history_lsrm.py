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
    """Class of a count, 1 or more; int32."""
    bounds = torch.tensor(COUNT_BOUNDS[1:], device=count.device, dtype=count.dtype)
    return torch.bucketize(count.contiguous(), bounds, right=True, out_int32=True)


def _power(value: torch.Tensor, classes: int) -> torch.Tensor:
    """Class of a number: its power of 2, rounded down, from 0 on; int32.

    Read off the exponent of the float32, in a tenth of the time of a logarithm.
    """
    return (value.float().clamp(min=1.0).view(torch.int32) >> 23).clamp(max=classes + 126) - 127


def _time_class(time: torch.Tensor) -> torch.Tensor:
    """Class of a time in usual intervals; 0 for no time at all. int32."""
    return (_power(time * 16.0, _TIMES - 1) + 1) * (time > 0)


class ZeroLinear(nn.Linear):
    """A linear map that begins as zero: what it is for is not there at first."""


class ZeroEmbedding(nn.Embedding):
    """A table that begins as zero, likewise."""


class LSRMClock(nn.Module):
    """Where in a basket an interaction stands, and how long after the basket before, as part of the input."""

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.config = config  # training sets its time_unit
        self.items_so_far = ZeroEmbedding(_COUNTS, config.hidden_size)
        self.time_before = ZeroEmbedding(_TIMES, config.hidden_size)

    def forward(self, clock: torch.Tensor) -> torch.Tensor:
        """`(B, T, d)` to be added to the embeddings, of `(B, T, 2)` (`own_items_lsrm.Pasts.clock`)."""
        return self.items_so_far(_count_class(clock[..., 0])) + self.time_before(
            _time_class(clock[..., 1] / self.config.time_unit)
        )


class LSRMHistory(nn.Module):
    """Scores of single items from the user's own past and from successors, see the head of this file.

    Args:
        config: `history` names the parts, `num_successors` K, `time_unit` the usual time between two baskets.
    """

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.parts = tuple(config.history)
        self.config = config  # training sets its time_unit
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
        # Whole numbers are int32 and every column is looked up by one index: several times faster on CPUs.
        begin, stretch = columns["begin"], (columns["end"] - columns["begin"]).clamp(min=0)
        number = torch.arange(len(begin), device=begin.device, dtype=torch.int32)
        column = number.repeat_interleave(stretch, output_size=int(stretch.sum()))
        first = begin - (stretch.cumsum(0) - stretch)  # place of a pair, less its number
        pair = torch.arange(len(column), device=begin.device, dtype=torch.int32)

        def spread(of_column: torch.Tensor) -> torch.Tensor:
            of_column = of_column if of_column.is_floating_point() else of_column.int()
            return of_column.index_select(0, column)

        rows = pair + spread(first + columns["line"] * hidden.shape[1])
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
                    steps = pair + spread(first - columns["place"])
                    cell = _power(steps + 1.25, _STEPS) + spread(counts * _STEPS + offset)
                elif part == "baskets":
                    cell = _time_class(since / self.config.time_unit) + spread(baskets * _TIMES + offset)
                elif part == "intervals":
                    cell = self._interval_cell(columns, since, spread) + offset
                else:
                    before = spread(columns["before"].masked_fill(columns["before"] < NUM_SPECIAL, -1))
                    recent = columns["recent"].int()
                    last, second = (before == recent[lag].reshape(-1).index_select(0, rows) for lag in (0, 1))
                    cell = last + 2 * (second & ~last).int() + offset
                values = values + worth.index_select(0, begins + cell)
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
        regular = (baskets >= 3).int() + (baskets >= 6).int()
        known = (since > 0) & spread(baskets > 1).bool()
        return torch.where(known, ratio * _REGULAR + spread(regular), _RATIOS * _REGULAR)

    def _successors(self, hidden: torch.Tensor, columns: Mapping[str, torch.Tensor], lag: int) -> ItemScores:
        places = hidden.shape[0] * hidden.shape[1]
        items = columns["recent"][lag].reshape(-1)
        known = (items >= NUM_SPECIAL).nonzero()[:, 0]
        item = items.index_select(0, known)
        counts, totals = (table[lag].index_select(0, item) for table in (self.successor_counts, self.successor_totals))
        tokens = self.successor_tokens[lag].index_select(0, item)
        if f"later_rows_{lag}" in columns:  # in training: what the user did from the target on
            entry = items.new_zeros(places).index_copy(0, known, torch.arange(len(known), device=known.device))
            later = entry.index_select(0, columns[f"later_rows_{lag}"])
            totals = totals.index_add(0, later, -torch.ones_like(later, dtype=totals.dtype))
            same = tokens.index_select(0, later) == columns[f"later_tokens_{lag}"].int()[:, None]
            which, successor = same.nonzero(as_tuple=True)
            taken = later[which] * tokens.shape[1] + successor
            gone = torch.ones_like(taken, dtype=counts.dtype)
            counts = counts.reshape(-1).index_add(0, taken, -gone).view_as(counts)
        share = _power(totals[:, None] / counts.clamp(min=1), _SHARES)
        cells = _SHARES * _SUPPORT
        row = known.int()[:, None]
        cell = share * _SUPPORT + (counts >= 2) + (counts >= 4) + row * (LAGS * cells) + lag * cells
        left = (counts > 0).reshape(-1).nonzero()[:, 0]
        worth = _wide(self.successor_table(hidden)).reshape(-1)
        values = worth.index_select(0, cell.reshape(-1).index_select(0, left))
        rows = row.expand_as(counts).reshape(-1).index_select(0, left)
        return ItemScores(rows, tokens.reshape(-1).index_select(0, left), values * _GAIN)


__all__ = ["LSRMClock", "LSRMHistory", "ZeroEmbedding", "ZeroLinear"]
