# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""What a user's own past adds to the scores of its items.

    p(v) ~ exp(h . w_v + b_v)

b_v is 0 for almost all items. For an item of the user's own past it comes from tables over how often and how long ago
the user came back to it, and after what; what a cell of a table is worth depends on the state h. All of it is known
before the target: counts of the past, and the moment of the last known interaction.

The past is given as `columns`: one entry per interaction, together with the stretch of places for which it is the most
recent one of its item. So a place has exactly one entry per distinct item of its past, whole histories cost no more
than that, and everything an entry holds was known when it was made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .configuration_lsrm import NUM_SPECIAL, LSRMConfig
from .divided_lsrm import look_up
from .item_scores_lsrm import ItemScores
from .mix_lsrm import HALF_LIVES, LSRMMix
from .scoring_lsrm import wide

# Classes of counts (1, 2, 3, 4-5, 6-8, 9-15, 16 and more), of steps (powers of 2) and of times (powers of 2 of the
# usual time between two baskets, from a sixteenth on; class 0 is "in the current basket").
COUNT_BOUNDS = (1, 2, 3, 4, 6, 9, 16)
_COUNTS, _STEPS, _TIMES = len(COUNT_BOUNDS), 12, 12
# Tables of zeros have far to go: their values move this many times faster than other weights.
GAIN = 2.0

# Name of a part -> cells of its table; and vectors of the clock.
HISTORY_CELLS = {
    "recency": _COUNTS * _STEPS,
    "baskets": _COUNTS * _TIMES,
    "bigrams": 3,
}
CLOCK_CELLS = (_COUNTS, _TIMES)
QUERY_CELLS = 24  # of the clock, for the time up to the request: classes as those of times, up to longer ones


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values.to(wide(values.dtype))


def _count_class(count: torch.Tensor) -> torch.Tensor:
    """Class of a count, 1 or more; int32."""
    return _steps(count, COUNT_BOUNDS[1:])


def _power(value: torch.Tensor, classes: int) -> torch.Tensor:
    """Class of a number: its power of 2, rounded down, from 0 on; int32."""
    if torch.compiler.is_exporting():  # no graph reinterprets bits
        return _steps(value, [2.0**power for power in range(1, classes)])
    # Read off the exponent of the float32, in a tenth of the time of a logarithm.
    exponent = value.float().clamp(min=1.0).view(torch.int32).bitwise_right_shift_(23)
    return exponent.clamp_(max=classes + 126).sub_(127)


def _steps(value: torch.Tensor, bounds: Sequence[float]) -> torch.Tensor:
    """How many of the bounds a number reaches; int32."""
    found = torch.zeros_like(value, dtype=torch.int32)
    for bound in bounds:
        found += value >= bound
    return found


def _time_class(time: torch.Tensor, classes: int = _TIMES) -> torch.Tensor:
    """Class of a time in units of the usual one between two baskets; 0 for no time at all. int32."""
    return (_power(time * 16.0, classes - 1) + 1) * (time > 0)


class SumOfLookUps(torch.autograd.Function):
    """`sum_i tables[which[i]][places[i]]`, `(P,)`, of I tensors of places `(P,)` int32.

    A number of a table is used many times: its gradient is summed where it stands.
    """

    @staticmethod
    def forward(ctx, which, *tables_and_places):
        tables, places = tables_and_places[: -len(which)], tables_and_places[-len(which) :]
        ctx.save_for_backward(*places)
        ctx.which, ctx.sizes = which, [table.shape[0] for table in tables]
        found = tables[which[0]].index_select(0, places[0])
        for index, of_place in zip(which[1:], places[1:], strict=True):
            found += tables[index].index_select(0, of_place)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grads = [grad.new_zeros(size) for size in ctx.sizes]
        for index, of_place in zip(ctx.which, ctx.saved_tensors, strict=True):
            grads[index].index_add_(0, of_place, grad)
        return None, *grads, *[None for _ in ctx.which]


