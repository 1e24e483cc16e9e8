"""New days for a prepared set: what preparing the whole log would give, without redoing the old rows.

Old rows are neither parsed nor sorted again; users' histories are merged with their new rows, ties old before new.
Known items keep their tokens; items that are new to the training data get the tokens after them, by falling training
count. The one difference: an item that is no longer training data (a user of two interactions trains on both, of three
on one) keeps its token, with a training count of 0; preparing the whole would leave it outside the vocabulary.
"""

import concurrent.futures
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sr_transformers.data import splits
from sr_transformers.data.cuts import blocks
from sr_transformers.data.logs import cleaning, sources
from sr_transformers.data.logs.cleaning import CleanLog, Filters
from sr_transformers.data.logs.duckdb_engine import DuckDBEngine
from sr_transformers.data.logs.lists import unrolled
from sr_transformers.data.prepare import sorted_on_disk, versions, write
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.reopen import reopen
from sr_transformers.data.staging import check_output, staged
from sr_transformers.data.writing import Rows, spool


def append(
    folder: str | Path | PreparedData,
    source: sources.Source,
    output: str | Path,
    names: Sequence[str] | None = None,
    separator: str | None = None,
) -> PreparedData:
    """Adds a log to a prepared set, with the set's own columns, filters and split.

    The split is made anew over the whole: what was held out becomes training data as users go on.

    Args:
        folder: the prepared set; it stays as it is.
        source: the new rows, as for `prepare`; ids, times and domains of the same kind.
        output: folder to make.
        names, separator: of CSV files, see `sources.find_log`.

    Returns:
        The new folder, opened; its manifest holds the source and digest of the one before under `appended_to`.

    Raises:
        FileExistsError: if `output` has something in it.
        ValueError: for a set with a k-core or a policy on repeats (rows that were left out could come back, and they
            are gone), for ids, times or domains of another kind, or as `prepare`.
    """
    output = Path(output)
    check_output(output)
    old = (folder if isinstance(folder, PreparedData) else PreparedData(folder)).verified()
    before = old.manifest
    filters = Filters(**before["filters"], min_interactions=before["min_interactions"])
    if max(filters.core) > 1 or filters.repeats != cleaning.KEEP:
        cores = " and ".join(map(str, dict.fromkeys(filters.core)))
        raise ValueError(
            f"{old.path} has min_interactions {cores} and repeats {filters.repeats!r}: rows that "
            "were left out could come back with the new ones, and they are gone. Prepare the whole log."
        )
    log = sources.find_log(source, names, separator)
    columns = {**dict(log.columns), **before["columns"]}
    options = splits.Options(before["split"], **before.get("split_parameters", {}))
    times = before["times"]
    with staged(output) as staging, concurrent.futures.ThreadPoolExecutor(1) as background:
        description = background.submit(sources.describe, log)
        work = Path(tempfile.mkdtemp(prefix=".work-", dir=staging))
        parts = [work / part for part in ("new", "old", "merged")]
        for part in parts:
            part.mkdir()
        engine = DuckDBEngine(parts[0])
        try:
            rating = filters.min_rating is not None
            engine.load(unrolled(log, columns, rating, parts[0]), columns, rating)
            sound = cleaning.clean_log(
                engine, log.name, filters, times["unit_given"], times["millionths"], before["counts"]["last"]
            )
            new_users, new_rows = sorted_on_disk(engine, sound, parts[0])
        finally:
            engine.close()
        old_rows, old_items = reopen(old, parts[1])
        _check_kinds(old, old_items, sound, log.name)
        user_ids = _sorted_union(_users(old), new_users)
        item_ids = pa.concat_arrays([old.item_ids, _others(old, old_items, sound)])
        domain_ids = _all_domains(old, sound)
        rows = _merge(
            user_ids,
            (_users(old), _recoded(old_rows, old_items, item_ids, _domain_ids(old), domain_ids)),
            (new_users, _recoded(new_rows, sound.item_ids, item_ids, _new_domain_ids(sound), domain_ids)),
            parts[2],
        )
        manifest: dict[str, Any] = {
            **{key: before[key] for key in ("columns", "min_interactions", "filters", "times")},
            **{key: before[key] for key in ("protocol", "evaluation") if key in before},
            "source": description.result(),
            "appended_to": {
                "manifest_sha256": old.digest,
                **{key: before[key] for key in ("source", "appended_to") if key in before},
            },
            "versions": versions(engine),
        }
        read = {key: value + before["counts"].get(key, 0) for key, value in sound.counts.items()}
        known, shards = len(old.item_ids), before.get("shards", 1)
        domains = None if domain_ids is None else domain_ids.to_pylist()
        write(staging, log.name, rows, options, user_ids, item_ids, known, domains, read, shards, manifest)
        shutil.rmtree(work)
    return PreparedData(output)


