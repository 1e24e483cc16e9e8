"""What belongs to one request of a model that many threads ask: where it writes, and that nothing is dropped out."""

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator

import torch
from torch import nn

_LINE = 16  # float32 numbers of a cache line: products are a third slower on rows that begin in the middle of one
_MODES = threading.Lock()
_IN_USE: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()  # requests to models in training


def _after_fork() -> None:
    """A child has none of its parent's other threads, which may have held a lock at the fork."""
    global _MODES
    _MODES = threading.Lock()
    _IN_USE.clear()


os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """A model without dropout; one in training goes back to it when the last of the requests that overlap is done."""
    with _MODES:
        borrowed = model.training or model in _IN_USE
        if borrowed:
            _IN_USE[model] = _IN_USE.get(model, 0) + 1
        if model.training:  # a walk over all modules: a quarter of the time of one user's request
            model.eval()
    try:
        yield
    finally:
        if borrowed:
            with _MODES:
                _IN_USE[model] -= 1
                if not _IN_USE[model]:
                    del _IN_USE[model]
                    model.train()


class ScoreMemory:
    """Room for the scores of one request, or of one thread: written again by every call that it is given to."""

    def __init__(self) -> None:
        self._room: torch.Tensor | None = None

    def room(self, rows: int, items: int, device: torch.device) -> torch.Tensor:
        """As `room_for`."""
        if self._room is None or len(self._room) < rows:
            self._room = room_for(rows, items, device)
        return self._room[:rows]


def room_for(rows: int, items: int, device: torch.device) -> torch.Tensor:
    """`(rows, items)` float32 with whatever was there."""
    if rows == 1:
        return torch.empty(1, items, device=device)
    return torch.empty(rows, -(-items // _LINE) * _LINE, device=device)[:, :items]
