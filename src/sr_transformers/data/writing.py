"""From sorted rows to the files of a prepared folder (`prepared.py` describes them), a block of users at a time."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from sr_transformers.columns import ITEM, TIMESTAMP, USER
from sr_transformers.data.cuts import blocks
from sr_transformers.data.prepared import shard_name
from sr_transformers.data.splits import Split
from sr_transformers.data.vocabulary import NUM_SPECIAL, UNK_ID, build_tokenizer
from sr_transformers.lsrm.identity_lsrm import items_fingerprint

_HASHED = 1 << 22  # rows at a time
_TYPES = {"item_code": np.int32, TIMESTAMP: np.int64, "domain_code": np.int16}


@dataclass
class Rows:
    """All interactions by user and time, on disk.

    Attributes:
        lengths: `(U,)` int64, rows of every user.
        items: `(rows,)` int32 codes of items, mapped.
        timestamps: `(rows,)` int64, mapped.
        domains: `(rows,)` int16, mapped; None without domains.
    """

    lengths: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    domains: np.ndarray | None


def spool(batches: Iterator[pa.RecordBatch], lengths: np.ndarray, folder: Path) -> Rows:
    """Writes sorted rows to flat files and maps them.

    Args:
        batches: columns item_code, timestamp and perhaps domain_code.
        lengths: `(U,)`, rows of every user.
        folder: where the files go; the caller removes it.
    """
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / name, "wb")) for name in _TYPES}
        for batch in batches:
            for name in batch.schema.names:
                files[name].write(np.ascontiguousarray(batch.column(name).to_numpy(), dtype=_TYPES[name]).data)
    mapped = {
        name: np.memmap(folder / name, kind, "r") for name, kind in _TYPES.items() if (folder / name).stat().st_size
    }
    return Rows(lengths, mapped["item_code"], mapped[TIMESTAMP], mapped.get("domain_code"))


@dataclass
class Vocabulary:
    """Which item is which token.

    Attributes:
        order: `(V - 2,)` int64 codes of items in the order of their tokens.
        counts: `(V - 2,)` int64, training interactions, in that order.
        tokens: `(codes,)` int32, token of every code; 1 for items outside.
        num_items: items that occur at all, in training data or held out.
    """

    order: np.ndarray
    counts: np.ndarray
    tokens: np.ndarray
    num_items: int


def learn_vocabulary(rows: Rows, train_length: np.ndarray, num_codes: int, known: int = 0) -> Vocabulary:
    """Items of the training data by falling count, ties by code (codes rise with ids).

    Args:
        train_length: `(U,)`, the first so many rows of each user are training data.
        num_codes: all codes are below it.
        known: the first so many codes are the items of an older vocabulary, which keep their tokens and places.
    """
    counts, everywhere = np.zeros(num_codes, np.int64), np.zeros(num_codes, np.int64)
    for first, last, start, stop in blocks(rows.lengths):
        items, lengths, train = rows.items[start:stop], rows.lengths[first:last], train_length[first:last]
        everywhere += np.bincount(items, minlength=num_codes)
        held_out = lengths - train  # few, as a rule
        place = np.repeat(np.cumsum(lengths) - held_out, held_out) + places(held_out)
        counts -= np.bincount(items[place], minlength=num_codes)
    counts += everywhere
    new = np.arange(known, num_codes)[counts[known:] > 0]
    new = new[np.lexsort((new, -counts[new]))]
    order = np.concatenate([np.arange(known), new])
    tokens = np.full(num_codes, UNK_ID, np.int32)
    tokens[order] = np.arange(len(order)) + NUM_SPECIAL
    return Vocabulary(order, counts[order], tokens, int(np.count_nonzero(everywhere)))


def places(lengths: np.ndarray) -> np.ndarray:
    """`(sum of lengths,)` int64: 0, 1, ... within every user."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def count_rows(rows: Rows) -> dict[str, Any]:
    """Sizes, shares of repeats and ties, and rows that repeat user, item and time."""
    repeated = tied = duplicate = 0
    num_items = int(rows.items.max()) + 1
    for first, last, start, stop in blocks(rows.lengths, 1 << 20):  # small: sorted in the processor's cache
        lengths, items, times = rows.lengths[first:last], rows.items[start:stop], rows.timestamps[start:stop]
        small = (last - first) * num_items < 2**31  # half the bytes sort in half the time
        keys: np.ndarray = np.repeat(
            np.arange(last - first, dtype=np.int32 if small else np.int64) * num_items, lengths
        )
        keys += items
        repeated += _equal_pairs(keys)
        ties = times[1:] == times[:-1]
        ties[np.cumsum(lengths)[:-1] - 1] = False  # the next row is another user's
        if not ties.any():
            continue
        tied += int(ties.sum())
        run = np.cumsum(np.concatenate([[True], ~ties]))
        among = np.concatenate([[False], ties]) | np.concatenate([ties, [False]])
        duplicate += _equal_pairs(run[among] * num_items + items[among])
    total = len(rows.items)
    return {
        "users": len(rows.lengths),
        "interactions": total,
        "mean_length": total / len(rows.lengths),
        "max_length": int(rows.lengths.max()),
        "repeat_share": repeated / total,
        "tied_share": tied / total,
        "duplicate_rows": duplicate,
        "first": int(rows.timestamps.min()),
        "last": int(rows.timestamps.max()),
    }


