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
import itertools
import json
import urllib.parse
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import hf_hub_download

from sr_transformers.columns import DOMAIN, ITEM, RATING, TIMESTAMP, USER
from sr_transformers.data.logs import downloads, synthetic
from sr_transformers.data.logs.hub import silence
from sr_transformers.data.logs.journey import complete_journey
from sr_transformers.data.logs.malformed import cut, is_utf8, open_text
from sr_transformers.data.logs.paths import check_name, check_regular
from sr_transformers.data.logs.tables import arrow_table

COMPLETE_JOURNEY = "complete-journey"
SYNTHETIC = "synthetic"
EMBEDDED = (COMPLETE_JOURNEY, SYNTHETIC)
HUB = "hf://datasets/"
_CARD = "README.md"

CSV, JSONL, PARQUET = "csv", "jsonl", "parquet"
_FORMATS = {".csv": CSV, ".tsv": CSV, ".dat": CSV, ".jsonl": JSONL, ".ndjson": JSONL, ".parquet": PARQUET}
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".dat": "::"}

_MARKS = (";", "\t", "|", ",")  # other separators, to guess at where a header line is one column


class ArrowStream(Protocol):
    """A table that gives itself to Arrow: a polars or pandas frame, an Arrow table."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


Source: TypeAlias = (
    str
    | Path
    | ArrowStream
    | pl.LazyFrame
    | datasets.Dataset
    | datasets.IterableDataset
    | datasets.DatasetDict
    | datasets.IterableDatasetDict
)


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
        source: a `.csv`, `.tsv`, `.dat`, `.jsonl` or `.parquet` file (text also `.gz`; the columns of JSONL are the
            keys of its first line), a folder or glob of them (in the order of their names),
            `hf://datasets/OWNER/NAME[@REVISION][?name=CONFIG&split=SPLIT]`, one file of a data set
            `hf://datasets/OWNER/NAME[@REVISION]/PATH.parquet`, a polars frame (lazy ones are computed), a
            pandas frame, an Arrow table, a data set of the package datasets (iterable ones are read to their end; of a
            dictionary of several splits one must be chosen), an embedded set or the name of a download.
        names: names of the columns, for CSV files that have no header line.
        separator: of CSV files, a backslash and t for a tab; None: "," in .csv, tab in .tsv, "::" in .dat.

    Raises:
        FileNotFoundError: no such file, and no set of that name.
        ValueError: a file of another format, files of several formats, what is no regular file, a name that is not
            UTF-8, a folder within the folder, names and separator for what is no CSV, a separator that cannot be one,
            or an object that is none of these.
    """
    separator = None if separator is None else separator.replace("\\t", "\t")
    if separator is not None and (not 1 <= len(separator.encode()) <= 4 or set(separator) & set('"\r\n')):
        raise ValueError(f"separator {separator!r} must be 1 to 4 bytes of text, without quotes and line ends.")
    log = _find(source)
    if names is None and separator is None:
        return log
    if log.format != CSV:
        raise ValueError(f"{log.name}: names and separator belong to CSV files.")
    return dataclasses.replace(
        log, separator=separator or log.separator, names=log.names if names is None else tuple(names)
    )


def _find(source: Source) -> Log:
    if not isinstance(source, str | Path):
        table = arrow_table(source)
        if table is None:
            kind = type(source).__name__
            raise ValueError(
                f"a log is a path, a name, a polars or pandas frame, an Arrow table or a data set; this is a {kind}."
            )
        return Log("data set" if isinstance(source, datasets.Dataset) else "log", table=table)
    text = str(source)
    if text == COMPLETE_JOURNEY:
        return Log(text, table=complete_journey().to_arrow())
    if text == SYNTHETIC:
        return Log(text, table=synthetic.generate().to_arrow())
    if text.startswith(HUB) and text.split("?")[0].count("/") > HUB.count("/") + 1:
        return dataclasses.replace(_files(_hub_file(text)), name=text)
    if text.startswith(HUB):
        return Log(text, table=arrow_table(_from_hub(text)))
    if found := downloads.parts(text):
        one = downloads.DOWNLOADS[found[0]]
        domains = tuple(Path(part).name for part in found) if len(found) > 1 else None
        files = tuple(downloads.fetch(part) for part in found)
        return Log(text, files, CSV, one.separator, one.names, columns=one.columns, domains=domains)
    return _files(Path(source))


