"""The past of one user that grows by an interaction at a time: what a model with `history` reads, without a recount.

An interaction changes the entry of its own item and adds at most one; how long the past is does not matter.
"""

import itertools
from collections import deque
from typing import Any

import numpy as np
import torch

from sr_transformers.lsrm.configuration_lsrm import LAGS
from sr_transformers.lsrm.mix_lsrm import HALF_LIVES

# Of an item: its token; position of its last interaction; interactions with it; the token before the last of them; and
# with times: baskets with it, and the moment of its last interaction.
_TOKEN, _POSITION, _COUNT, _BEFORE, _BASKETS, _TIME = range(6)
_LIVES = np.array(HALF_LIVES)


class GrowingPast:
    """One user's past.

    Args:
        window: most recent interactions that are kept one by one.

    Attributes:
        length: interactions so far.
        recent: tokens of the last ones, at most `window`, oldest first.
    """

    def __init__(self, window: int):
        self.length = 0
        self.recent: deque[int] = deque(maxlen=max(window, LAGS))
        self._clock: deque[tuple[int, int]] = deque(maxlen=max(window, 1))
        self._moments: deque[int] = deque(maxlen=max(window, 1))
        self._entry_of: dict[int, int] = {}
        self._entries = np.zeros((16, 6), np.int64)
        self._decayed = np.zeros((16, len(HALF_LIVES)))  # of an item: its interactions, older ones worth less
        self._now = self._in_basket = self._gap = 0

    def add(self, token: int, time: int | None = None) -> None:
        """One interaction more, with its moment where moments are read.

        Raises:
            ValueError: for a moment before the last one.
        """
        if time is not None:
            self._tick(time)
        number = self._entry_of.setdefault(token, len(self._entry_of))
        if number == len(self._entries):
            # So seldom that it is cheap.
            self._entries = np.concatenate([self._entries, np.zeros_like(self._entries)])
            self._decayed = np.concatenate([self._decayed, np.zeros_like(self._decayed)])
        entry = self._entries[number]
        entry[_BASKETS] += not entry[_COUNT] or self._now != entry[_TIME]
        self._decayed[number] *= np.exp2((entry[_POSITION] - self.length) / _LIVES)
        self._decayed[number] += 1
        entry[[_TOKEN, _POSITION, _TIME]] = token, self.length, self._now
        entry[_COUNT] += 1
        entry[_BEFORE] = self.recent[-1] if self.length else 0
        self.recent.append(token)
        self.length += 1

    def _tick(self, time: int) -> None:
        if self.length and time < self._now:
            raise ValueError(f"the moment {time} is before {self._now}, the last one.")
        if not self.length or time > self._now:
            self._gap = time - self._now if self.length else 0
            self._now, self._in_basket = time, 0
        self._in_basket += 1
        self._clock.append((self._in_basket, self._gap))
        self._moments.append(time)

    def moments(self, device: Any = None) -> torch.Tensor:
        """`(1, n)` int64: the moments of the last interactions, at most `window`, oldest first."""
        return torch.tensor([self._moments], dtype=torch.int64, device=device)

    @property
    def last_moment(self) -> int:
        """Of the last interaction, where moments are read; else 0."""
        return self._now

    def items(self) -> np.ndarray:
        """Tokens of all items so far, each once, int64."""
        return self._entries[: len(self._entry_of), _TOKEN].copy()

    def columns(
        self, width: int, timed: bool, mixes: bool, device: Any = None, query_time: int | None = None
    ) -> dict[str, torch.Tensor]:
        """As `own_items_lsrm.Pasts.columns` of a batch of one row of `width` places, the last one of which is that of
        the last interaction; for that place alone.

        Args:
            timed: with what needs moments; mixes: with what `mix_lsrm` reads.
            query_time: when it is asked what comes next; None: at the moment of the last interaction.
        """
        entries = torch.from_numpy(self._entries[: len(self._entry_of)]).to(device)
        token, position, count, before, baskets, time = entries.unbind(1)
        line = torch.zeros_like(token)
        recent = entries.new_zeros(LAGS, 1, width)
        for lag in range(min(LAGS, self.length)):
            recent[lag, 0, -1] = self.recent[-1 - lag]
        found = {
            "line": line,
            "token": token.clone(),
            "place": position + (width - self.length),
            "begin": line + width - 1,
            "end": line + width,
            "count": count.clone(),
            "before": before.clone(),
            "recent": recent,
        }
        if timed:
            found["baskets"] = baskets.clone()
            found["time"] = time.clone()
            found["now"] = entries.new_full((1, width), torch.iinfo(torch.int64).max)
            found["now"][0, -1] = self._now if query_time is None else query_time
        if mixes:
            found["decayed"] = torch.from_numpy(self._decayed[: len(self._entry_of)]).float().to(device)
        return found

    def clock(self, width: int, device: Any = None, query_time: int | None = None) -> torch.Tensor:
        """`(1, width, 2)`, with a query_time `(1, width, 3)`, as `own_items_lsrm.Pasts.clock`, of the last `width`
        interactions."""
        places: list[Any] = list(self._clock)[-width:]
        if query_time is not None:
            moments = [*self._moments, query_time]
            waits = [after - before for before, after in itertools.pairwise(moments)][-width:]
            places = [(*place, wait) for place, wait in zip(places, waits, strict=True)]
        return torch.tensor([places], dtype=torch.float32, device=device)


__all__ = ["GrowingPast"]
