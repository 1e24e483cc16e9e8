"""Times of a log as int64: which types and texts are times, their exact value in SQL, and doubts about them.

Written in the SQL that DuckDB and Spark share. What is no time becomes null, and the caller refuses it. What is a time
but hardly the one that was meant (milliseconds among seconds, the year 55970) is taken as it stands: a warning names
the row.
"""

import warnings
from dataclasses import dataclass

import pyarrow as pa

from sr_transformers.columns import TIMESTAMP
from sr_transformers.data.logs.duckdb_engine import Engine
from sr_transformers.data.logs.timestamps import UNITS

NUMBER = "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"  # engines take more: 1_000, 0x1p3, 1d
_INTEGER = "^[+-]?[0-9]+$"
_ISO = (
    "^([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})"
    "([Tt ]((?:[01][0-9]|2[0-3]):?[0-5][0-9])(:?[0-5][0-9])?(?:([.,][0-9]{1,6})[0-9]*)?"
    "( ?(?:[Zz]|UTC|GMT|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?))?)?$"
)
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]"
_PLAIN = (
    f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_CLOCK}:[0-5][0-9]([.][0-9]{{1,6}})?(Z|[+-]{_CLOCK})?)?$"  # most logs'
)
_ZONE = "([+-])([0-9]{2}):?([0-9]{2})?$"
_FINER = "[.,][0-9]{6}[0-9]*[1-9]"  # than microseconds
_LONGEST = len("2024-01-01T00:00:00.123456")  # ISO text without such digits, zone aside

# Numbers since 1970 that mean a moment between March 1973 and 2286 in one unit mean no moment of our time in another.
_EDGES = (10**8, 10**10, 10**11, 10**13, 10**14, 10**16, 10**17, 10**19)  # of s, ms, us and ns
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_EARLIEST, _LATEST = -2_208_988_800, 253_402_300_800  # the years 1900 and 10000, in seconds
_YEAR = 31_556_952  # seconds
_KEPT = "They are taken as they stand; if they were meant otherwise, correct the log or leave these rows out."


@dataclass(frozen=True)
class Times:
    """How the times of the table `raw` are read.

    Attributes:
        sql: expression of an int64, null where the value is no time.
        unit: of these int64, "s", "ms", "us" or "ns"; None if nobody said it.
        millionths: whether they are millionths of the source's unit.
        said: unit of the source's numbers; None if nobody said it or they are dates.
        are_dates: dates or ISO text.
        finer: expression that is true where digits beyond microseconds are cut off; None: nowhere.
    """

    sql: str
    unit: str | None
    millionths: bool = False
    said: str | None = None
    are_dates: bool = False
    finer: str | None = None


