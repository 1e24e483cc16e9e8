"""What a model that `reads_past` reads beside the items of a batch: the whole pasts of its users."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from sr_transformers.lsrm.mix_lsrm import HALF_LIVES
from sr_transformers.lsrm.own_items_lsrm import Pasts, without_own


class Past(NamedTuple):
    """What is known of one user.

    Attributes:
        items: `(L,)` tokens, oldest first.
        times: `(L,)` int64 moments in the log's unit; None where nothing reads them. `(L + 1,)` for a model with
            `query_time`: the last one is that of the request.
    """

    items: np.ndarray
    times: np.ndarray | None = None

    def last(self, length: int) -> "Past":
        """Its last interactions only."""
        more = 0 if self.times is None else len(self.times) - len(self.items)
        return Past(self.items[-length:], None if self.times is None else self.times[-length - more :])

    def of(self, items: np.ndarray, kept: np.ndarray) -> "Past":
        """Other items at the moments of those that were `kept` `(L,)` bool."""
        if self.times is None:
            return Past(items)
        request = self.times[len(self.items) :]
        return Past(items, np.concatenate([self.times[: len(self.items)][kept], request]))

    def and_then(self, item: int) -> "Past":
        """One interaction more, at the moment of the last one, or of the request: when it will be is not known."""
        times = None if self.times is None else np.append(self.times, self.times[-1] if len(self.times) else 0)
        return Past(np.append(self.items, item), times)


def pasts_with(histories: Sequence[np.ndarray], times: Sequence[np.ndarray], query_time: bool, name: str) -> list[Past]:
    """Histories with their moments, as a model of that name reads them.

    Raises:
        ValueError: unless there is one moment for each item, and with query_time one more for the request.
    """
    pasts = [Past(history, moments) for history, moments in zip(histories, times, strict=True)]
    for items, moments in pasts:
        if moments is None or len(moments) != len(items) + query_time:
            more = ", and at last that of the request (query_time)" if query_time else ""
            given = 0 if moments is None else len(moments)
            raise ValueError(f"{name} reads a moment for each item{more}; {given} were given for {len(items)}.")
    return pasts


def pasts_of(
    pasts: Sequence[Past], shown: np.ndarray, lines: np.ndarray, places: np.ndarray, device: Any = None
) -> Pasts:
    """Pasts as `own_items_lsrm` takes them; see there."""
    tokens = np.concatenate([np.zeros(0, np.int64), *[past.items for past in pasts]]).astype(np.int64, copy=False)
    lengths = np.array([len(past.items) for past in pasts], np.int64)

    def there(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.int64)).to(device)

    times = asked = None
    timed = [past.times for past in pasts if past.times is not None]
    if timed:
        times = there(np.concatenate([of[:length] for of, length in zip(timed, lengths.tolist(), strict=True)]))
        if len(timed[0]) > lengths[0]:  # the request's moment stands last
            asked = there(np.concatenate([of[1:] for of in timed]))
    return Pasts(there(tokens), there(lengths), there(shown), there(lines), there(places), times, asked)


def placed(pasts: Sequence[Past], window: int, width: int, device: Any = None) -> Pasts:
    """Pasts, each in a row of its own, of which up to `window` interactions have places, at the right of `width`."""
    shown = np.minimum([len(past.items) for past in pasts], window)
    return pasts_of(pasts, shown, np.arange(len(pasts)), width - shown, device)


def last_columns(
    pasts: Sequence[Past], width: int, device: Any = None, own_past: bool = True, half_lives: Sequence[float] = ()
) -> dict[str, torch.Tensor]:
    """What a model reads to score what follows the last interaction of each past: `own_items_lsrm.Pasts.columns`.

    Args:
        own_past: False: without the items of the users' own pasts.
        half_lives: see there.
    """
    columns = placed(pasts, 1, width, device).columns(len(pasts), width, half_lives)
    return columns if own_past else without_own(columns)


class PastInputs:
    """Makes `history`, `clock` and `moments` of training batches.

    Args:
        config: an `LSRMConfig`.
    """

    def __init__(self, config: Any):
        self.config, self.needs_times = config, config.needs_times
        self.query_time = int(config.query_time)

    def __call__(
        self, sizes: np.ndarray, pasts: Sequence[Past], lines: np.ndarray, places: np.ndarray, shape: tuple[int, int]
    ) -> dict[str, Any]:
        """Inputs of a batch.

        Args:
            sizes: `(M,)`, how many interactions each window reads.
            pasts: of each window the history up to its end.
            lines, places: `(M,)` int64, where the window begins in the batch of this shape.
        """
        half_lives = HALF_LIVES if self.config.mix_share else ()  # a model that is only trained does without
        return pasts_of(pasts, sizes, lines, places).inputs(self.config, shape, half_lives)
