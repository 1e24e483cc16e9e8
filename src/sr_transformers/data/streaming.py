"""Training on a prepared set that does not fit the disk: its shards are fetched one after the other, and let go.

The small parts of a prepared folder (manifest, lengths, targets, vocabulary) lie on this machine; its shards of
histories may lie anywhere that fsspec reads (`hf://datasets/...`, `s3://...`, `https://...`). An epoch goes through the
shards in an order drawn anew, and through the windows of a shard in an order drawn anew (`packing.EpochPlan`). The
plan is the same for a set whose shards are all at hand, so both ways train on the same batches and give the same loss,
on any number of processes. Processes of one machine share the fetched shards.
"""

import fcntl
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch.utils.data

from sr_transformers.data.batches import EpochBatchSampler, PackingCollator, WindowDataset
from sr_transformers.data.manifest import Files, check_contents
from sr_transformers.data.prepared import FlatColumn, PreparedData, open_stream, shard_name


class StreamedData(PreparedData):
    """A prepared folder whose shards are fetched when they are needed. Used like `PreparedData`.

    Args:
        path: the prepared folder without its `histories-*.arrow`.
        shards_at: folder or address under which these lie.
        cache: where fetched shards go; None: `path`/shards.
        keep: how many stay there at most (an epoch needs one at a time, evaluation up to two).

    Raises:
        FileNotFoundError: if the folder is not a prepared one.
        ValueError: if it was prepared in one piece, or for `keep` below 1.
    """

    def __init__(self, path: str | Path, shards_at: str, cache: str | Path | None = None, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep is {keep}; one shard at least must stay, the one that is read.")
        self.shards_at, self.keep = shards_at.rstrip("/"), keep
        self.cache = Path(cache) if cache is not None else Path(path) / "shards"
        self._open: OrderedDict[int, dict[str, FlatColumn]] = OrderedDict()
        super().__init__(path)

    def _open_histories(self) -> None:
        if "lengths.arrow" not in self.files:
            raise ValueError(f"{self.path} was prepared in one piece; prepare it with shards=N to stream it.")
        table = open_stream(self.path / "lengths.arrow").data.table
        self.lengths = table["length"].to_numpy().astype(np.int64)
        self.train_lengths = table["train_length"].to_numpy().astype(np.int64)

    @property
    def histories(self) -> Any:  # type: ignore[override]
        """Refused: they are not all here.

        Raises:
            ValueError: with what to use instead.
        """
        raise ValueError(
            f"{self.path} is streamed, so its histories are not all here: for this open a whole folder (PreparedData)."
        )

    def _files_here(self) -> Files:
        return {name: said for name, said in self.files.items() if not name.startswith("histories-")}

    def _column(self, name: str, history: int, stop: int, start: int) -> np.ndarray:
        shard = int(np.searchsorted(self.shard_bounds, history, side="right")) - 1
        return self._shard(shard)[name].slice(history - int(self.shard_bounds[shard]), start, stop)

    def items(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        return self._column("item_ids", history, stop, start)

    def timestamps(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        return self._column("timestamps", history, stop, start)

    def domains(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        if self.domain_names is None:
            return super().domains(history, stop, start)
        return self._column("domains", history, stop, start)

    def _shard(self, shard: int) -> dict[str, FlatColumn]:
        """Columns of a shard, fetched if they are not open; the one that was not used for longest is let go."""
        if shard not in self._open:
            table = open_stream(self._fetch(shard)).data.table
            names = [name for name in ("item_ids", "timestamps", "domains") if name in table.column_names]
            self._open[shard] = {name: FlatColumn(table[name]) for name in names}
            while len(self._open) > self.keep:
                gone, _ = self._open.popitem(last=False)
                (self.cache / shard_name(gone, self._num_shards)).unlink(missing_ok=True)
        self._open.move_to_end(shard)
        return self._open[shard]

    @property
    def _num_shards(self) -> int:
        return len(self.shard_bounds) - 1

    def _fetch(self, shard: int) -> Path:
        """A shard's file in the cache. Processes that want the same one wait for the first."""
        name = shard_name(shard, self._num_shards)
        self.cache.mkdir(parents=True, exist_ok=True)
        target = self.cache / name
        with open(self.cache / f".{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if target.exists():
                try:
                    check_contents(self.cache, {name: self.files[name]})
                    return target
                except ValueError:
                    target.unlink()  # of a folder that was prepared anew, or cut: what lies at the source decides
            try:
                with fsspec.open(f"{self.shards_at}/{name}") as source, open(self.cache / f".{name}", "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 22)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{self.shards_at}/{name}: there is no such shard.") from error
            os.replace(self.cache / f".{name}", target)
            try:
                check_contents(self.cache, {name: self.files[name]})
            except ValueError as error:
                target.unlink()
                raise ValueError(f"the shard that lies at {self.shards_at} is another: {error}") from error
        return target


class WindowStream(torch.utils.data.IterableDataset):
    """The batches of one process as an iterable, for loops other than the Trainer's.

    Give it to a `DataLoader` with `batch_size=None`. Its workers take turns, so the order stays that of the sampler.

    Args:
        data: prepared or streamed.
        sampler: which windows form which batch of this process.
        collator: lays them out.
    """

    def __init__(self, data: PreparedData, sampler: EpochBatchSampler, collator: PackingCollator):
        self.windows = WindowDataset(data, sampler.num_rows, collator.past_inputs)
        self.sampler, self.collator = sampler, collator
        # Persistent workers keep copies of all else. -1: nothing was set, the sampler's is meant.
        self._epoch = torch.full((1,), -1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Makes the plan of an epoch."""
        self._epoch.fill_(epoch)
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        if worker is not None and self._epoch >= 0:
            self.sampler.set_epoch(int(self._epoch))
        for number, rows in enumerate(self.sampler):
            if number % step == first:
                yield self.collator([self.windows[row] for row in rows])
