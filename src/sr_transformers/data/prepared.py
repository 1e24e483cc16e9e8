"""A prepared log on disk, and how it is read: memory-mapped Arrow, so that memory does not grow with the log.

A prepared folder holds
    manifest.json     what was read, what was left out, the split and what it leaks, versions, the fingerprints of
                      the items in the order of their tokens and of the interactions that were kept, the named protocol
                      and what it asks of evaluation, size and digest of every other file
    histories.arrow   a row per user: user_id, item_ids (tokens, all interactions in time order), timestamps,
                      train_length (the first so many are training data), and domains where the log has them
                      (places in the manifest's list of names); in several shards
                      histories-00000-of-0000N.arrow if asked for
    lengths.arrow     a row per user, if there are several shards: length, train_length
    unknown.arrow     a row per interaction outside the vocabulary: history, position, item_id
    validation.arrow  a row per target: history (row of the user), position (of the target in the history)
    test.arrow        likewise
    items.parquet     a row per token from 2 on: item_id, train_count
    tokenizer/        the item vocabulary for AutoTokenizer, with the training counts
    README.md         a card, by which `datasets.load_dataset` finds the three tables; may be changed or missing
"""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sr_transformers.columns import ITEM
from sr_transformers.data.examples import EvalDataset, TrainDataset
from sr_transformers.data.manifest import MANIFEST, Files, check_contents, check_sizes, read_manifest
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.lsrm.identity_lsrm import items_fingerprint, tokenizer_fingerprint
from sr_transformers.public import html_table


def shard_name(shard: int, shards: int) -> str:
    """File of some of the histories.

    >>> shard_name(0, 1), shard_name(2, 4)
    ('histories.arrow', 'histories-00002-of-00004.arrow')
    """
    return "histories.arrow" if shards == 1 else f"histories-{shard:05}-of-{shards:05}.arrow"


def open_stream(file: Path) -> datasets.Dataset:
    """The table in a file of a prepared folder, mapped.

    Raises:
        ValueError: if it is no Arrow stream.
    """
    try:
        return datasets.Dataset.from_file(str(file))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged: it cannot be read as an Arrow stream ({' '.join(str(error).split())[:200]}). Prepare "
            "the log again; `sr-transformers data verify` looks at all files of the folder."
        ) from error


class FlatColumn:
    """A list column of an Arrow table as numpy views of the mapped file: no row is ever copied whole."""

    def __init__(self, column: Any):
        self._values, self._starts, ends = [], [], []
        for chunk in column.chunks:
            offsets = chunk.offsets.to_numpy()
            self._values.append(chunk.values.to_numpy(zero_copy_only=True))
            self._starts.append(offsets)
            ends.append(len(chunk))
        self._first_row = np.concatenate([[0], np.cumsum(ends)])

    def slice(self, row: int, start: int, stop: int) -> np.ndarray:
        """Elements `start .. stop - 1` of a row; a view."""
        chunk = 0 if len(self._values) == 1 else int(np.searchsorted(self._first_row, row, side="right")) - 1
        base = int(self._starts[chunk][row - self._first_row[chunk]])
        return self._values[chunk][base + start : base + stop]

    def lengths(self) -> np.ndarray:
        """`(rows,)` int64."""
        parts = [np.diff(offsets) for offsets in self._starts]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