class _Pairs:
    """Every place with every item of its past, and where in the tables the numbers for them stand.

    There are hundreds of pairs to a place: whole numbers are int32, what belongs to a column is looked up by one index,
    and memory is written again where it can be. All that is several times faster on CPUs.

    Args:
        columns: see `LSRMHistory.forward`; width: T; parts: of the history; out: cells of a place's table; time_unit:
            of the configuration.

    Attributes:
        classes: `(C,)` int32, class of the number of baskets with the item, or without times of interactions.
        rows, tokens: `(P,)` int32, as `ItemScores`.
    """

    def __init__(
        self, columns: Mapping[str, torch.Tensor], width: int, parts: Sequence[str], out: int, time_unit: float
    ):
        self.columns, self.parts, self.out, self.time_unit = columns, parts, out, time_unit
        begin = columns["begin"]
        number = torch.arange(begin.shape[0], device=begin.device, dtype=torch.int32)
        if "end" in columns:
            stretch = (columns["end"] - begin).clamp(min=0)
            self.column = number.repeat_interleave(stretch, output_size=int(stretch.sum()))
            self.first = begin - (stretch.cumsum(0) - stretch)  # place of a pair, less its number
        else:  # each counts for one place
            self.column, self.first = number, begin - number
        self.pair = torch.arange(self.column.shape[0], device=begin.device, dtype=torch.int32)
        self.counts = self.classes = _count_class(columns["count"])
        if "time" in columns:
            self.classes = _count_class(columns["baskets"])
        self.rows = self._spread(self.first + columns["line"] * width).add_(self.pair)
        self.tokens = self._spread(columns["token"])

    def _spread(self, of_column: torch.Tensor) -> torch.Tensor:
        of_column = of_column if of_column.is_floating_point() else of_column.int()
        return of_column.index_select(0, self.column)

    def look_ups(self) -> list[torch.Tensor]:
        """Places `(P,)` int32 in the tables: for every part, in the order of `HISTORY_CELLS`, in that of the states,
        `(B * T * out,)`, then for the items in one of the columns, counted from 1."""
        places: list[torch.Tensor] = []
        begins, offset, columns = self.rows * self.out, 0, self.columns
        since: Any = None
        later: Any = None
        if "time" in columns:
            since = columns["now"].reshape(-1).index_select(0, self.rows)
            since = since.sub_(columns["time"].index_select(0, self.column))
            later = (since > 0).int()
        for part in HISTORY_CELLS:
            if part not in self.parts:
                continue
            if part == "recency":
                steps = self._spread(self.first - columns["place"] + 1).add_(self.pair)
                cell = _power(steps, _STEPS).add_(self._spread(self.counts * _STEPS + offset))
            elif part == "baskets":
                cell = _power(since / (self.time_unit / 16.0), _TIMES - 1).add_(1).mul_(later)
                cell = cell.add_(self._spread(self.classes * _TIMES + offset))
            else:
                cell = self._bigram_cell().add_(offset)
            places.append(cell.add_(begins))
            offset += HISTORY_CELLS[part]
        if "items" in self.parts:
            own = self.column + 1
            places.append(own if later is None else own.mul_(later))  # nothing comes back within its basket
        return places

    def _bigram_cell(self) -> torch.Tensor:
        before = self.columns["before"]
        before = self._spread(before.masked_fill(before < NUM_SPECIAL, -1))
        last, second = self.columns["recent"][:2].int().reshape(2, -1)
        second = second.masked_fill(second == last, -2)  # it counts as the last one
        is_last, is_second = (before == one.index_select(0, self.rows) for one in (last, second))
        return is_last.int().add_(is_second.int(), alpha=2)


class ZeroLinear(nn.Linear):
    """A linear map that begins as zero: what it is for is not there at first."""


class ZeroEmbedding(nn.Embedding):
    """A table that begins as zero, likewise."""


