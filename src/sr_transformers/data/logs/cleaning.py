"""A raw log made sound: times as integers, ids as small numbers, filters counted, rows in the order of user and time.

Written in the SQL that DuckDB and Spark share. What cannot be understood is refused with its file and first bad row;
what is left out on request is counted; rows that tie in time keep the order of the source.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sr_transformers.columns import DOMAIN, ITEM, RATING, TIMESTAMP, USER
from sr_transformers.data.logs.duckdb_engine import Engine
from sr_transformers.data.logs.times import NUMBER, is_text, plain, read_times, warn_of_doubtful
from sr_transformers.data.logs.timestamps import parse_moment

KEEP, DISTINCT, FIRST, LAST = "keep", "distinct", "first", "last"
REPEATS = (KEEP, DISTINCT, FIRST, LAST)
MAX_DOMAINS = 2**15 - 1


@dataclass(frozen=True)
class Filters:
    """What is left out of a log on request, in this order.

    Attributes:
        min_rating: rows of a lower rating.
        since, until: rows outside `since <= time < until`; a number in the log's own unit, or ISO 8601.
        repeats: "keep" all rows; "distinct": rows that repeat user, item and time are kept once; "first" and "last": of
            each user and item only that row.
        min_interactions: keep users and items with at least so many rows, to a fixpoint (k-core).
        min_item_interactions: another least number for items; None: the same.

    Raises:
        ValueError: for a policy that is not known, a least number below 1, or a rating that is no finite number.
    """

    min_rating: float | None = None
    since: int | str | None = None
    until: int | str | None = None
    repeats: str = KEEP
    min_interactions: int = 1
    min_item_interactions: int | None = None

    def __post_init__(self):
        if self.repeats not in REPEATS:
            raise ValueError(f"repeats {self.repeats!r} is not known; choose from {', '.join(REPEATS)}.")
        if self.min_interactions < 1:
            raise ValueError(f"min_interactions {self.min_interactions} must be at least 1.")
        if self.min_item_interactions is not None and self.min_item_interactions < 1:
            raise ValueError(f"min_item_interactions {self.min_item_interactions} must be at least 1.")
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise ValueError(f"min_rating {self.min_rating} must be a finite number.")

    @property
    def core(self) -> tuple[int, int]:
        """Least rows of a user and of an item."""
        return self.min_interactions, self.min_item_interactions or self.min_interactions


@dataclass
class CleanLog:
    """A sound log inside an engine: `log` with user_code, item_code, timestamp, ordinal and perhaps domain_code.

    Attributes:
        user_ids, item_ids: raw ids by code, sorted; some may have no row left after the filters.
        domain_ids: raw domains by code, sorted; None without domains.
        unit: of the times, "s", "ms", "us" or "ns"; None if nobody said it.
        millionths: whether the times are millionths of the source's unit, because some had a fraction.
        num_rows: rows of the log.
        counts: rows read, and left out by each filter.
    """

    user_ids: pa.Array
    item_ids: pa.Array
    domain_ids: pa.Array | None
    unit: str | None
    millionths: bool
    num_rows: int
    counts: dict[str, int]

    @property
    def domains(self) -> list[str] | None:
        """Names of the domains by code."""
        return None if self.domain_ids is None else [str(value) for value in self.domain_ids.to_pylist()]


def clean_log(
    engine: Engine,
    name: str,
    filters: Filters,
    unit: str | None = None,
    millionths: bool = False,
    before: int | None = None,
) -> CleanLog:
    """Checks the table `raw` of an engine, filters it and encodes its ids.

    Times may be numbers, dates, or text that is all numbers or all ISO 8601 (`2024-01-31`,
    `2024-01-31T23:59:59.5+02:00`, `20240131T235959Z`, `2024-01-31 23:59:59 UTC`; without a zone it is UTC). They become
    int64: the source's numbers (millionths of its unit where some have a fraction), or microseconds since 1970 for
    dates and ISO text (finer digits are cut off, with a warning). Times that are likely meant otherwise
    (`times.warn_of_doubtful`) are taken as they are, with a warning that names the row.

    Args:
        name: what to call the log in errors.
        unit: "s", "ms" or "us", of times that are numbers of that unit since 1970; None: numbers without a meaning.
        millionths: take times that are floats as millionths even if none has a fraction.
        before: a time of the older rows that these are added to, as an int64 time.

    Raises:
        ValueError: an empty log, a null id, domain or time, an id that is neither text nor integer, an empty text id, a
            time that is no time, a rating that is no number, or filters that leave nothing.
    """
    schema = engine.schema("raw")
    read = engine.rows("SELECT count(*) FROM raw")[0][0]
    if not read:
        raise ValueError(f"{name}: there are no interactions in it.")
    ids = [column for column in (USER, ITEM, DOMAIN) if column in schema.names]
    kinds = {column: _id_type(name, column, schema.field(column).type) for column in ids}
    for column in ids:
        empty = f" OR CAST({column} AS STRING) = ''" if kinds[column] == "STRING" else ""
        _refuse(engine, column, f"{column} is missing", f"{column} IS NULL{empty}")
    _refuse(engine, TIMESTAMP, f"{TIMESTAMP} is missing", f"{TIMESTAMP} IS NULL")
    times = read_times(engine, name, schema.field(TIMESTAMP).type, unit, millionths)
    time, unit, millionths = times.sql, times.unit, times.millionths
    missing, low, high = engine.rows(f"SELECT count(*) - count({time}), min({time}), max({time}) FROM raw")[0]
    if missing:
        _refuse(engine, TIMESTAMP, f"{TIMESTAMP} is no time (all numbers or all ISO 8601)", f"({time}) IS NULL")
    rating = "true"
    if filters.min_rating is not None:
        number = f"try_cast({RATING} AS DOUBLE)"
        if is_text(plain(schema.field(RATING).type)):
            number = f"CASE WHEN regexp_like({RATING}, '{NUMBER}') THEN {number} END"
        _refuse(engine, RATING, f"{RATING} is no number", f"({number}) IS NULL OR isnan({number})")
        rating = f"({number}) >= CAST({filters.min_rating!r} AS DOUBLE)"
    since = parse_moment(filters.since, "since", unit, millionths)
    until = parse_moment(filters.until, "until", unit, millionths)
    ranges = [f"{TIMESTAMP} >= {since}"] if since is not None else []
    ranges += [f"{TIMESTAMP} < {until}"] if until is not None else []
    selected = ", ".join(f"CAST({column} AS {kinds[column]}) AS {column}" for column in ids)
    engine.define_view("rated", f"SELECT {selected}, {time} AS {TIMESTAMP}, ordinal FROM raw WHERE {rating}")
    engine.define_view("ranged", f"SELECT * FROM rated WHERE {' AND '.join(ranges) or 'true'}")
    warn_of_doubtful(engine, times, low, high, before)
    counts = {"rows_read": read}

    def left_out_by(option: str, table: str, before: int, asked: bool) -> int:
        after = engine.rows(f"SELECT count(*) FROM {table}")[0][0] if asked else before
        if not after:
            asked_for = "since and until leave" if option == "time_range" else f"{option} leaves"
            raise ValueError(f"{name}: {asked_for} none of the {before} rows.")
        if asked:
            counts[f"rows_left_out_by_{option}"] = before - after
        return after

    num_rows = left_out_by("min_rating", "rated", read, filters.min_rating is not None)
    num_rows = left_out_by("time_range", "ranged", num_rows, bool(ranges))
    found = _encode(engine, name, ids)
    if filters.repeats != KEEP:
        engine.define("log", _without_repeats(filters.repeats, DOMAIN in ids))
        num_rows = left_out_by("repeats", "log", num_rows, True)
    elif max(filters.core) > 1:
        engine.define("log", "SELECT * FROM encoded")
    else:
        engine.define_view("log", "SELECT * FROM encoded")  # read once only, by the sort
    kept = _k_core(engine, *filters.core) if max(filters.core) > 1 else num_rows
    counts["rows_left_out_by_min_interactions"] = num_rows - kept
    return CleanLog(found[USER], found[ITEM], found.get(DOMAIN), unit, millionths, kept, counts)


def sorted_rows(engine: Engine, sound: CleanLog) -> Iterator[pa.RecordBatch]:
    """The log by user and time, ties in the order of the source: user_code, item_code, timestamp, domain_code."""
    columns = f"user_code, item_code, {TIMESTAMP}{', domain_code' if sound.domains is not None else ''}"
    return engine.batches(f"SELECT {columns} FROM log ORDER BY user_code, {TIMESTAMP}, ordinal")


def _refuse(engine: Engine, column: str, what: str, bad: str) -> None:
    """Raises for the first row in which a condition holds."""
    number, first = engine.rows(f"SELECT count(*), min(ordinal) FROM raw WHERE {bad}")[0]
    if number:
        shown = column
        if pa.types.is_timestamp(engine.schema("raw").field(column).type):  # DuckDB cannot show what it cannot convert
            shown = f"CASE WHEN {column} IS NOT NULL THEN 'a moment too far away' END"
        value = engine.rows(f"SELECT {shown} FROM raw WHERE ordinal = {first}")[0][0]
        file, row = engine.place(first)
        shown = repr(value) if len(repr(value)) <= 100 else f"{repr(value)[:100]}..."
        raise ValueError(f"{file}: {what} in row {row}: {shown} ({number} such rows). Fix or remove them.")


def _id_type(name: str, column: str, kind: pa.DataType) -> str:
    kind = plain(kind)
    if pa.types.is_integer(kind):
        return "UBIGINT" if kind == pa.uint64() else "BIGINT"
    if is_text(kind):
        return "STRING"
    raise ValueError(f"{name}: {column} is {kind}; ids are text or integers. Cast the column first.")


def _encode(engine: Engine, name: str, ids: list[str]) -> dict[str, Any]:
    """Makes the view `encoded`, in which every id is its place in the sorted list of ids; returns the lists."""
    found: dict[str, Any] = {}
    for column in ids:
        table = f"{column}_codes"
        engine.define(
            table,
            f"SELECT id, CAST(row_number() OVER (ORDER BY id) - 1 AS INT) AS code "
            f"FROM (SELECT DISTINCT {column} AS id FROM ranged) AS ids",
        )
        parts = [batch.column(0) for batch in engine.batches(f"SELECT id FROM {table} ORDER BY code")]
        found[column] = pa.chunked_array(parts).combine_chunks()
    if DOMAIN in ids and len(found[DOMAIN]) > MAX_DOMAINS:
        raise ValueError(f"{name}: {len(found[DOMAIN])} domains, at most {MAX_DOMAINS}; is {DOMAIN} the right column?")
    domain = "CAST(d.code AS SMALLINT) AS domain_code, " if DOMAIN in ids else ""
    join = f" JOIN {DOMAIN}_codes AS d ON r.{DOMAIN} = d.id" if DOMAIN in ids else ""
    engine.define_view(
        "encoded",
        f"SELECT u.code AS user_code, i.code AS item_code, r.{TIMESTAMP}, {domain}r.ordinal FROM ranged AS r "
        f"JOIN {USER}_codes AS u ON r.{USER} = u.id JOIN {ITEM}_codes AS i ON r.{ITEM} = i.id{join}",
    )
    return found


def _without_repeats(policy: str, has_domain: bool) -> str:
    columns = f"user_code, item_code, {TIMESTAMP}, {'domain_code, ' if has_domain else ''}ordinal"
    same = f"user_code, item_code{f', {TIMESTAMP}' if policy == DISTINCT else ''}"
    way = "DESC" if policy == LAST else "ASC"
    return (
        f"SELECT {columns} FROM (SELECT *, row_number() OVER (PARTITION BY {same} "
        f"ORDER BY {TIMESTAMP} {way}, ordinal {way}) AS nth FROM encoded) AS numbered WHERE nth = 1"
    )


def _k_core(engine: Engine, of_users: int, of_items: int) -> int:
    """Keeps users and items that have at least so many rows each, repeated until nothing changes; returns the rows
    left.

    Raises:
        ValueError: if nothing is left.
    """
    rows = engine.rows("SELECT count(*) FROM log")[0][0]
    while True:
        enough = " AND ".join(
            f"{code} IN (SELECT {code} FROM log GROUP BY {code} HAVING count(*) >= {k})"
            for code, k in (("user_code", of_users), ("item_code", of_items))
        )
        engine.define("log", f"SELECT * FROM log WHERE {enough}")
        left = engine.rows("SELECT count(*) FROM log")[0][0]
        if left == 0:
            core = f"{of_users}-core" if of_users == of_items else f"core of {of_users} rows a user, {of_items} an item"
            raise ValueError(f"the {core} of this log is empty; use a smaller k.")
        if left == rows:
            return left
        rows = left