class PreparedData:
    """A prepared folder, opened for reading.

    Attributes:
        path: the folder.
        manifest: content of manifest.json, less what it says of files.
        lengths: `(U,)` int64, interactions of every history, held-out ones included.
        train_lengths: `(U,)` int64, interactions of every history that may be trained on.
        files: by name what the manifest says of each file, `bytes` and `xxh128`.
        shard_bounds: `(shards + 1,)` int64, first history of every shard, and U.

    Raises:
        FileNotFoundError: if the folder is not a prepared one.
        ValueError: if its manifest was changed, or a file is missing, of another size than when it was made, no regular
            file, or no Arrow stream.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.manifest, self.files = read_manifest(self.path)
        check_sizes(self.path, self._files_here())
        self._targets: dict[str, pa.Table] = {}
        bounds = self.manifest.get("shard_bounds")
        self._open_histories()
        self.shard_bounds = np.array(bounds if bounds is not None else [0, len(self.lengths)], np.int64)

    def _open_histories(self) -> None:
        """Opens the histories and sets `lengths` and `train_lengths`."""
        shards = self.manifest.get("shards", 1)
        self.histories = datasets.concatenate_datasets(
            [open_stream(self.path / shard_name(shard, shards)) for shard in range(shards)]
        )
        table = self.histories.data.table
        self._items = FlatColumn(table["item_ids"])
        self._timestamps = FlatColumn(table["timestamps"])
        self._domains = FlatColumn(table["domains"]) if "domains" in table.column_names else None
        self.lengths = self._items.lengths()
        self.train_lengths = table["train_length"].to_numpy().astype(np.int64)

    def _files_here(self) -> Files:
        """Those of `files` that must lie in the folder."""
        return self.files

    def verified(self) -> Self:
        """This, after comparing the contents of the files with the digests in the manifest.

        To be asked by whoever reads a whole set, before that. It costs one reading of the files; asked again, nothing.

        Raises:
            ValueError: naming all files that are not what was made.
        """
        check_contents(self.path, self._files_here())
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, which names the digest of what it was made of."""
        return hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        counts = self.manifest["counts"]
        return (
            f"{type(self).__name__}({str(self.path)!r}: {counts['users']:,} users, {counts['items']:,} items, "
            f"{counts['interactions']:,} interactions, split {self.manifest['split']})"
        )

    def _repr_html_(self) -> str:
        targets = ((f"{split} targets", f"{self.num_targets(split):,}") for split in ("validation", "test"))
        counts = self.manifest["counts"]
        rows = [(name, f"{counts[name]:,}") for name in ("users", "items", "interactions")]
        return html_table(
            [*rows, ("training interactions", f"{self.num_train_interactions:,}"), *targets,
             ("split", self.manifest["split"])], ("prepared log", self.path)
        )  # fmt: skip

    def items(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        """Tokens `start .. stop - 1` of a history, int32, oldest first; a view of the file."""
        return self._items.slice(history, start, stop)

    def train_items(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        """Tokens `start .. stop - 1` of the part of a history that may be trained on (here: its beginning)."""
        return self.items(history, stop, start)

    def train_times(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        """Moments of `train_items`, as `timestamps`."""
        return self.timestamps(history, stop, start)

    def timestamps(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        """Moments of the interactions `start .. stop - 1` of a history, int64 in the log's unit of time; a view."""
        return self._timestamps.slice(history, start, stop)

    def domains(self, history: int, stop: int, start: int = 0) -> np.ndarray:
        """Domains of the interactions `start .. stop - 1` of a history, int16 places in `domain_names`; a view.

        Raises:
            ValueError: if the log has no domains.
        """
        if getattr(self, "_domains", None) is None:
            raise ValueError(
                f"{self.path} has no domains; prepare its log with a domain column (`--domain-column NAME`)."
            )
        return self._domains.slice(history, start, stop)  # type: ignore[union-attr]

    def raw_items(self, history: int, stop: int) -> list[str] | list[int]:
        """Raw ids of the first `stop` interactions of a history, also of items outside the vocabulary."""
        tokens = self.items(history, stop)
        found = self._ids[np.maximum(tokens - NUM_SPECIAL, 0)]
        whose, position, ids = self._outside
        first = np.searchsorted(whose, history)
        outside = slice(first, first + np.count_nonzero(tokens < NUM_SPECIAL))
        found[position[outside]] = ids[outside]
        return found.tolist()

    @cached_property
    def _ids(self) -> np.ndarray:
        return self.item_ids.to_numpy(zero_copy_only=False)

    @cached_property
    def _outside(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every interaction outside the vocabulary, in their order: history, position and raw id."""
        table = open_stream(self.path / "unknown.arrow").data.table
        history, position, ids = (table[name].to_numpy() for name in ("history", "position", ITEM))
        return history, position, ids

    @property
    def domain_names(self) -> list[str] | None:
        """Names of the domains in sorted order; None if the log has none."""
        return self.manifest.get("domains")

    @property
    def unseen_users(self) -> np.ndarray:
        """`(U',)` int64, histories without any training interaction: the cold-start pool.

        In the paper's split the users that were drawn for it, in a temporal split those who come later, in
        leave-one-out nobody.
        """
        return np.flatnonzero(self.train_lengths == 0)

    def targets(self, split: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """`(M, 2)` int64 rows (history, position of the target) of `"validation"` or `"test"`, or some of them."""
        table = self._target_table(split).slice(start, None if stop is None else stop - start)
        return np.stack([table["history"].to_numpy(), table["position"].to_numpy()], axis=1).astype(np.int64)

    def num_targets(self, split: str) -> int:
        """M, the number of targets of `"validation"` or `"test"`."""
        return len(self._target_table(split))

    def train_dataset(self, window: int | None = None) -> TrainDataset:
        """The training part as a data set for a Trainer, see `TrainDataset`.

        Args:
            window: most items of an example: the model's `max_position_embeddings`. None: whole histories; for
                `LSRMTrainer`, which cuts windows anew in every epoch, those of the model.
        """
        return TrainDataset(self, window)

    def eval_dataset(self, split: str, window: int | None = None) -> EvalDataset:
        """The held-out targets of "validation" or "test" as a data set for a Trainer, see `EvalDataset`."""
        return EvalDataset(self, split, window)

    def _target_table(self, split: str) -> pa.Table:
        if split not in ("validation", "test"):
            raise ValueError(f"split {split!r} has no targets; choose validation or test.")
        if split not in self._targets:
            self._targets[split] = open_stream(self.path / f"{split}.arrow").data.table
        return self._targets[split]

    @property
    def vocab_size(self) -> int:
        """V: items and special tokens."""
        return int(self.manifest["counts"]["items_in_vocabulary"]) + NUM_SPECIAL

    @property
    def num_train_interactions(self) -> int:
        """D: distinct training interactions."""
        return int(self.train_lengths.sum())

    @property
    def has_repeats(self) -> bool:
        """Whether users come back to items in this log (more than 1 % of the interactions repeat an earlier one)."""
        return float(self.manifest["counts"]["repeat_share"]) > 0.01

    def filters_seen(self, choice: bool | None = None) -> bool:
        """Whether rankings leave a user's own items out: as the named protocol of the folder has it; without one as
        chosen, or, for None, unless this log has repeats.

        Raises:
            ValueError: for a choice that contradicts the protocol, naming both.
        """
        fixed = self.evaluation.get("filter_seen")
        if fixed is None:
            return not self.has_repeats if choice is None else choice
        if choice not in (None, fixed):
            ways = {True: "leaves seen items out of the ranking", False: "keeps seen items in the ranking"}
            raise ValueError(
                f"{self.path} was prepared by protocol {self.manifest['protocol']}, which {ways[fixed]}, and "
                f"filter_seen {choice} was asked for (--seen, the training's filter_seen, or what a model was trained "
                "with). Leave that out, or prepare the log without --protocol."
            )
        return bool(fixed)

    @property
    def evaluation(self) -> dict[str, Any]:
        """What the named protocol of the folder asks of evaluation: `filter_seen`, `ks` and `target`; else nothing."""
        return dict(self.manifest.get("evaluation", {}))

    @property
    def items_fingerprint(self) -> str:
        """SHA-256 of the ids in the order of their tokens: whose tokens the histories hold (`identity_lsrm`)."""
        return str(self.manifest["items_fingerprint"])

    @cached_property
    def _item_table(self) -> pa.Table:
        table = pq.read_table(self.path / "items.parquet", columns=["item_id", "train_count"])
        self._check_items(items_fingerprint(table["item_id"].to_pylist()), "items.parquet")
        return table

    def _check_items(self, found: str, name: str) -> None:
        if found != self.manifest["items_fingerprint"]:
            raise ValueError(
                f"{self.path / name} does not hold the items that the histories were written with, in their order "
                f"({MANIFEST} has their fingerprint): every token would mean another item. Prepare the log again."
            )

    @cached_property
    def item_counts(self) -> np.ndarray:
        """`(V,)` int64, training interactions of every token; 0 for the special ones."""
        counts = self._item_table["train_count"].to_numpy()
        return np.concatenate([np.zeros(NUM_SPECIAL, np.int64), counts.astype(np.int64)])

    @cached_property
    def item_ids(self) -> pa.Array:
        """`(V - 2,)` raw ids of the items, from token 2 on."""
        return self._item_table["item_id"].combine_chunks()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The item vocabulary.

        Raises:
            ValueError: here and for `item_ids` and `item_counts`, if the file holds other items than the histories, or
                the same in another order.
        """
        tokenizer = AutoTokenizer.from_pretrained(self.path / "tokenizer")
        self._check_items(tokenizer_fingerprint(tokenizer), "tokenizer")
        return tokenizer