class LSRMClock(nn.Module):
    """Where in a basket an interaction stands, and how long after the basket before, as part of the input; with
    `query_time` also how long after it the question of what comes next is asked."""

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.config = config  # training sets its time_unit
        self.items_so_far = ZeroEmbedding(_COUNTS, config.hidden_size)
        self.time_before = ZeroEmbedding(_TIMES, config.hidden_size)
        self.time_after = ZeroEmbedding(QUERY_CELLS, config.hidden_size) if config.query_time else None

    def forward(self, clock: torch.Tensor) -> torch.Tensor:
        """`(B, T, d)` to be added to the embeddings, of `(B, T, 2)`, or `(B, T, 3)` with `query_time`
        (`own_items_lsrm.Pasts.clock`)."""
        found = self.items_so_far(_count_class(clock[..., 0])) + self.time_before(
            _time_class(clock[..., 1] / self.config.time_unit)
        )
        if self.time_after is None:
            return found
        if clock.shape[-1] < 3:
            raise ValueError("this model is told when it is asked (query_time): pass the moment of the request too.")
        return found + self.time_after(_time_class(clock[..., 2] / self.config.time_unit, QUERY_CELLS))


class LSRMHistory(nn.Module):
    """Scores of the items of the user's own past, see the head of this file.

    Args:
        config: `history` names the parts, `time_unit` is the usual time between two baskets.
    """

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.parts = tuple(config.history)
        self.config = config  # training sets its time_unit
        self.own_parts = [part for part in HISTORY_CELLS if part in self.parts]
        cells = sum(HISTORY_CELLS[part] for part in self.own_parts)
        if cells:
            self.own_table = ZeroLinear(config.hidden_size, cells)
        if "items" in self.parts:
            self.item_table = ZeroEmbedding(config.vocab_size, 2)
        self.mix = LSRMMix(config) if "mix" in self.parts else None

    @property
    def mixes(self) -> bool:
        """Whether probabilities are mixed with what counting says: once weights are fitted, and not while training."""
        return self.mix is not None and self.mix.speaks and not self.training

    @property
    def half_lives(self) -> tuple[float, ...]:
        """For `Pasts.columns`: which decayed counts are read."""
        return HALF_LIVES if self.mixes else ()

    @torch.compiler.disable  # its sizes depend on the values
    def mixed(
        self, scores: torch.Tensor, columns: Mapping[str, torch.Tensor], places: torch.Tensor, items: tuple[int, int]
    ) -> torch.Tensor:
        """`(R, V)` logarithms of mixed probabilities from the model's scores at `places` `(K,)` of every line; lowest
        for what is no item (`items`: `scoring_lsrm.item_range`)."""
        assert self.mix is not None
        return self.mix(scores, columns, places, items)

    @torch.compiler.disable  # likewise
    def forward(self, hidden: torch.Tensor, columns: Mapping[str, torch.Tensor]) -> ItemScores | None:
        """What is added to the scores of the users' own items.

        Args:
            hidden: `(B, T, d)` states.
            columns: of `own_items_lsrm.Pasts`.

        Returns:
            None if no part scores own items.
        """
        return self.own(hidden, columns) if self.config.scoring_parts else None

    def own(self, hidden: torch.Tensor, columns: Mapping[str, torch.Tensor]) -> ItemScores:
        """As `forward`, of parts that score own items; columns without `end` count for one place each."""
        out = self.own_table.out_features if self.own_parts else 0
        pairs = _Pairs(columns, hidden.shape[1], self.parts, out, self.config.time_unit)
        tables, which = [], []
        if self.own_parts:
            tables.append(_wide(self.own_table(hidden)).reshape(-1) * GAIN)
            which += [0] * len(self.own_parts)
        if "items" in self.parts:
            of_item = _wide(look_up(self.item_table, columns["token"])) * GAIN
            again = of_item[:, 0] + of_item[:, 1] * (pairs.classes - 2)
            tables.append(nn.functional.pad(again, (1, 0)))  # 0 is for none
            which.append(len(tables) - 1)
        return ItemScores(pairs.rows, pairs.tokens, SumOfLookUps.apply(which, *tables, *pairs.look_ups()))


__all__ = [
    "CLOCK_CELLS",
    "GAIN",
    "HISTORY_CELLS",
    "LSRMClock",
    "LSRMHistory",
    "ZeroEmbedding",
    "ZeroLinear",
]
