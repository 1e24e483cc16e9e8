"""From a raw log to a prepared folder (`prepared.py` describes it): the first step of everything.

Out of core: what grows with the number of interactions lies in the engine (which spills to disk) or in mapped files;
users and items, a few dozen bytes each, are held in memory.
"""

import concurrent.futures
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sr_transformers import __version__
from sr_transformers.data import protocols, splits
from sr_transformers.data.card import write_card
from sr_transformers.data.logs import cleaning, sources
from sr_transformers.data.logs.cleaning import CleanLog, Filters
from sr_transformers.data.logs.duckdb_engine import DuckDBEngine, Engine
from sr_transformers.data.logs.lists import unrolled
from sr_transformers.data.logs.spark_engine import SparkEngine
from sr_transformers.data.manifest import write_manifest
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.staging import check_output, staged
from sr_transformers.data.writing import Rows, count_rows, learn_vocabulary, spool, write_histories

ENGINES = {"duckdb": DuckDBEngine, "spark": SparkEngine}


def prepare(
    source: sources.Source,
    output: str | Path,
    columns: dict[str, str] | None = None,
    split: str | None = None,
    min_interactions: int | None = None,
    validation_from: int | str | None = None,
    test_from: int | str | None = None,
    min_trajectory_length: int | None = None,
    unseen_share: float | None = None,
    split_seed: int | None = None,
    min_rating: float | None = None,
    since: int | str | None = None,
    until: int | str | None = None,
    repeats: str | None = None,
    time_unit: str | None = None,
    names: Sequence[str] | None = None,
    separator: str | None = None,
    shards: int = 1,
    engine: str = "duckdb",
    protocol: str | None = None,
    min_item_interactions: int | None = None,
    validation_share: float | None = None,
    test_share: float | None = None,
    validation_days: int | None = None,
    test_days: int | None = None,
) -> PreparedData:
    """Turns a log into histories, targets and a vocabulary.

    Args:
        source: what `sources.find_log` takes: files, a folder or glob of them, a Hub data set, a frame, a name.
        output: folder to make; it must not exist or be empty.
        columns: the source's column names by ours: user_id, item_id, timestamp, domain, rating.
        split: "leave_one_out" (the default), "temporal", "paper" or "last_basket".
        min_interactions, min_item_interactions, min_rating, since, until, repeats: what to leave out, see
            `cleaning.Filters`; by default nothing.
        validation_from, test_from, validation_share, test_share, validation_days, test_days: where the two periods of
            the temporal split begin, see `cuts.moments`.
        min_trajectory_length, unseen_share, split_seed: of the paper's split; None: 15, 0.2 and 0 (see `splits.paper`).
        time_unit: "s", "ms" or "us", of times that are numbers; only moments in ISO 8601 and days need it.
        names, separator: of CSV files, see `sources.find_log`.
        shards: number of files that share the histories (see `streaming.py`), at most the number of users.
        engine: "duckdb" or "spark"; both give the same.
        protocol: "s3rec", "esasrec" or "lsrm": a paper's filters and split, and what evaluation must do, which the
            folder keeps (see `protocols`); options given beside it must be those of the protocol.

    Returns:
        The folder, opened.

    Raises:
        FileExistsError: if `output` has something in it.
        FileNotFoundError: if there is no such source.
        ValueError: for a log that is not sound, an unknown split, engine, protocol or policy, options of another split
            or that contradict the protocol, a split that leaves no test target, or more shards than users.
        OSError: if the disk is full.
    """
    given = {name: value for name, value in locals().items() if name in protocols.DEFAULTS}
    output = Path(output)
    check_output(output)
    chosen, of_protocol = protocols.resolve(protocol, given)
    chosen["seed"] = chosen.pop("split_seed")
    cut = splits.Options(**{one.name: chosen.pop(one.name) for one in dataclasses.fields(splits.Options)})
    filters = Filters(**chosen)
    chosen["min_item_interactions"] = filters.core[1]
    if time_unit not in (None, "s", "ms", "us"):
        raise ValueError(f"time_unit {time_unit!r} is not known; choose s, ms or us.")
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is not known; choose from {', '.join(ENGINES)}.")
    if shards < 1:
        raise ValueError(f"shards {shards} must be at least 1.")
    log = sources.find_log(source, names, separator)
    columns = {**dict(log.columns), **(columns or {})}
    manifest: dict[str, Any] = {
        "columns": columns,
        "min_interactions": chosen.pop("min_interactions"),
        "filters": chosen,
        **of_protocol,
    }
    with staged(output) as staging, concurrent.futures.ThreadPoolExecutor(1) as background:
        description = background.submit(sources.describe, log)
        work = Path(tempfile.mkdtemp(prefix=".work-", dir=staging))
        running: Engine = ENGINES[engine](work)
        try:
            running.load(unrolled(log, columns, min_rating is not None, work), columns, min_rating is not None)
            sound = cleaning.clean_log(running, log.name, filters, time_unit)
            user_ids, rows = sorted_on_disk(running, sound, work)
        finally:
            running.close()
        times = {"unit_given": time_unit, "unit": sound.unit, "millionths": sound.millionths}
        manifest.update(source=description.result(), times=times, versions=versions(running))
        item_ids = sound.item_ids
        write(staging, log.name, rows, cut, user_ids, item_ids, 0, sound.domains, sound.counts, shards, manifest)
        shutil.rmtree(work)
    return PreparedData(output)