def _check_kinds(old: PreparedData, old_items: pa.Array, sound: CleanLog, name: str) -> None:
    """Refuses new rows that do not mean what the old ones do."""
    times = old.manifest["times"]
    for what, before, now in (
        ("user_id", _users(old).type, sound.user_ids.type),
        ("item_id", old_items.type, sound.item_ids.type),
        ("unit of time", times["unit"], sound.unit),
        ("fractions of time", times["millionths"], sound.millionths),
        ("domain", old.domain_names is not None, sound.domain_ids is not None),
    ):
        if before != now:
            raise ValueError(f"{name}: {what} is {now} here and {before} in {old.path}; write both the same way.")


def _users(data: PreparedData) -> pa.Array:
    return data.histories.data.table["user_id"].combine_chunks()


def _sorted_union(first: pa.Array, second: pa.Array) -> pa.Array:
    return pa.concat_arrays([first, second]).unique().sort()


def _others(old: PreparedData, old_items: pa.Array, sound: CleanLog) -> pa.Array:
    """Items without a token, sorted, from both logs."""
    everything = _sorted_union(old_items, sound.item_ids)
    return everything.filter(pc.invert(pc.is_in(everything, old.item_ids)))


def _domain_ids(old: PreparedData) -> pa.Array | None:
    """The old domains by code, as text: so a folder keeps them, and `01` is not `1`."""
    return None if old.domain_names is None else pa.array(old.domain_names, pa.string())


def _all_domains(old: PreparedData, sound: CleanLog) -> pa.Array | None:
    before = _domain_ids(old)
    return None if before is None else _sorted_union(before, _new_domain_ids(sound))


def _new_domain_ids(sound: CleanLog) -> pa.Array | None:
    return None if sound.domain_ids is None else sound.domain_ids.cast(pa.string())


def _recoded(
    rows: Rows, items: pa.Array, all_items: pa.Array, domains: pa.Array | None, all_domains: pa.Array | None
) -> tuple[Rows, np.ndarray, np.ndarray | None]:
    """Rows with the arrays that translate their codes."""
    new_domains = None if domains is None else pc.index_in(domains, all_domains).to_numpy().astype(np.int16)
    return rows, pc.index_in(items, all_items).to_numpy().astype(np.int32), new_domains


Part = tuple[pa.Array, tuple[Rows, np.ndarray, np.ndarray | None]]


def _merge(user_ids: pa.Array, old: Part, new: Part, folder: Path) -> Rows:
    """Both rows by user and time, ties old before new, on disk.

    Args:
        user_ids: all users, sorted.
        old, new: their users, sorted, and what `_recoded` gives.
    """
    parts = []
    lengths = np.zeros(len(user_ids), np.int64)
    for users, (rows, items, domains) in (old, new):
        own = np.zeros(len(user_ids), np.int64)
        own[pc.index_in(users, user_ids).to_numpy()] = rows.lengths
        lengths += own
        parts.append((rows, items, domains, own, np.concatenate([[0], np.cumsum(own)])))

    def batches() -> Iterator[pa.RecordBatch]:
        for first, last, _, _ in blocks(lengths):
            found: dict[str, list[np.ndarray]] = {"item_code": [], "timestamp": [], "domain_code": []}
            owners = []
            for rows, items, domains, own, starts in parts:
                rows_here = slice(starts[first], starts[last])
                owners.append(np.repeat(np.arange(first, last), own[first:last]))
                found["item_code"].append(items[rows.items[rows_here]])
                found["timestamp"].append(rows.timestamps[rows_here])
                if domains is not None and rows.domains is not None:
                    found["domain_code"].append(domains[rows.domains[rows_here]])
            merged = {name: np.concatenate(pieces) for name, pieces in found.items() if pieces}
            if len(owners[1]):  # else the old rows are in order as they are
                order = np.lexsort((merged["timestamp"], np.concatenate(owners)))
                merged = {name: values[order] for name, values in merged.items()}
            yield pa.record_batch({name: pa.array(values) for name, values in merged.items()})

    return spool(batches(), lengths, folder)