def plain(kind: pa.DataType) -> pa.DataType:
    """A type, or that of its values if it is a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether it is text of any Arrow layout."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def read_times(engine: Engine, name: str, kind: pa.DataType, unit: str | None, millionths: bool) -> Times:
    """Finds out how the times of `raw` are to be read.

    Args:
        name: what to call the log in errors.
        kind: the engine's type of the column.
        unit: of times that are numbers.
        millionths: take times that are floats as millionths even if none has a fraction.

    Raises:
        ValueError: for a unit of times that are dates.
    """
    kind = plain(kind)
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        return Times(f"try_cast({TIMESTAMP} AS BIGINT)", unit, said=unit)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        exact = TIMESTAMP if pa.types.is_decimal(kind) else None
        return _fractions(engine, f"CAST({TIMESTAMP} AS DOUBLE)", exact, unit, millionths)
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        nanos = f"epoch_ns({TIMESTAMP})"  # only DuckDB has this type
        micros = f"({nanos} // 1000 - CASE WHEN {nanos} % 1000 < 0 THEN 1 ELSE 0 END)"
        return _dates(name, unit, micros, f"{nanos} % 1000 <> 0")
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        has_zone = pa.types.is_timestamp(kind) and kind.tz is not None
        moment = TIMESTAMP if has_zone else f"try_cast({TIMESTAMP} AS TIMESTAMP)"  # without a zone it is UTC
        return _dates(name, unit, f"unix_micros({moment})")
    if not is_text(kind):
        return Times("CAST(NULL AS BIGINT)", None)
    text = f"trim(CAST({TIMESTAMP} AS STRING))"  # UUIDs come as text and are none in SQL
    is_integer, is_number = f"regexp_like({text}, '{_INTEGER}')", f"regexp_like({text}, '{NUMBER}')"
    if not millionths and not engine.rows(f"SELECT count(*) FROM raw WHERE NOT {is_integer}")[0][0]:
        return Times(f"try_cast({text} AS BIGINT)", unit, said=unit)
    if not engine.rows(f"SELECT count(*) FROM raw WHERE {is_number}")[0][0]:
        longest = engine.rows(f"SELECT max(length({text})) FROM raw")[0][0]
        return _dates(name, unit, _iso(text), f"regexp_like({text}, '{_FINER}')" if longest > _LONGEST else None)
    number = f"CASE WHEN {is_number} THEN try_cast({text} AS DOUBLE) END"
    return _fractions(engine, number, f"CASE WHEN {is_number} THEN {text} END", unit, millionths)


def _dates(name: str, unit: str | None, micros: str, finer: str | None = None) -> Times:
    if unit not in (None, "us"):
        raise ValueError(f"{name}: its times are dates; time_unit {unit!r} is for numbers.")
    return Times(micros, "us", are_dates=True, finer=finer)


def _fractions(engine: Engine, number: str, exact: str | None, unit: str | None, millionths: bool) -> Times:
    """Times that may have fractions.

    Args:
        number: expression of the value as a double.
        exact: expression of the value as text or a decimal, where a double is not what was written.
    """
    number = f"({number})"
    decimal = f"try_cast({exact} AS DECIMAL(25, 6))"  # what int64 holds has 19 digits before the point
    has_fraction = f"abs({number}) < 9e18 AND {number} <> round({number})"
    if exact is not None:
        has_fraction = f"({has_fraction}) OR {decimal} <> round({decimal})"
    # Fractions of the source's unit would tie after rounding: keep them as microunits.
    any_fraction = millionths or bool(engine.rows(f"SELECT count(*) FROM raw WHERE {has_fraction}")[0][0])
    scaled = f"{number} * 1e6" if any_fraction else number
    sql = f"CASE WHEN abs({scaled}) < 9.2e18 THEN CAST(round({scaled}) AS BIGINT) END"
    if exact is not None:
        factor = "CAST(1000000 AS DECIMAL(7, 0))" if any_fraction else "CAST(1 AS DECIMAL(1, 0))"
        sql = f"CASE WHEN {decimal} IS NULL THEN {sql} ELSE try_cast({decimal} * {factor} AS BIGINT) END"
    finest = {"s": "us", "ms": "ns"}.get(unit or "") if any_fraction else unit
    return Times(sql, finest, any_fraction, said=unit)


def _iso(text: str) -> str:
    # Taken apart and written out in full first: engines guess formats, and some take 01/02/2024 for a date.
    def part(group: int) -> str:
        return f"regexp_extract({text}, '{_ISO}', {group})"

    def zone(group: int) -> str:
        return f"coalesce(try_cast(regexp_extract({part(6)}, '{_ZONE}', {group}) AS BIGINT), 0)"

    date = f"replace({part(1)}, '-', '')"
    day = f"concat(substring({date}, 1, 4), '-', substring({date}, 5, 2), '-', substring({date}, 7, 2))"
    clock = f"replace(concat({part(3)}, {part(4)}), ':', '')"
    clock = f"rpad({clock}, 6, '0')"  # midnight where there is none
    time = f"concat(substring({clock}, 1, 2), ':', substring({clock}, 3, 2), ':', substring({clock}, 5, 2))"
    fraction = f"replace({part(5)}, ',', '.')"
    local = f"unix_micros(try_cast(concat({day}, ' ', {time}, {fraction}) AS TIMESTAMP))"
    sign = f"CASE WHEN {part(6)} LIKE '%-%' THEN -1 ELSE 1 END"
    offset = f"{sign} * ({zone(2)} * 60 + {zone(3)}) * 60000000"
    return (
        f"CASE WHEN regexp_like({text}, '{_PLAIN}') THEN {_plain_iso(text)} "
        f"WHEN regexp_like({text}, '{_ISO}') THEN {local} - {offset} END"
    )


def _plain_iso(text: str) -> str:
    # What both engines read as it stands, but for the zone: expressions of `_iso` take five times as long.
    def last(start: int, size: int) -> str:
        return f"substring({text}, length({text}) - {start - 1}, {size})"

    has_offset = f"length({text}) >= 25 AND {last(6, 1)} IN ('+', '-')"
    local = f"CASE WHEN {has_offset} THEN substring({text}, 1, length({text}) - 6) ELSE replace({text}, 'Z', '') END"
    minutes = f"try_cast({last(5, 2)} AS BIGINT) * 60 + try_cast({last(2, 2)} AS BIGINT)"
    offset = f"CASE WHEN {has_offset} THEN (CASE {last(6, 1)} WHEN '-' THEN -1 ELSE 1 END) * ({minutes}) ELSE 0 END"
    return f"unix_micros(try_cast({local} AS TIMESTAMP)) - ({offset}) * 60000000"


def warn_of_doubtful(engine: Engine, times: Times, low: int, high: int, before: int | None = None) -> None:
    """Warns of times in the view `ranged` that were hardly meant so, with the first such row of each kind.

    These are moments before the year 1900 or after 9999; numbers that look like another unit than the one that was
    said, or than most others (or `before`); and digits beyond microseconds, which are cut off.

    Args:
        low, high: of all times in `raw`.
        before: a time of the rows that these are added to.
    """
    if times.finer is not None:
        _warn(engine, "raw", f"({times.finer})", "has digits beyond microseconds", "Those digits are cut off.")
    scale = 10**6 if times.millionths else 1
    if times.unit is None:
        _warn_of_mixed(engine, [edge * scale for edge in _EDGES if edge * scale < 2**63], low, high, before)
        return
    second = UNITS[times.unit]
    odd = [f"{TIMESTAMP} < {_EARLIEST * second}"] if low < _EARLIEST * second else []
    odd += [f"{TIMESTAMP} >= {_LATEST * second}"] if high >= _LATEST * second else []
    for looks, start, stop in zip(UNITS, _EDGES[::2], _EDGES[1::2], strict=True):
        if times.said not in (None, looks) and start * scale <= high and stop * scale > low:
            odd.append(f"({TIMESTAMP} >= {start * scale} AND {TIMESTAMP} < {stop * scale})")
    if odd:
        why = f"if it counts {_NAMES[times.said]} since 1970 (time_unit {times.said!r})" if times.said else "as written"
        _warn(engine, "ranged", " OR ".join(odd), f"is in the year {{year}} {why}", second=second)


def _warn_of_mixed(engine: Engine, edges: list[int], low: int, high: int, before: int | None) -> None:
    """Warns of numbers of no known unit of which some look like another unit than the others."""

    def place(time: int) -> int:
        return sum(edge <= time for edge in edges)

    lowest, highest = (place(f(low, high, low if before is None else before)) for f in (min, max))
    if highest - lowest < 2:  # units have odd places, and even ones lie between them
        return
    case = (
        f"CASE {' '.join(f'WHEN {TIMESTAMP} < {edge} THEN {n}' for n, edge in enumerate(edges))} ELSE {len(edges)} END"
    )
    rows = dict(engine.rows(f"SELECT {case}, count(*) FROM ranged GROUP BY 1"))
    names = [_NAMES[unit] for unit in UNITS]
    units = [at for at in rows if at % 2]
    usual = max(units, key=lambda at: rows[at], default=0) if before is None else place(before)
    for at in units:
        between = range(min(at, usual) + 1, max(at, usual))
        # Counters that are no moments at all have values everywhere.
        if at != usual and usual % 2 and not any(rows.get(other) for other in between if other % 2 == 0):
            what = f"looks like {names[at // 2]}, those of other rows like {names[usual // 2]}"
            _warn(engine, "ranged", f"{case} = {at}", what)


def _warn(engine: Engine, table: str, odd: str, what: str, so: str = _KEPT, second: int | None = None) -> None:
    number, first = engine.rows(f"SELECT count(*), min(ordinal) FROM {table} WHERE {odd}")[0]
    if not number:
        return
    shown = engine.rows(f"SELECT CAST({TIMESTAMP} AS STRING) FROM raw WHERE ordinal = {first}")[0][0]
    if second is not None:
        time = engine.rows(f"SELECT {TIMESTAMP} FROM {table} WHERE ordinal = {first}")[0][0]
        what = what.format(year=1970 + time // second // _YEAR)
    file, row = engine.place(first)
    warnings.warn(f"{file}: {TIMESTAMP} {shown} in row {row} {what} ({number} such rows). {so}", stacklevel=5)
