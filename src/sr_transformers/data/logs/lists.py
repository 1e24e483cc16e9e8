"""Logs that hold a row per user, with lists of items and times, made into a row per interaction.

Such logs are Parquet files and tables (Yambda's `sequential/`, or what `group_by(user).agg(...)` leaves). A file is
read in batches of users and written again, so that memory does not grow with it. The order within a list is kept: rows
that tie in time keep it.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sr_transformers.columns import ITEM, TIMESTAMP, USER
from sr_transformers.data.logs.sources import PARQUET, Log, map_columns

_USERS = 1 << 10  # read at a time


def unrolled(log: Log, columns: dict[str, str], rating: bool, folder: Path) -> Log:
    """The log with a row per interaction and the source's names of columns; itself if it is one already.

    Args:
        columns: the source's names by ours.
        rating: whether the rating is read.
        folder: for the files that are written; the caller removes it.

    Raises:
        ValueError: if only one of items and times are lists, or users are; for a list that is missing, holds nothing
            in a place, or has another length than that of the same user beside it. File and row are named.
    """
    if log.table is not None:
        wanted = _lists(log.name, log.table.schema, columns, rating)
        if not wanted:
            return log
        parts = list(_interactions(log.name, log.table.to_batches(max_chunksize=_USERS), *wanted))
        return dataclasses.replace(log, table=pa.Table.from_batches(parts, parts[0].schema if parts else None))
    if log.format != PARQUET:
        return log
    files = []
    for number, file in enumerate(log.files):
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError):
            return log  # the engine says what is wrong with it
        wanted = _lists(str(file), schema, columns, rating)
        if wanted:
            # The name is that of the source: errors tell it.
            place = folder / f"interactions-{number}" / file.name
            place.parent.mkdir(parents=True)
            _write(_interactions(str(file), _batches(file, wanted[0]), *wanted), place)
            file = place
        files.append(file)
    return dataclasses.replace(log, files=tuple(files))


def _lists(name: str, schema: pa.Schema, columns: dict[str, str], rating: bool) -> tuple[list[str], list[str]] | None:
    """All of our columns by the source's names, and those of them that are lists; None if there are none."""
    names = map_columns(schema.names, name, columns, rating)
    lists = {ours for ours, theirs in names.items() if _is_list(schema.field(theirs).type)}
    if not lists:
        return None
    if USER in lists or not {ITEM, TIMESTAMP} <= lists:
        which = ", ".join(names[ours] for ours in names if ours in lists)
        raise ValueError(
            f"{name}: {which} is a list and other columns are not; a row is an interaction, or a user with a list of "
            f"items ({names[ITEM]}) and one of times ({names[TIMESTAMP]})."
        )
    return list(names.values()), [names[ours] for ours in names if ours in lists]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _batches(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    yield from pq.ParquetFile(file).iter_batches(_USERS, columns=names)


def _interactions(
    name: str, batches: Iterable[pa.RecordBatch], names: list[str], lists: list[str]
) -> Iterator[pa.RecordBatch]:
    first = 1
    for batch in batches:
        lengths = [pc.list_value_length(batch[one]) for one in lists]
        for one, length in zip(lists, lengths, strict=True):
            _refuse(name, first, f"{one} is missing", pc.is_null(length))
            other = pc.not_equal(length, lengths[0])
            _refuse(name, first, f"{one} has another length than {lists[0]}", other)
        parents = pc.list_parent_indices(batch[lists[0]])
        columns = [pc.list_flatten(batch[one]) if one in lists else batch[one].take(parents) for one in names]
        for one, column in zip(names, columns, strict=True):
            if one in lists and column.null_count:
                user = int(parents[int(np.flatnonzero(pc.is_null(column))[0])].as_py())
                raise ValueError(f"{name}: a list of {one} holds nothing in a place, in row {first + user}.")
        yield pa.RecordBatch.from_arrays(columns, names=names)
        first += len(batch)


def _refuse(name: str, first: int, what: str, bad: pa.Array) -> None:
    found = np.flatnonzero(pc.fill_null(bad, False))
    if len(found):
        raise ValueError(
            f"{name}: {what} in row {first + int(found[0])} ({len(found)} such rows near it). Mend the file."
        )


def _write(batches: Iterator[pa.RecordBatch], place: Path) -> None:
    writer = None
    for batch in batches:
        writer = writer or pq.ParquetWriter(place, batch.schema)
        writer.write_batch(batch)
    if writer is None:
        raise ValueError(f"{place.name}: there are no interactions in it.")
    writer.close()
