"""From prepared histories to the batches of one optimizer step, the same on any number of processes.

`EpochBatchSampler` decides which windows form which batch, `WindowDataset` fetches their items, `PackingCollator` lays
them out: as rows of a fixed width that hold windows of several users, or as one flat row for kernels of variable
length. No position ever attends to another window: positions restart at 0 where a window begins.
"""

import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sr_transformers.data.examples import IGNORE
from sr_transformers.data.packing import EpochPlan
from sr_transformers.data.past_inputs import Past, PastInputs
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.ties import ShuffledBaskets
from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID

ROWS, FLAT = "rows", "flat"


class WindowDataset(Dataset):
    """Rows of windows, by the rows themselves: a key is `(K, 3)` int64 (history, start, size) and the value its items.

    The value is the key, a list of K int arrays of `size + 1` items (what the window reads and, one further, what it
    predicts), and, if asked for, a list of the K histories that they come from, up to the end of the window.

    Args:
        past_inputs: of a model that `reads_past`, which reads these histories, and their moments if it needs them.
    """

    def __init__(self, data: PreparedData | ShuffledBaskets, num_rows: int, past_inputs: PastInputs | None = None):
        self.data, self.num_rows, self.past_inputs = data, num_rows, past_inputs

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, windows: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], list[Past]]:
        items, pasts = [], []
        for history, start, size in windows.tolist():
            if self.past_inputs is not None:
                stop, asked = start + size, self.past_inputs.query_time
                times = self.data.train_times(history, stop + asked) if self.past_inputs.needs_times else None
                pasts.append(Past(self.data.train_items(history, stop), times))
            items.append(self.data.train_items(history, start + size + 1, start))
        return windows, items, pasts