def _equal_pairs(keys: np.ndarray) -> int:
    """How many keys occurred before."""
    keys.sort()
    return int((keys[1:] == keys[:-1]).sum())


def write_histories(
    folder: Path,
    rows: Rows,
    split: Split,
    vocabulary: Vocabulary,
    user_ids: pa.Array,
    item_ids: pa.Array,
    shards: int,
) -> dict[str, Any]:
    """Writes all files of a prepared folder but its manifest.

    Args:
        user_ids: `(U,)` raw ids.
        item_ids: `(codes,)` raw ids.
        shards: number of files that share the histories.

    Returns:
        What the manifest is to say: `counts`, `items_fingerprint`, `interactions_fingerprint` and, of several shards,
        `shards` and `shard_bounds`.
    """
    found: dict[str, Any] = {}
    starts = np.cumsum(rows.lengths) - rows.lengths
    bounds = [0, len(rows.lengths)]
    if shards > 1:  # about equally many rows in each
        cuts = np.searchsorted(np.cumsum(rows.lengths), np.arange(1, shards) * len(rows.items) / shards)
        bounds = [0, *cuts.tolist(), len(rows.lengths)]
        found.update(shards=shards, shard_bounds=bounds)
        lengths = {"length": pa.array(rows.lengths), "train_length": pa.array(split.train_length.astype(np.int32))}
        write_stream([pa.table(lengths)], pa.table(lengths).schema, folder / "lengths.arrow")
    unknown = _write_histories(folder, rows, split.train_length, vocabulary.tokens, user_ids, item_ids, bounds)
    counts = {"interactions_outside_vocabulary": unknown}
    for part, targets in (("validation", split.validation), ("test", split.test)):
        table = pa.table({"history": pa.array(targets[:, 0]), "position": pa.array(targets[:, 1].astype(np.int32))})
        write_stream([table], table.schema, folder / f"{part}.arrow")
        place = starts[targets[:, 0]] + targets[:, 1]
        counts[f"{part}_targets"] = len(targets)
        counts[f"{part}_targets_outside_vocabulary"] = int((vocabulary.tokens[rows.items[place]] == UNK_ID).sum())
    tied = rows.timestamps[place] == rows.timestamps[place - 1]
    counts["test_targets_tied_with_predecessor"] = int(tied.sum())
    items = pa.table({ITEM: item_ids.take(pa.array(vocabulary.order)), "train_count": pa.array(vocabulary.counts)})
    pq.write_table(items, folder / "items.parquet", compression="zstd")
    ids = items[ITEM].to_pylist()
    build_tokenizer(ids, vocabulary.counts).save_pretrained(folder / "tokenizer")
    found |= {
        "items_fingerprint": items_fingerprint(ids),
        "interactions_fingerprint": interactions_fingerprint(rows, vocabulary.tokens),
    }
    return {**found, "counts": {**counts, **split.notes}}