def _files(path: Path) -> Log:
    check_name(path)
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if not one.name.startswith((".", "_")))
        if inner := next((one for one in files if one.is_dir()), None):
            raise ValueError(
                f"{inner}: folders within a log's folder are not read; take a glob such as '{path}/**/*.csv'."
            )
    elif path.exists():
        files = [path]
    else:
        files = sorted(Path(one) for one in glob.glob(str(path), recursive=True) if not Path(one).is_dir())
    for file in files:
        check_regular(file)
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
    inner = file.with_suffix("").suffix.lower()
    return inner if file.suffix == ".gz" and inner != ".parquet" else file.suffix.lower()


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
        with open_text(file) as lines:
            first = lines.readline()
            if not first.strip():
                raise ValueError("it is empty, or its first line is")
            if not is_utf8(first):
                raise ValueError("its first line is not UTF-8; convert the file, for example with iconv")
            if log.format == JSONL:
                row = _json(first)
                if not isinstance(row, dict):
                    raise ValueError("its first line is no JSON object")
                return list(row)
            return next(cut(itertools.chain([first], lines), log.separator))
    except (pa.ArrowException, OSError, ValueError, EOFError, csv.Error, zlib.error) as error:
        raise ValueError(f"{file}: cannot be read as {log.format}: {error}") from error


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def map_files(log: Log, columns: dict[str, str], rating: bool) -> list[dict[str, str]]:
    """`map_columns` for every file of a log.

    Raises:
        ValueError: as `map_columns` and `check_types`; files of which only some have a domain, and Parquet files of
            different types.
    """
    mapped: list[dict[str, str]] = []
    types: list[pa.DataType] = []
    for file in log.files:
        names = map_columns(column_names(log, file), str(file), columns, rating)
        if mapped and names.keys() != mapped[0].keys():
            has = "has a" if DOMAIN in names else "has no"
            raise ValueError(
                f"{file}: it {has} column {DOMAIN}, unlike the files before it; all files need one, or none."
            )
        if log.format == PARQUET:
            schema = pq.read_schema(file)
            found = [schema.field(theirs).type for theirs in names.values()]
            check_types(str(file), dict(zip(names, found, strict=True)))
            if mapped and found != types:
                raise ValueError(
                    f"{file}: its columns are {', '.join(map(str, found))}, those of the files before it "
                    f"{', '.join(map(str, types))}; write all files with the same types."
                )
            types = found
        mapped.append(names)
    return mapped


