"""The engine that reads a log and answers SQL about it, out of core: DuckDB. `spark_engine.py` holds the other one.

All of the preparation is written once, in SQL that both understand (`cleaning.py`); an engine only says how a log
becomes the table `raw` and how answers come back.
"""

import contextlib
import glob
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sr_transformers.columns import DOMAIN, ITEM, USER
from sr_transformers.data.logs.malformed import MAX_LINE, csv_fault, jsonl_fault
from sr_transformers.data.logs.sources import JSONL, PARQUET, Log, check_types, column_names, map_columns, map_files

BATCH_ROWS = 1 << 20
IDS = (USER, ITEM, DOMAIN)
ADDRESS_SPACE = 1 << 30  # bytes that a preparation may take


class Engine(Protocol):
    """What a preparation needs.

    Attributes:
        versions: of the engine's packages, for the manifest.
    """

    versions: dict[str, str]

    def load(self, log: Log, columns: dict[str, str], rating: bool) -> None:
        """Makes the table `raw`: our columns in the source's types, and `ordinal`, int64, which rises with the rows."""

    def schema(self, table: str) -> pa.Schema:
        """Types of a table."""

    def define(self, table: str, query: str) -> None:
        """Computes a table once and keeps it, in memory or on disk; an old one of that name is replaced."""

    def define_view(self, table: str, query: str) -> None:
        """Names a query, to be computed whenever it is asked."""

    def rows(self, query: str) -> list[tuple]:
        """A small answer."""

    def batches(self, query: str) -> Iterator[pa.RecordBatch]:
        """A large answer in its order."""

    def place(self, ordinal: int) -> tuple[str, int]:
        """File and row (from 1, without the header) of a row of `raw`."""

    def close(self) -> None:
        """Frees what it holds."""


class DuckDBEngine:
    """DuckDB in this process.

    Args:
        folder: for what does not fit the memory; the caller removes it.
        memory: limit of what DuckDB holds, for example "1GB".

    Raises (all methods):
        OSError: if neither the memory nor the disk of `folder` holds what is needed, or the process may not take
            `ADDRESS_SPACE` more (`ulimit -v`): DuckDB would crash.
    """

    def __init__(self, folder: Path, memory: str = "800MB"):
        _check_address_space()
        self.versions = {"duckdb": duckdb.__version__}
        self._folder = folder
        self._connection = duckdb.connect()
        # Every thread holds blocks in memory: of many cores, so many that the limit has room for them.
        threads = min(os.cpu_count() or 1, 16)
        settings = {"memory_limit": memory, "temp_directory": str(folder), "threads": str(threads), "TimeZone": "UTC"}
        for name, value in settings.items():
            self._connection.execute(f"SET {name} = {quote(value)}")
        # Two names that Spark has and DuckDB lacks.
        self._connection.execute("CREATE MACRO regexp_like(t, p) AS regexp_matches(t, p)")
        self._connection.execute("CREATE MACRO unix_micros(t) AS epoch_us(t)")
        self._starts: list[tuple[str, int]] = []  # (file, ordinal of its first row)
        self._parts: dict[Path, str] = {}  # what reads each Parquet file

    def load(self, log: Log, columns: dict[str, str], rating: bool) -> None:
        if log.format == PARQUET:
            self._load_parquet(log, columns, rating)
        else:
            self._load_rows(log, columns, rating)
        # From here on every row has its number, and each query says its order: DuckDB need not keep one besides.
        self._connection.execute("SET preserve_insertion_order = false")

    def _load_rows(self, log: Log, columns: dict[str, str], rating: bool) -> None:
        """A table, filled from the frame or the text files."""
        if log.table is not None:
            names = map_columns(log.table.column_names, log.name, columns, rating)
            table = log.table.select(list(names.values())).rename_columns(list(names))
            check_types(log.name, dict(zip(table.column_names, table.schema.types, strict=True)))
            self._connection.register("given", _widened(table))
            with self._room():
                self._connection.execute("CREATE TABLE loaded AS SELECT * FROM given")
            self._connection.unregister("given")
            self._starts.append((log.name, 0))
        else:
            self._load_text(log, columns, rating)
        # Rows are numbered in the order in which they were inserted.
        self._connection.execute("CREATE VIEW raw AS SELECT *, rowid AS ordinal FROM loaded")

    def _load_parquet(self, log: Log, columns: dict[str, str], rating: bool) -> None:
        """A view: Parquet is read where it lies, as often as it takes."""
        first = 0
        for file, names in zip(log.files, map_files(log, columns, rating), strict=True):
            present = column_names(log, file)
            if "file_row_number" in map(str.lower, present):
                raise ValueError(f"{file}: DuckDB needs the name file_row_number for itself; rename that column.")
            # By place: DuckDB does not tell user_id from USER_ID. And a folder called item_id=7 is no column.
            places = ", ".join(f"c{index}" for index in range(len(present)))
            selected = ", ".join(f"c{present.index(theirs)} AS {ours}" for ours, theirs in names.items())
            self._parts[file] = (
                f"SELECT {selected}, place + {first} AS ordinal FROM read_parquet({quote(glob.escape(str(file)))}, "
                f"file_row_number = true, hive_partitioning = false) AS file({places}, place)"
            )
            self._starts.append((str(file), first))
            first += pq.ParquetFile(file).metadata.num_rows
        with self._room():
            self._connection.execute("CREATE VIEW raw AS " + " UNION ALL ".join(self._parts.values()))

    def _load_text(self, log: Log, columns: dict[str, str], rating: bool) -> None:
        first = 0
        for number, (file, names) in enumerate(zip(log.files, map_files(log, columns, rating), strict=True)):
            place = quote(glob.escape(str(file)))
            if log.format == JSONL:
                wanted = ", ".join(
                    f"{quote(theirs)}: '{'JSON' if ours in IDS else 'VARCHAR'}'" for ours, theirs in names.items()
                )
                selected = ", ".join(
                    f"{_json_id(identifier(theirs)) if ours in IDS else identifier(theirs)} AS {ours}"
                    for ours, theirs in names.items()
                )
                how = f"format = 'newline_delimited', hive_partitioning = false, columns = {{{wanted}}}"
                table = f"read_json({place}, {how})"
            else:
                present = column_names(log, file)
                every = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(present)))
                selected = ", ".join(f"c{present.index(theirs)} AS {ours}" for ours, theirs in names.items())
                selected += f", {quote(log.domains[number])} AS {DOMAIN}" if log.domains else ""
                header = "true" if log.names is None else "false"
                table = (
                    f"read_csv({place}, auto_detect = false, header = {header}, delim = {quote(log.separator)}, "
                    f"quote = '\"', escape = '\"', max_line_size = {MAX_LINE}, hive_partitioning = false, "
                    f"columns = {{{every}}})"
                )
            verb = "INSERT INTO loaded BY NAME" if number else "CREATE TABLE loaded AS"
            with self._room(), reading(log, file, names):
                self._connection.execute(f"{verb} SELECT {selected} FROM {table}")
            self._starts.append((str(file), first))
            first = self.rows("SELECT count(*) FROM loaded")[0][0]

    def schema(self, table: str) -> pa.Schema:
        return self._connection.sql(f"SELECT * FROM {table} LIMIT 0").to_arrow_table().schema

    def define(self, table: str, query: str) -> None:
        with self._room():
            self._connection.execute(f"CREATE OR REPLACE TABLE {table}_next AS {query}")
            self._connection.execute(f"DROP TABLE IF EXISTS {table}")
            self._connection.execute(f"ALTER TABLE {table}_next RENAME TO {table}")

    def define_view(self, table: str, query: str) -> None:
        self._connection.execute(f"CREATE VIEW {table} AS {query}")

    def rows(self, query: str) -> list[tuple]:
        with self._room():
            return self._connection.execute(query).fetchall()

    def batches(self, query: str) -> Iterator[pa.RecordBatch]:
        with self._room():
            yield from self._connection.sql(query).to_arrow_reader(BATCH_ROWS)

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.OutOfMemoryException, duckdb.IOException, pa.ArrowException) as error:
            text = " ".join(str(error).split())[:300]
            raise OSError(f"DuckDB has no room in {self._folder} (its disk may be full): {text}") from error
        except duckdb.Error as error:
            raise ValueError(f"{self._damaged()}: cannot be read: {brief(error)}") from error

    def _damaged(self) -> str:
        """The first Parquet file that cannot be read to its end; else the log."""
        for file, part in self._parts.items():
            try:
                self._connection.execute(f"SELECT max(hash(part)) FROM ({part}) AS part").fetchall()
            except duckdb.Error:
                return str(file)
        return self._starts[0][0] if self._starts else "log"

    def place(self, ordinal: int) -> tuple[str, int]:
        # Of those that begin at the same row all but the last are empty.
        file, first = [start for start in self._starts if start[1] <= ordinal][-1]
        return file, ordinal - first + 1

    def close(self) -> None:
        self._connection.close()


