"""The engine that reads a log and answers SQL about it, out of core: DuckDB. `spark.py` holds the other one.

All of the preparation is written once, in SQL that both understand (`interactions.py`); an engine only says how a log
becomes the table `raw` and how answers come back.
"""

import contextlib
import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sr_transformers.columns import DOMAIN
from sr_transformers.data.sources import JSONL, PARQUET, Log, column_names, map_columns

BATCH_ROWS = 1 << 20
MAX_LINE = 4 << 20  # bytes of a line of CSV


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
        OSError: if neither the memory nor the disk of `folder` holds what is needed.
    """

    def __init__(self, folder: Path, memory: str = "800MB"):
        self.versions = {"duckdb": duckdb.__version__}
        self._folder = folder
        self._connection = duckdb.connect()
        settings = {"memory_limit": memory, "temp_directory": str(folder), "TimeZone": "UTC"}
        for name, value in settings.items():
            self._connection.execute(f"SET {name} = {quote(value)}")
        # Two names that Spark has and DuckDB lacks.
        self._connection.execute("CREATE MACRO regexp_like(t, p) AS regexp_matches(t, p)")
        self._connection.execute("CREATE MACRO unix_micros(t) AS epoch_us(t)")
        self._starts: list[tuple[str, int]] = []  # (file, ordinal of its first row)

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
            self._connection.register("given", log.table.select(list(names.values())).rename_columns(list(names)))
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
        parts, first, types = [], 0, None
        for file in log.files:
            names = map_columns(column_names(log, file), str(file), columns, rating)
            with reading(file, log.format):
                metadata = pq.ParquetFile(file)
            found = [metadata.schema_arrow.field(theirs).type for theirs in names.values()]
            if types is not None and found != types:
                raise ValueError(
                    f"{file}: its columns are {', '.join(map(str, found))}, those of the files before it "
                    f"{', '.join(map(str, types))}; write all files with the same types."
                )
            types = found
            selected = ", ".join(f"{identifier(theirs)} AS {ours}" for ours, theirs in names.items())
            place = quote(glob.escape(str(file)))
            parts.append(
                f"SELECT {selected}, file_row_number + {first} AS ordinal "
                f"FROM read_parquet({place}, file_row_number = true)"
            )
            self._starts.append((str(file), first))
            first += metadata.metadata.num_rows
        self._connection.execute("CREATE VIEW raw AS " + " UNION ALL ".join(parts))

    def _load_text(self, log: Log, columns: dict[str, str], rating: bool) -> None:
        first = 0
        for number, file in enumerate(log.files):
            present = column_names(log, file)
            names = map_columns(present, str(file), columns, rating)
            place = quote(glob.escape(str(file)))
            if log.format == JSONL:
                wanted = ", ".join(f"{quote(theirs)}: 'VARCHAR'" for theirs in names.values())
                selected = ", ".join(f"{identifier(theirs)} AS {ours}" for ours, theirs in names.items())
                table = f"read_json({place}, format = 'newline_delimited', columns = {{{wanted}}})"
            else:
                every = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(present)))
                selected = ", ".join(f"c{present.index(theirs)} AS {ours}" for ours, theirs in names.items())
                selected += f", {quote(log.domains[number])} AS {DOMAIN}" if log.domains else ""
                header = "true" if log.names is None else "false"
                table = (
                    f"read_csv({place}, auto_detect = false, header = {header}, delim = {quote(log.separator)}, "
                    f"quote = '\"', escape = '\"', max_line_size = {MAX_LINE}, columns = {{{every}}})"
                )
            verb = "INSERT INTO loaded BY NAME" if number else "CREATE TABLE loaded AS"
            with self._room(), reading(file, log.format):
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

    def place(self, ordinal: int) -> tuple[str, int]:
        file, first = max((start for start in self._starts if start[1] <= ordinal), key=lambda start: start[1])
        return file, ordinal - first + 1

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def reading(file: Path, kind: str) -> Iterator[None]:
    """Errors of a reader as one that names the file."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise  # not the file's fault
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        text = re.sub("Original Line:.*\n", "", str(error))  # it may be a megabyte long, and lines are named anyway
        raise ValueError(f"{file}: cannot be read as {kind}: {' '.join(text.split())[:400]}") from error


def quote(text: str) -> str:
    """A text literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A column name of SQL, whatever stands in it."""
    return '"' + name.replace('"', '""') + '"'
