"""Ties in training: the interactions of a user at one moment (a basket) in an order drawn anew for every epoch.

Their order in the file is an accident. Read in that order epoch after epoch, a model learns it.
"""

import numpy as np
import torch

from sr_transformers.data.prepared import PreparedData


class ShuffledBaskets:
    """The training part of a prepared log, the items of every basket shuffled; read like the log itself.

    What stands at a place is a function of (seed, epoch, history, place) alone: windows of one history fit together
    whichever process reads them, every interaction stands at one place in an epoch, and a resumed run reads what it
    would have read.

    Args:
        data: prepared or streamed, or a fraction of it.
        seed: of all orders.

    Attributes:
        train_lengths: as those of the data.
    """

    def __init__(self, data: PreparedData, seed: int):
        self._data, self._seed = data, seed
        self.train_lengths = data.train_lengths
        # In memory that processes share: loader processes outlive an epoch.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Chooses the orders, here and in the loader processes."""
        self._epoch[0] = epoch

    def train_items(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        """Tokens `start .. stop - 1` of the training part of a history in this epoch's order."""
        times = self._data.train_times(history, int(self.train_lengths[history]))
        if start >= stop:
            return self._data.train_items(history, stop, start)
        # Whole baskets, so that two windows that share one agree on its order.
        first = int(np.searchsorted(times, times[start], "left"))
        after = int(np.searchsorted(times, times[stop - 1], "right"))
        stream = np.random.PCG64([self._seed, int(self._epoch), history]).advance(first)
        order = np.lexsort((np.random.Generator(stream).random(after - first), times[first:after]))
        return self._data.train_items(history, after, first)[order][start - first : stop - first]

    def train_times(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        """Moments of `train_items`, which no shuffling moves."""
        return self._data.train_times(history, stop, start)
