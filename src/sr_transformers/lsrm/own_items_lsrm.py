# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""From pasts of users to what `history_lsrm` reads: for every place of a batch, the items of the user's past.

A past is all that a user has done so far, oldest first; the last part of it, at most a window, has places in the batch.
Every interaction makes one entry, which counts for the places from its own to the one before the next interaction with
the same item. What an entry holds is known when it is made; so a past that grows by one interaction changes one entry
and adds one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from .configuration_lsrm import LAGS, NUM_SPECIAL
from .mix_lsrm import decayed_counts

_KEY = 1 << 32  # more than there are tokens


class Pasts:
    """Pasts of S users (or windows), one after the other, and where they stand in a batch.

    Args:
        tokens: `(N,)` int64, all pasts; what is no item stands in its place and is no own item.
        lengths: `(S,)` int64 interactions of each.
        shown: `(S,)` int64, how many of the last ones have places.
        lines, places: `(S,)` int64, row of the batch and place of the first one shown.
        times: `(N,)` int64 moments, or None.
        asked: `(N,)` int64, when it was asked what comes after each, for a model with `query_time`; None: right then.
    """

    def __init__(
        self,
        tokens: torch.Tensor,
        lengths: torch.Tensor,
        shown: torch.Tensor,
        lines: torch.Tensor,
        places: torch.Tensor,
        times: torch.Tensor | None = None,
        asked: torch.Tensor | None = None,
    ):
        self.tokens, self.lengths, self.shown, self.lines, self.places = tokens, lengths, shown, lines, places
        self.times, self.asked = times, asked
        number = torch.arange(len(lengths), device=tokens.device)
        self.past = torch.repeat_interleave(number, lengths)
        self.ends = lengths.cumsum(0)
        self.first = self.ends - lengths
        self.position = torch.arange(len(tokens), device=tokens.device) - self.first.index_select(0, self.past)
        # Place of an interaction in its row; negative for those before the first one shown.
        self.place = self.position + (places + shown - lengths).index_select(0, self.past)

    def columns(self, batch: int, width: int, half_lives: Sequence[float] = ()) -> dict[str, torch.Tensor]:
        """What `LSRMHistory` reads of a batch of `batch` rows of `width` places.

        Returns:
            One entry each, `(C,)`: `line`, `token`, `place` (of the interaction), `begin` and `end` (places for which
            it counts), `count` (interactions with the item so far), `before` (the token before it, 0 for none) and,
            with times, `baskets` (with the item so far) and `time` (moment of this interaction, int64: differences of
            moments must be exact, or what came a second later lies in the same basket). `recent`, `(LAGS, B, W)`: the
            last token, the one before, and so on, 0 for none. With times also `now`, `(B, W)` int64: the moment at
            which it is asked what comes after each place (that of its interaction unless `asked` says otherwise).
            With half-lives (`mix_lsrm.HALF_LIVES`) also `decayed`, `(C, K)`: `count` with older interactions worth
            less.
        """
        order = torch.sort(self.past * _KEY + self.tokens, stable=True).indices
        past, token = (of.index_select(0, order) for of in (self.past, self.tokens))
        index = torch.arange(len(order), device=order.device)
        new = torch.ones(len(order), dtype=torch.bool, device=order.device)
        new[1:] = (past[1:] != past[:-1]) | (token[1:] != token[:-1])
        group = torch.where(new, index, 0).cummax(0).values if len(order) else index
        place, start = self.place.index_select(0, order), self.places.index_select(0, past)
        end = start + self.shown.index_select(0, past)
        end[:-1] = torch.where(new[1:], end[:-1], place[1:])
        begin = torch.maximum(place, start)
        # index_select is several times faster than indexing with a tensor, and few are kept.
        kept = ((begin < end) & (token >= NUM_SPECIAL)).nonzero()[:, 0]
        kept_order, kept_group = order.index_select(0, kept), group.index_select(0, kept)
        before = self.tokens.index_select(0, (kept_order - 1).clamp(min=0))
        found = {
            "line": self.lines.index_select(0, past.index_select(0, kept)),
            "token": token.index_select(0, kept),
            "place": place.index_select(0, kept),
            "begin": begin.index_select(0, kept),
            "end": end.index_select(0, kept),
            "count": kept - kept_group + 1,
            "before": before.masked_fill(self.position.index_select(0, kept_order) == 0, 0),
        }
        seen, at = self._shown()
        found["recent"] = self.tokens.new_zeros(LAGS, batch, width)
        for lag in range(LAGS):
            earlier = self.tokens[(seen - lag).clamp(min=0)].masked_fill(self.position[seen] < lag, 0)
            found["recent"][lag][at] = earlier
        if self.times is not None:
            of_item = self.times.index_select(0, order)
            another = new.clone()
            another[1:] |= of_item[1:] != of_item[:-1]
            baskets = another.cumsum(0)
            found["baskets"] = baskets.index_select(0, kept) - baskets.index_select(0, kept_group) + 1
            found["time"] = self.times.index_select(0, kept_order)
            found["now"] = self.times.new_full((batch, width), torch.iinfo(torch.int64).max)  # without a past
            found["now"][at] = (self.times if self.asked is None else self.asked)[seen]
        if half_lives:
            decayed = decayed_counts(self.position.index_select(0, order), group, half_lives)
            found["decayed"] = decayed.index_select(0, kept)
        return found

    def clock(self, batch: int, width: int) -> torch.Tensor:
        """`(B, W, 2)` float32: items so far in the basket of each place, and the time between that basket and the one
        before, 0 for none. A basket is what has the same moment. With `asked` `(B, W, 3)`: and the time from there to
        when it is asked what comes next.
        """
        assert self.times is not None
        opens = self.position == 0
        opens[1:] |= self.times[1:] != self.times[:-1]
        index = torch.arange(len(self.times), device=opens.device)
        opened = torch.where(opens, index, 0).cummax(0).values if len(index) else index
        seen, at = self._shown()
        first = opened.index_select(0, seen)
        gap = self.times.index_select(0, first) - self.times.index_select(0, (first - 1).clamp(min=0))
        gap = gap.masked_fill(self.position.index_select(0, first) == 0, 0)
        of_places = [(seen - first + 1).float(), gap.float()]
        if self.asked is not None:
            of_places.append((self.asked - self.times).index_select(0, seen).float())
        clock = gap.new_zeros(batch, width, len(of_places), dtype=torch.float32)
        clock[at] = torch.stack(of_places, -1)
        return clock

    def moments(self, batch: int, width: int) -> torch.Tensor:
        """`(B, W)` int64: the moment of the interaction at each place, for attention that reads time; else 0."""
        assert self.times is not None
        seen, at = self._shown()
        found = self.times.new_zeros(batch, width)
        found[at] = self.times[seen]
        return found

    def inputs(self, config: Any, shape: Sequence[int], half_lives: Sequence[float] = ()) -> dict[str, Any]:
        """`history`, `clock` and `moments`, as far as a model of this configuration takes them, of a batch of this
        shape."""
        makers: dict[str, Callable[..., Any]] = {
            "history": partial(self.columns, half_lives=half_lives),
            "clock": self.clock,
            "moments": self.moments,
        }
        return {name: makers[name](*shape) for name in config.past_inputs}

    def _shown(self) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """The interactions that have places, and these: rows and places of the batch."""
        seen = (self.place >= self.places.index_select(0, self.past)).nonzero()[:, 0]
        return seen, (self.lines[self.past[seen]], self.place[seen])


