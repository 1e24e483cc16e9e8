"""The other engine: Apache Spark, for logs that one machine does not prepare. Needs the extra `spark` and Java.

It answers the same SQL as DuckDB and gives the same files. The log is read by Spark's workers, so it must lie where all
of them see it, and so must the output, beside which tables are kept while they are needed; the sorted rows come back to
the driver, which writes the prepared folder.

Differs: a field of a CSV file may not hold a line break (Spark cuts files at lines), and such a file is refused. Ids of
JSONL files that are neither text nor integers are taken as their text, not refused. Unsigned 64-bit ids are refused.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sr_transformers.columns import DOMAIN
from sr_transformers.data.logs.duckdb_engine import BATCH_ROWS, quote, reading
from sr_transformers.data.logs.sources import JSONL, PARQUET, Log, column_names, map_columns, map_files

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.csv.parser.columnPruning.enabled": "false",  # else a row that lacks a field is not seen
}
_TYPES = {
    "tinyint": pa.int8(), "smallint": pa.int16(), "int": pa.int32(), "bigint": pa.int64(), "string": pa.string(),
    "float": pa.float32(), "double": pa.float64(), "date": pa.date32(), "timestamp": pa.timestamp("us", "UTC"),
    "timestamp_ntz": pa.timestamp("us"), "boolean": pa.bool_(), "binary": pa.binary(),
}  # fmt: skip
_FILE_BITS = 40  # ordinals: the number of the file, then at most so many bits within it


class SparkEngine:
    """Spark: the session that runs, else a local one (environment variable SPARK_MASTER, by default `local[*]`).

    Args:
        folder: for tables that are computed once; the caller removes it.

    Raises:
        ImportError: without pyspark or Java.
    """

    def __init__(self, folder: Path):
        has_java = shutil.which("java") or os.environ.get("JAVA_HOME")
        if importlib.util.find_spec("pyspark") is None or not has_java:
            raise ImportError("engine='spark' needs pyspark and Java: pip install 'sr-transformers[spark]', and a JRE.")
        import pyspark
        from pyspark.sql import SparkSession

        self.versions = {"pyspark": pyspark.__version__}
        self._folder = folder
        self._files: list[str] = []
        self._kept: dict[str, int] = {}  # how often a table was computed
        self._is_ours = SparkSession.getActiveSession() is None
        builder: Any = SparkSession.builder
        builder = builder.master(os.environ.get("SPARK_MASTER", "local[*]")).config("spark.ui.enabled", "false")
        self._session: Any = builder.getOrCreate()
        self._before = {key: self._session.conf.get(key, None) for key in _SETTINGS}
        for key, value in _SETTINGS.items():
            self._session.conf.set(key, value)

    def load(self, log: Log, columns: dict[str, str], rating: bool) -> None:
        name, is_table = log.name, log.table is not None
        if log.table is not None:
            map_columns(log.table.column_names, name, columns, rating)
            # Through a file: a table in memory has no rows that workers could count.
            path = self._folder / "given.parquet"
            pq.write_table(_plain(log.table), path)
            log = Log(log.name, (path,), PARQUET)
        parts = []
        for number, (file, names) in enumerate(zip(log.files, map_files(log, columns, rating), strict=True)):
            with reading(log, file, names, _errors()):
                self._read(log, file, column_names(log, file), names).createOrReplaceTempView("file")
                # One number per row that rises within a file: rows of a block in its order, after the block's offset.
                row = "_row" if log.format == PARQUET else "monotonically_increasing_id()"
                self.define(f"loaded_{number}", f"SELECT *, {row} AS _place FROM file")
            domain = f", {quote(log.domains[number])} AS {DOMAIN}" if log.domains else ""
            parts.append(
                f"SELECT {', '.join(names)}{domain}, shiftleft(CAST({number} AS BIGINT), {_FILE_BITS}) + l._block + "
                f"l._place - first AS ordinal FROM loaded_{number} AS l JOIN (SELECT _block, min(_place) AS first "
                f"FROM loaded_{number} GROUP BY _block) AS b ON l._block = b._block"
            )
            self._files.append(name if is_table else str(file))
        self.define_view("raw", " UNION ALL ".join(parts))

    def _read(self, log: Log, file: Path, present: list[str], names: dict[str, str]) -> Any:
        """Our columns of a file, and the offset of the block in which a row stands."""
        reader = self._session.read
        if log.format == PARQUET:
            frame = reader.parquet(str(file))
            selected = [f"{_identifier(theirs)} AS {ours}" for ours, theirs in names.items()]
            return frame.selectExpr(*selected, "_metadata.row_index AS _row", "CAST(0 AS BIGINT) AS _block")
        if log.format == JSONL:
            schema = ", ".join(f"{_identifier(theirs)} STRING" for theirs in names.values())
            frame = reader.schema(schema).option("mode", "FAILFAST").json(str(file))
            selected = [f"{_identifier(theirs)} AS {ours}" for ours, theirs in names.items()]
        else:
            schema = ", ".join(f"c{index} STRING" for index in range(len(present)))
            options = {"sep": log.separator, "header": log.names is None, "quote": '"', "escape": '"',
                       "mode": "FAILFAST", "maxCharsPerColumn": -1}  # fmt: skip
            frame = reader.schema(schema).options(**options).csv(str(file))
            selected = [f"c{present.index(theirs)} AS {ours}" for ours, theirs in names.items()]
        return frame.selectExpr(*selected, "_metadata.file_block_start AS _block")

    def schema(self, table: str) -> pa.Schema:
        return pa.schema([
            (name, pa.decimal128(*_sizes(kind)) if kind.startswith("decimal") else _TYPES.get(kind, pa.null()))
            for name, kind in self._session.table(table).dtypes
        ])  # fmt: skip

    def define(self, table: str, query: str) -> None:
        self._kept[table] = self._kept.get(table, 0) + 1
        path = str(self._folder / f"{table}-{self._kept[table]}")
        self._session.sql(query).write.parquet(path)
        self._session.read.parquet(path).createOrReplaceTempView(table)

    def define_view(self, table: str, query: str) -> None:
        self._session.sql(query).createOrReplaceTempView(table)

    def rows(self, query: str) -> list[tuple]:
        return [tuple(row) for row in self._session.sql(query).collect()]

    def batches(self, query: str) -> Iterator[pa.RecordBatch]:
        self.define("answer", query)
        folder = self._folder / f"answer-{self._kept['answer']}"
        for part in sorted(folder.glob("part-*")):  # a sorted answer is cut into ranges, numbered in order
            yield from pq.ParquetFile(part).iter_batches(BATCH_ROWS)
        shutil.rmtree(folder)

    def place(self, ordinal: int) -> tuple[str, int]:
        number = ordinal >> _FILE_BITS
        first = number << _FILE_BITS
        row = self.rows(f"SELECT count(*) FROM raw WHERE ordinal BETWEEN {first} AND {ordinal}")[0][0]
        return self._files[number], row

    def close(self) -> None:
        if self._is_ours:
            self._session.stop()
            return
        for key, value in self._before.items():
            self._session.conf.unset(key) if value is None else self._session.conf.set(key, value)


def _errors() -> tuple[type[Exception], ...]:
    """What Spark raises."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return Py4JError, PySparkException


def _plain(table: pa.Table) -> pa.Table:
    """Types of a table that Parquet and Spark know."""
    plain = [pa.field(field.name, pa.string()) if _is_special_text(field.type) else field for field in table.schema]
    return table.cast(pa.schema(plain))


def _sizes(kind: str) -> tuple[int, int]:
    """Precision and scale of `decimal(precision,scale)`."""
    precision, scale = kind.removeprefix("decimal(").removesuffix(")").split(",")
    return int(precision), int(scale)


def _is_special_text(kind: pa.DataType) -> bool:
    return pa.types.is_string_view(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)


def _identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