def _check_address_space() -> None:
    limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], Path("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not used.exists():
        return
    left = limit - int(used.read_text().split()[0]) * resource.getpagesize()
    if left < ADDRESS_SPACE:
        raise OSError(
            f"this process may take {max(left, 0) >> 20} MiB of address space more, and preparing takes up to "
            f"{ADDRESS_SPACE >> 20}: raise the limit (ulimit -v)."
        )


@contextlib.contextmanager
def reading(log: Log, file: Path, names: dict[str, str], errors: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Errors of a reader as one that names the file, and the row where it is text.

    Args:
        names: of the file's columns by ours.
        errors: of readers besides DuckDB and Arrow.

    Raises:
        ValueError: for a file that cannot be read.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise  # not the file's fault
    except (duckdb.Error, pa.ArrowException, OSError, *errors) as error:
        fault = None
        if log.format == JSONL:
            fault = jsonl_fault(file, [names[ours] for ours in IDS if ours in names], list(names.values()))
        elif log.format != PARQUET:
            fault = csv_fault(file, log.separator, len(column_names(log, file)), log.names is None)
        raise ValueError(f"{file}: cannot be read as {log.format}: {fault or brief(error)}") from error


def brief(error: Exception) -> str:
    """An engine's message in one line, without the offending text (perhaps a megabyte) and advice about its options."""
    text = re.sub("Original Line:.*\n", "", str(error))
    text = re.split(r"Possible fixes|Possible Solution|Try setting|Try increasing|LINE \d+:|SQLSTATE", text)[0]
    return " ".join(text.split())[:300]


def _widened(table: pa.Table) -> pa.Table:
    """Half floats as floats of 32 bits, which DuckDB takes from Arrow."""
    fields = [pa.field(one.name, pa.float32()) if pa.types.is_float16(one.type) else one for one in table.schema]
    return table.cast(pa.schema(fields))


def _json_id(column: str) -> str:
    """The text of a JSON value that is text or an integer."""
    # An error, not null: null is a missing id. The row is looked for when it happens.
    return (
        f"CASE WHEN starts_with({column}::VARCHAR, '\"') THEN {column} ->> '$' WHEN {column} IS NULL THEN NULL "
        f"WHEN regexp_matches({column}::VARCHAR, '^-?[0-9]+$') THEN {column}::VARCHAR ELSE error('no id') END"
    )


def quote(text: str) -> str:
    """A text literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A column name of SQL, whatever stands in it."""
    return '"' + name.replace('"', '""') + '"'