def map_columns(present: Sequence[str], name: str, columns: dict[str, str], rating: bool = False) -> dict[str, str]:
    """The source's names of a log's columns by ours: user_id, item_id, timestamp, domain where there is one.

    Args:
        present: names of the source's columns.
        name: what to call the source in errors.
        columns: names by ours, for example `{"user_id": "userId"}`; those not given are ours.
        rating: whether the rating is read.

    Raises:
        ValueError: a name that is not ours, a column that is missing or stands twice, or one for two of ours; the
            message lists those that are there.
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
    missing = {ours: theirs for ours, theirs in names.items() if theirs not in present}
    if missing:
        wanted = (theirs if theirs == ours else f"{theirs} (for {ours})" for ours, theirs in missing.items())
        flags = ", ".join(f"--{ours.removesuffix('_id')}-column" for ours in missing)
        guess = next((mark for mark in _MARKS if len(present) == 1 and mark in present[0]), None)
        raise ValueError(
            f"{name}: column {', '.join(wanted)} is missing; there are {', '.join(present)}. "
            + (
                f"Are its fields separated by {guess!r}? Say so with separator, on the command line --separator."
                if guess
                else f"Say what they are called with columns={{...}}, on the command line {flags}; name the columns of "
                "a CSV file without a header line with names, --names."
            )
        )
    for ours, theirs in names.items():
        others = [other for other in names if names[other] == theirs and other != ours]
        if others:
            raise ValueError(f"{name}: column {theirs} cannot be {ours} and {others[0]} as well; map one of them.")
    twice = [theirs for theirs in names.values() if list(present).count(theirs) > 1]
    if twice:
        raise ValueError(f"{name}: column {twice[0]} stands twice in {', '.join(present)}; rename one of them.")
    return names


def check_types(name: str, types: dict[str, pa.DataType]) -> None:
    """Refuses the types that an engine would take for others: a duration for an integer, wide decimals for doubles.

    Args:
        name: what to call the source in errors.
        types: of our columns.

    Raises:
        ValueError: for such a type.
    """
    for ours, kind in types.items():
        is_other = isinstance(kind, pa.BaseExtensionType) and kind.extension_name != "arrow.uuid"
        if is_other or pa.types.is_duration(kind) or pa.types.is_decimal256(kind):
            raise ValueError(
                f"{name}: {ours} is {kind}; ids are text, integers or UUIDs, times are numbers, dates or text, numbers "
                "of at most 38 digits. Cast the column first."
            )


def describe(log: Log) -> dict[str, Any]:
    """What the manifest says of a source: name, and size and digest of each file.

    Raises:
        ValueError: a compressed file whose checksum is not that of its content (no engine looks at it).
    """
    if not log.files:
        return {"name": "frame" if log.name == "log" else log.name}
    files = []
    for file in log.files:
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if file.suffix == ".gz":
            _check_gzip(file)
        files.append({"name": file.name, "sha256": digest, "bytes": file.stat().st_size})
    if len(files) == 1 and log.name == str(log.files[0]):
        return files[0]
    return {"name": log.name if "/" not in log.name else Path(log.name).name, "files": files}


def _check_gzip(file: Path) -> None:
    try:
        with gzip.open(file) as content:
            while content.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: cannot be decompressed: {error}") from error


def _from_hub(address: str) -> datasets.Dataset:
    path, _, query = address.removeprefix(HUB).partition("?")
    repository, _, revision = path.partition("@")
    wanted = dict(urllib.parse.parse_qsl(query))
    if repository.count("/") != 1 or set(wanted) - {"name", "split"}:
        raise ValueError(f"{address}: write {HUB}OWNER/NAME[@REVISION][?name=CONFIG&split=SPLIT] or .../PATH.parquet.")
    if silent := silence(repository, _CARD, repo_type="dataset"):
        raise FileNotFoundError(f"{address}: {silent}; HF_HUB_OFFLINE=1 takes what the cache has.")
    try:
        return datasets.load_dataset(
            repository, wanted.get("name"), split=wanted.get("split", "train"), revision=revision or None
        )
    except (ConnectionError, OSError) as error:
        raise FileNotFoundError(f"{address}: not on the Hub, or no network to reach it: {error}") from error


def _hub_file(address: str) -> Path:
    """A file of a data set on the Hub, fetched once."""
    owner, name, inside = address.removeprefix(HUB).split("/", 2)
    name, _, revision = name.partition("@")
    silent = silence(f"{owner}/{name}", inside, repo_type="dataset")
    where: dict[str, Any] = {"repo_type": "dataset", "revision": revision or None, "local_files_only": bool(silent)}
    try:
        return Path(hf_hub_download(f"{owner}/{name}", inside, **where))
    except (OSError, ValueError) as error:
        why = f"{silent}, and the cache has no copy" if silent else "not on the Hub, or no network to reach it"
        raise FileNotFoundError(f"{address}: {why}: {error}") from error