def interactions_fingerprint(rows: Rows, tokens: np.ndarray) -> str:
    """What was kept of a log and in which order: XXH3 (128 bits) of the lengths, tokens and times of all histories.

    With the fingerprint of the items it says which log this is, whatever the file was called, and how ties were
    ordered.

    Args:
        tokens: `(codes,)` int32, token of every code.
    """
    parts = [xxhash.xxh3_128(np.ascontiguousarray(rows.lengths, np.int64).data), xxhash.xxh3_128(), xxhash.xxh3_128()]
    for start in range(0, len(rows.items), _HASHED):
        block = slice(start, start + _HASHED)
        parts[1].update(np.ascontiguousarray(tokens[rows.items[block]], np.int32).data)
        parts[2].update(np.ascontiguousarray(rows.timestamps[block], np.int64).data)
    return xxhash.xxh3_128(b"".join(part.digest() for part in parts)).hexdigest()


def _write_histories(
    folder: Path,
    rows: Rows,
    train_length: np.ndarray,
    tokens: np.ndarray,
    user_ids: pa.Array,
    item_ids: pa.Array,
    bounds: list[int],
) -> int:
    """Writes histories and unknown.arrow; returns the number of interactions outside the vocabulary."""
    long = len(rows.items) >= 2**31
    lists, offset_type = (pa.LargeListArray, np.int64) if long else (pa.ListArray, np.int32)
    unknown_schema = pa.schema([("history", pa.int64()), ("position", pa.int32()), (ITEM, item_ids.type)])
    num_unknown = 0

    def unknown_of(first: int, last: int, start: int, stop: int) -> pa.Table:
        outside = np.flatnonzero(tokens[rows.items[start:stop]] == UNK_ID)
        ends = np.cumsum(rows.lengths[first:last])
        user = np.searchsorted(ends, outside, side="right")
        position = (outside - (ends - rows.lengths[first:last])[user]).astype(np.int32)
        codes = pa.array(rows.items[start:stop][outside])
        return pa.table([pa.array(user + first), pa.array(position), item_ids.take(codes)], schema=unknown_schema)

    def block(first: int, last: int, start: int, stop: int) -> pa.Table:
        lengths = rows.lengths[first:last]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(offset_type))
        columns = {
            USER: user_ids.slice(first, last - first),
            "item_ids": lists.from_arrays(offsets, pa.array(tokens[rows.items[start:stop]])),
            "timestamps": lists.from_arrays(offsets, pa.array(rows.timestamps[start:stop])),
            "train_length": pa.array(train_length[first:last].astype(np.int32)),
        }
        if rows.domains is not None:
            columns["domains"] = lists.from_arrays(offsets, pa.array(rows.domains[start:stop]))
        return pa.table(columns)

    schema = block(0, 0, 0, 0).schema
    shards = len(bounds) - 1
    with pa.OSFile(str(folder / "unknown.arrow"), "wb") as sink, pa.ipc.new_stream(sink, unknown_schema) as writer:
        for shard in range(shards):
            first_user, last_user = bounds[shard], bounds[shard + 1]
            first_row = int(rows.lengths[:first_user].sum())

            def of_shard(first_user=first_user, last_user=last_user, first_row=first_row):  # type: ignore[no-untyped-def]
                nonlocal num_unknown
                for first, last, start, stop in blocks(rows.lengths[first_user:last_user]):
                    place = (first + first_user, last + first_user, start + first_row, stop + first_row)
                    outside = unknown_of(*place)
                    num_unknown += len(outside)
                    writer.write_table(outside)
                    yield block(*place)

            write_stream(of_shard(), schema, folder / shard_name(shard, shards))
    return num_unknown


def write_stream(tables: Any, schema: pa.Schema, path: Path) -> None:
    """Tables as one Arrow stream file, which `datasets` maps."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)