def sorted_on_disk(engine: Engine, sound: CleanLog, folder: Path) -> tuple[pa.Array, Rows]:
    """The raw ids of the users that have rows, sorted, and all rows by user and time."""
    lengths = np.zeros(len(sound.user_ids), np.int64)

    def counted() -> Iterator[pa.RecordBatch]:
        for batch in cleaning.sorted_rows(engine, sound):
            users = batch.column("user_code").to_numpy()
            if len(users):
                lengths[users[0] : users[-1] + 1] += np.bincount(users - users[0])
            yield batch.drop_columns(["user_code"])

    rows = spool(counted(), lengths, folder)
    present = np.flatnonzero(lengths)  # a core leaves some users without any
    rows.lengths = lengths[present]
    return sound.user_ids.take(pa.array(present)), rows


def write(
    folder: Path,
    name: str,
    rows: Rows,
    options: splits.Options,
    user_ids: pa.Array,
    item_ids: pa.Array,
    known: int,
    domains: list[str] | None,
    read: dict[str, int],
    shards: int,
    manifest: dict[str, Any],
) -> None:
    """Splits sorted rows, learns the vocabulary, and writes a prepared folder.

    Args:
        name: of the log, for errors.
        known: the first so many items have tokens already, in this order.
        read: counts of the rows that were read and left out.
        manifest: what is to stand there besides.
    """
    if shards > len(user_ids):
        raise ValueError(
            f"shards {shards} is more than the {len(user_ids)} users of {name}; take fewer (--shards): each shard "
            "holds whole histories."
        )
    times = manifest["times"]
    cut = options.apply(rows.lengths, rows.timestamps, user_ids, times["unit"], times["millionths"])
    if len(cut.test) == 0:
        raise ValueError(
            f"{name}: the {options.split} split leaves no test target ({len(user_ids)} users, {len(rows.items)} rows)."
        )
    with concurrent.futures.ThreadPoolExecutor(1) as background:
        shares = background.submit(count_rows, rows)  # numpy lets go of the interpreter meanwhile
        vocabulary = learn_vocabulary(rows, cut.train_length, len(item_ids), known)
        found = write_histories(folder, rows, cut, vocabulary, user_ids, item_ids, shards)
        counts = {
            **read,
            **shares.result(),
            "items": vocabulary.num_items,
            "train_interactions": int(cut.train_length.sum()),
            "items_in_vocabulary": len(vocabulary.order),
            **found.pop("counts"),
        }
    manifest = {
        **manifest,
        **options.described(),
        **({"domains": domains} if domains is not None else {}),
        **found,
        "counts": counts,
    }
    write_manifest(folder, manifest)
    write_card(folder, manifest)


def versions(engine: Engine) -> dict[str, str]:
    """Of what made a prepared folder."""
    return {"sr_transformers": __version__, **engine.versions, "pyarrow": pa.__version__}
