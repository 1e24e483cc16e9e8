"""From histories to training rows: which window of which history stands in which row of which batch.

Every target of every history is trained on exactly once per epoch. A history that fits the model's window is one
window; a longer one is cut into windows at a phase drawn anew for every epoch, so that over epochs each target is seen
with many lengths of context. Windows are then packed, best fit, into rows of a fixed width; nothing is padded but the
last few places of a row. All of it is a function of (seed, epoch) alone: a resumed run, and a run on another number of
processes, sees the same rows in the same order.
"""

import numpy as np

ALL_POSITIONS, LAST_POSITION = "all_positions", "last_position"
OBJECTIVES = (ALL_POSITIONS, LAST_POSITION)


def cut_windows(lengths: np.ndarray, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts histories into windows that cover every (item, next item) pair exactly once.

    Args:
        lengths: `(U,)` int, number of training interactions of every history.
        width: longest window, in pairs (the model reads one item for each).
        rng: draws the phase of the histories that are longer than a window.

    Returns:
        `(history, start, size)`, int64 `(M,)` each, by history and time: the window reads items
        `start .. start + size - 1` of the history and predicts items `start + 1 .. start + size`.
        Histories of fewer than 2 interactions have no pair and no window.
    """
    pairs = np.maximum(lengths.astype(np.int64) - 1, 0)
    long = pairs > width
    phase = np.zeros_like(pairs)
    phase[long] = rng.integers(0, width, size=int(long.sum()))
    # A phase p > 0 puts one window of p pairs before the full ones.
    head = (phase > 0).astype(np.int64)
    count = head + -(-(pairs - phase) // width)
    history = np.repeat(np.arange(len(pairs)), count)
    first = np.cumsum(count) - count
    nth = np.arange(len(history)) - np.repeat(first, count)
    offset = nth - head[history]
    start = np.where(offset < 0, 0, phase[history] + offset * width)
    end = np.where(offset < 0, phase[history], np.minimum(start + width, pairs[history]))
    return history, start, end - start


def list_prefixes(lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One window per target: the up to `width` items before it, as the paper's code samples.

    Returns: as `cut_windows`; only the last target of each window is meant to be trained on.
    """
    pairs = np.maximum(lengths.astype(np.int64) - 1, 0)
    history = np.repeat(np.arange(len(pairs)), pairs)
    first = np.cumsum(pairs) - pairs
    end = np.arange(len(history)) - np.repeat(first, pairs) + 1
    start = np.maximum(end - width, 0)
    return history, start, end - start


def pack_rows(sizes: np.ndarray, width: int) -> np.ndarray:
    """Assigns windows to rows of `width` places, each window to the fullest row that still has room (best fit).

    Args:
        sizes: `(M,)` int in `[1, width]`, in the order in which windows are placed.

    Returns:
        `(M,)` int64: the row of every window; rows are numbered by their first window.

    Raises:
        ValueError: if a window is wider than a row.
    """
    if len(sizes) and int(sizes.max()) > width:
        raise ValueError(f"a window of {int(sizes.max())} items does not fit a row of {width}.")
    rows = np.empty(len(sizes), dtype=np.int64)
    open_rows: list[list[int]] = [[] for _ in range(width + 1)]  # by free places
    has_room = 0  # bit f is set while open_rows[f] is not empty
    num_rows = 0
    for index, size in enumerate(sizes.tolist()):
        fitting = has_room >> size
        if fitting:
            free = size + (fitting & -fitting).bit_length() - 1
            row = open_rows[free].pop()
            if not open_rows[free]:
                has_room ^= 1 << free
        else:
            free, row = width, num_rows
            num_rows += 1
        rows[index] = row
        left = free - size
        if left:
            open_rows[left].append(row)
            has_room |= 1 << left
    return rows


class EpochPlan:
    """The rows of one epoch, in the order in which they are trained on.

    Args:
        lengths: `(U,)` int, training interactions of every history.
        window: longest window, in items read.
        width: places in a row, at least `window`.
        seed, epoch: fix everything that is random.
        objective: `ALL_POSITIONS` (every position predicts its next item) or `LAST_POSITION` (a window per target).
        bounds: `(shards + 1,)` first history of every shard, and U: the epoch goes through one shard after the other,
            in an order drawn anew; None: all histories are one.

    Attributes:
        num_rows: rows in the epoch.
        num_positions: positions that hold an item, over all rows: what the blocks compute on.
        num_targets: targets in the epoch: the sum over histories of their interactions less one.
        fill: fraction of the places of all rows that hold an item.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        window: int,
        width: int,
        seed: int,
        objective: str,
        epoch: int,
        bounds: np.ndarray | None = None,
    ):
        if width < window:
            raise ValueError(f"rows of {width} places cannot hold windows of {window}; use a row width >= the window.")
        if objective not in OBJECTIVES:
            raise ValueError(f"objective {objective!r} is not known; choose from {', '.join(OBJECTIVES)}.")
        rng = np.random.default_rng([seed, epoch])
        bounds = np.array([0, len(lengths)]) if bounds is None else bounds
        shards = rng.permutation(len(bounds) - 1).tolist() if len(bounds) > 2 else [0]
        self.num_rows = self.num_positions = self.num_targets = 0
        windows, first = [], []
        for shard in shards:
            of_shard = lengths[bounds[shard] : bounds[shard + 1]]
            if objective == ALL_POSITIONS:
                history, start, size = cut_windows(of_shard, window, rng)
            else:
                history, start, size = list_prefixes(of_shard, window)
            shuffled = rng.permutation(len(history))
            history, start, size = history[shuffled] + bounds[shard], start[shuffled], size[shuffled]
            row = pack_rows(size, width)
            num_rows = int(row.max()) + 1 if len(row) else 0
            # Rows were opened in the order of their first window and closed by their last: shuffle them once more.
            place = rng.permutation(num_rows)[row]
            order = np.argsort(place, kind="stable")
            windows.append(np.stack([history, start, size], axis=1)[order])
            first.append(np.searchsorted(place[order], np.arange(num_rows)) + sum(map(len, windows[:-1])))
            self.num_rows += num_rows
            self.num_positions += int(size.sum())
            self.num_targets += int(size.sum()) if objective == ALL_POSITIONS else len(size)
        self.fill = self.num_positions / max(self.num_rows * width, 1)
        self._windows = np.concatenate(windows)
        self._first = np.concatenate([*first, [len(self._windows)]])

    def windows(self, row: int) -> np.ndarray:
        """`(K, 3)` int64: history, start and size of the windows in a row, from left to right."""
        return self._windows[self._first[row] : self._first[row + 1]]