class EpochBatchSampler(Sampler[list[np.ndarray]]):
    """Batches of one process, epoch by epoch.

    The rows of an epoch are spread as evenly as possible over a fixed number of steps, each step over
    `accumulation * world_size` micro-batches. So the rows of step t are the same whatever the number of processes and
    of accumulated micro-batches, every target is trained on exactly once per epoch, and the number of steps per epoch
    does not depend on the epoch.

    Args:
        lengths: `(U,)` training interactions of every history.
        window, width, seed, objective, bounds: see `EpochPlan`.
        rows_per_step: rows of one optimizer step over all processes; an epoch has `ceil(rows / rows_per_step)` steps,
            the rows counted in epoch 0.
        shuffled: what the windows are read from, if it has other orders in every epoch: it is told the epoch.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        window: int,
        width: int,
        rows_per_step: int,
        seed: int,
        objective: str,
        accumulation: int = 1,
        world_size: int = 1,
        rank: int = 0,
        bounds: np.ndarray | None = None,
        shuffled: ShuffledBaskets | None = None,
    ):
        self._bounds, self._shuffled = bounds, shuffled
        self._plan_arguments = (lengths, window, width, seed, objective)
        self.accumulation, self.world_size, self.rank = accumulation, world_size, rank
        self.plan = EpochPlan(*self._plan_arguments, epoch=0, bounds=bounds)
        if self.plan.num_rows == 0:
            raise ValueError("no history has two training interactions: there is nothing to predict.")
        self._epoch = 0
        self.num_rows = self.plan.num_rows
        self.num_steps = -(-self.plan.num_rows // rows_per_step)

    def set_epoch(self, epoch: int) -> None:
        """Makes the plan of an epoch; called by the Trainer."""
        if self._shuffled is not None:
            self._shuffled.set_epoch(epoch)
        if epoch != self._epoch:
            self.plan = EpochPlan(*self._plan_arguments, epoch=epoch, bounds=self._bounds)
            self._epoch = epoch

    def __len__(self) -> int:
        return self.num_steps * self.accumulation

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        plan = self.plan
        pieces = self.num_steps * self.accumulation * self.world_size
        for piece in range(self.rank, pieces, self.world_size):
            first, last = piece * plan.num_rows // pieces, (piece + 1) * plan.num_rows // pieces
            # More processes than rows: a row without windows keeps the processes in step.
            yield [plan.windows(row) for row in range(first, last)] or [np.zeros((0, 3), np.int64)]


class EpochDataLoader(DataLoader):
    """A DataLoader that tells its batch sampler the epoch. The sampler knows ranks, so nothing shards it again.

    Attributes:
        seconds_waited: wall time that whoever iterates has waited for batches so far.
    """

    seconds_waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        iterator = super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self.seconds_waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class NegativeSampler:
    """Draws negatives for the sampled softmax from the training counts raised to a power.

    Args:
        item_counts: `(V,)` training interactions by token; special tokens are never drawn.
        num_negatives: S, drawn with replacement and shared by the targets of a batch.
        power: 0 is uniform, 1 follows popularity.
        seed: with the windows of a batch it fixes the draw, so that a resumed run draws the same.
    """

    def __init__(self, item_counts: np.ndarray, num_negatives: int, power: float, seed: int):
        weights = np.maximum(item_counts, 1).astype(np.float64) ** power
        weights[:NUM_SPECIAL] = 0.0
        self.log_q = np.log(weights[NUM_SPECIAL:] / weights.sum()).astype(np.float32)
        self._cumulative = np.cumsum(weights[NUM_SPECIAL:]) / weights.sum()
        self.num_negatives, self.seed = num_negatives, seed

    def draw(self, windows: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """`negative_ids` `(S,)` int64 and `negative_log_q` `(S,)` float32 for a batch of these windows."""
        fingerprint = zlib.crc32(np.concatenate([w.ravel() for w in windows]).tobytes())
        rng = np.random.default_rng([self.seed, fingerprint])
        drawn = np.searchsorted(self._cumulative, rng.random(self.num_negatives), side="right")
        drawn = np.minimum(drawn, len(self.log_q) - 1)
        return {
            "negative_ids": torch.from_numpy(drawn.astype(np.int64) + NUM_SPECIAL),
            "negative_log_q": torch.from_numpy(self.log_q[drawn]),
        }


class PackingCollator:
    """Lays the windows of a batch out as tensors.

    Args:
        width: places in a row.
        layout: `"rows"`: tensors are `(B, width)`. `"flat"`: `(1, T)` without any padding, with `cu_seq_lens_q/k` and
            `max_length_q/k` as flash-attention and flex-attention want them.
        last_only: only the last target of every window counts (one sample per prefix, as in the paper's code).
        negatives: draws shared negatives for the sampled softmax.
        past_inputs: makes what a model that `reads_past` reads.

    Returns (on call):
        input_ids, position_ids and shift_labels, int64; `shift_labels` is the item after each position, -100 where
        there is none. `labels` is the same tensor: the Trainer counts targets only if a key of that name exists.
    """

    def __init__(
        self,
        width: int,
        layout: str = ROWS,
        last_only: bool = False,
        negatives: NegativeSampler | None = None,
        past_inputs: PastInputs | None = None,
    ):
        if layout not in (ROWS, FLAT):
            raise ValueError(f"layout {layout!r} is not known; choose rows or flat.")
        self.width, self.layout, self.last_only, self.negatives = width, layout, last_only, negatives
        self.past_inputs = past_inputs

    def __call__(self, rows: Sequence[tuple[np.ndarray, list[np.ndarray], list[Past]]]) -> dict[str, Any]:
        width = self.width if self.layout == ROWS else max(sum(len(w) - 1 for _, row, _ in rows for w in row), 1)
        height = len(rows) if self.layout == ROWS else 1
        input_ids = np.full((height, width), PAD_ID, np.int64)
        position_ids = np.zeros((height, width), np.int64)
        targets = np.full((height, width), IGNORE, np.int64)
        sizes: list[int] = []
        begins: list[tuple[int, int]] = []
        place = 0
        for index, (_, row, _) in enumerate(rows):
            line = index if self.layout == ROWS else 0
            place = 0 if self.layout == ROWS else place
            for items in row:
                size = len(items) - 1
                stop = place + size
                input_ids[line, place:stop] = items[:-1]
                position_ids[line, place:stop] = np.arange(size)
                begin = size - 1 if self.last_only else 0
                targets[line, place + begin : stop] = items[1 + begin :]
                sizes.append(size)
                begins.append((line, place))
                place = stop
        shift_labels = torch.from_numpy(targets)
        batch: dict[str, Any] = {
            "input_ids": torch.from_numpy(input_ids),
            "position_ids": torch.from_numpy(position_ids),
            "shift_labels": shift_labels,
            "labels": shift_labels,
        }
        if self.layout == FLAT:
            bounds = torch.tensor(np.concatenate([[0], np.cumsum(sizes or [1])]), dtype=torch.int32)
            longest = max(sizes, default=1)
            batch.update(cu_seq_lens_q=bounds, cu_seq_lens_k=bounds, max_length_q=longest, max_length_k=longest)
        if self.negatives is not None:
            batch.update(self.negatives.draw([windows for windows, _, _ in rows]))
        if self.past_inputs is not None:
            lines, places = np.array(begins, np.int64).reshape(-1, 2).T
            pasts = [past for _, _, of_row in rows for past in of_row]
            batch.update(self.past_inputs(np.array(sizes), pasts, lines, places, (height, width)))
        return batch