def pasts_in(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    times: torch.Tensor | None = None,
    query_times: torch.Tensor | None = None,
) -> Pasts:
    """The pasts that a batch itself holds: what stands in a row is all that there is.

    Args:
        input_ids: `(B, T)`; attention_mask: `(B, T)`, 0 for padding; position_ids: `(B, T)`, several users in a row are
            told apart by positions that begin anew at 0.
        times: `(B, T)` int64 moments, anything for padding, or None.
        query_times: `(B,)` int64, when it is asked what comes after each row, for a model with `query_time`.

    Raises:
        ValueError: for query_times and several users in a row.
    """
    batch, width = input_ids.shape
    real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask[:, -width:] != 0
    opens = torch.zeros_like(real)
    opens[:, 0] = True
    opens[:, 1:] = ~real[:, :-1]
    if position_ids is not None:
        opens[:, 1:] |= position_ids.expand(batch, -1)[:, 1:] == 0
    opens &= real
    flat = real.reshape(-1).nonzero()[:, 0]
    opened = opens.reshape(-1)[flat].nonzero()[:, 0]
    lengths = torch.diff(opened, append=torch.tensor([len(flat)], device=flat.device))
    begins = flat[opened]
    lines, moments, asked = begins // width, None if times is None else times.reshape(-1)[flat], None
    if moments is not None and query_times is not None:
        if len(lines.unique()) < len(lines):
            raise ValueError("query_times has one moment for each row, and a row has several users: one in each row.")
        asked = asked_after(moments, lengths, query_times.index_select(0, lines))
    return Pasts(input_ids.reshape(-1)[flat], lengths, lengths, lines, begins % width, moments, asked)


def pasts_of_rows(
    ids: torch.Tensor,
    mask: torch.Tensor,
    width: int,
    window: int = 1,
    times: torch.Tensor | None = None,
    query_times: torch.Tensor | None = None,
) -> Pasts:
    """The pasts in the rows of `(B, L)` ids, of which the last `window` interactions have places, at the right end of
    `width`.

    Args:
        mask: `(B, L)`, false for padding, on whichever side.
        times: `(B, L)` int64 moments, or None.
        query_times: `(B,)` int64, when it is asked what comes after each row, for a model with `query_time`.
    """
    lengths = mask.sum(1)
    rows = torch.arange(len(ids), device=ids.device)
    shown = lengths.clamp(max=window)
    moments = None if times is None else times[mask]
    asked = None if moments is None or query_times is None else asked_after(moments, lengths, query_times)
    return Pasts(ids[mask], lengths, shown, rows, width - shown, moments, asked)


def asked_after(times: torch.Tensor, lengths: torch.Tensor, query_times: torch.Tensor) -> torch.Tensor:
    """`(N,)`: when it was asked what comes after each interaction: when the next one happened, and after the last one
    of each past at its moment of `query_times`."""
    asked = torch.cat([times[1:], times[:1]])
    some = lengths > 0
    asked[(lengths.cumsum(0) - 1)[some]] = query_times[some]
    return asked


def last_places(columns: dict[str, torch.Tensor], width: int, kept: int) -> dict[str, torch.Tensor]:
    """What `Pasts.columns` gives for the last `kept` of `width` places alone."""
    first = max(width - kept, 0)
    found = dict(columns)
    for name in ("place", "begin", "end"):
        found[name] = columns[name] - first
    found["begin"] = found["begin"].clamp(min=0)
    for name in ("recent", "now"):
        if name in found:
            found[name] = columns[name][..., first:]
    return found


def without_own(columns: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `Pasts.columns` gives of users without any item of their own; what they had last stays for `LSRMMix`."""
    of_places = ("recent", "now")
    return {name: values if name in of_places else values[:0] for name, values in columns.items()}


__all__ = ["Pasts", "asked_after", "last_places", "pasts_in", "pasts_of_rows", "without_own"]
