"""A raw log made sound: times as integers, ids without nulls, rows sorted by user and time with ties as given.

What cannot be understood is refused with the first offending row; what is left out on request (k-core) is counted.
"""

import polars as pl

from sr_transformers.columns import DOMAIN, ITEM, TIMESTAMP, USER

_ISO = (
    r"^(?<day>\d{4}-\d{2}-\d{2})"
    r"([T ](?<minute>\d{2}:\d{2})(?<second>:\d{2}(\.\d+)?)?(?<zone>Z|[+-]\d{2}(:?\d{2})?)?)?$"
)


def clean(log: pl.DataFrame, name: str = "log") -> pl.DataFrame:
    """Checks a log and sorts it stably by (user, time): rows that tie keep the order of the source.

    Args:
        log: columns user_id, item_id, timestamp and perhaps domain; times as numbers, dates, or text that is
            all numbers or all ISO 8601 (`2024-01-31`, `2024-01-31T23:59:59.5+02:00`; without a zone it is UTC).
        name: what to call the log in errors.

    Returns:
        The same rows; timestamp is int64: the source's numbers (millionths of its unit where some have a fraction), or
        microseconds since 1970 for dates and ISO text.

    Raises:
        ValueError: an empty log, a null id, domain or time, one that is neither text nor integer, an empty text
            id, or a time that is no time. The message names the row, counted from 1 without a header.
    """
    if log.is_empty():
        raise ValueError(f"{name}: there are no interactions in it.")
    for column in (USER, ITEM, *((DOMAIN,) if DOMAIN in log.columns else ())):
        dtype = log.schema[column]
        if not (dtype.is_integer() or dtype == pl.String):
            raise ValueError(f"{name}: {column} is {dtype}; ids are text or integers. Cast the column first.")
        bad = log[column].is_null() if dtype.is_integer() else log[column].is_null() | (log[column] == "")
        _refuse(bad, log[column], f"{name}: {column} is missing")
    times = log[TIMESTAMP]
    _refuse(times.is_null(), times, f"{name}: {TIMESTAMP} is missing")
    parsed = _parse_times(times)
    _refuse(parsed.is_null(), times, f"{name}: {TIMESTAMP} is no time (all numbers or all ISO 8601)")
    return log.with_columns(parsed.alias(TIMESTAMP)).sort(USER, TIMESTAMP, maintain_order=True)


def _refuse(bad: pl.Series, values: pl.Series, what: str) -> None:
    first = bad.arg_true().head(1)
    if len(first):
        row = int(first[0])
        raise ValueError(f"{what} in row {row + 1}: {values[row]!r} ({int(bad.sum())} such rows). Fix or remove them.")


def _parse_times(times: pl.Series) -> pl.Series:
    """Int64 times, null where a value is no time."""
    dtype = times.dtype
    if dtype.is_integer():
        return times.cast(pl.Int64, strict=False)
    if dtype.is_float() or dtype.is_decimal():
        # Fractions of the source's unit would tie after rounding: keep them as microunits.
        times = times.cast(pl.Float64)
        whole = (times == times.round()).all()
        return (times if whole else times * 1e6).round().cast(pl.Int64, strict=False)
    if dtype in (pl.Date, pl.Datetime):  # of any unit and zone
        return times.cast(pl.Datetime("us")).dt.epoch("us")
    if dtype == pl.String:
        text = times.str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        if numbers.is_not_null().any():
            integers = text.cast(pl.Int64, strict=False)
            return integers if integers.is_not_null().all() else _parse_times(numbers)
        return _parse_iso(text)
    return pl.Series([None] * len(times), dtype=pl.Int64)


def _parse_iso(text: pl.Series) -> pl.Series:
    # Written out in full first: a guessed format depends on the first row, and takes 01/02/2024 for a date.
    full = text.str.extract_groups(_ISO).struct.unnest().select(
        pl.concat_str(
            "day",
            pl.lit("T"),
            pl.col("minute").fill_null("00:00"),
            pl.col("second").fill_null(":00"),
            pl.col("zone").replace("Z", "+00").fill_null("+00"),
        )
    )  # fmt: skip
    return full.to_series().str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", strict=False).dt.epoch("us")


def k_core(log: pl.DataFrame, k: int) -> pl.DataFrame:
    """Keeps users and items that have at least k interactions each, repeated until nothing changes.

    Raises:
        ValueError: if nothing is left.
    """
    while True:
        kept = log.filter((pl.len().over(USER) >= k) & (pl.len().over(ITEM) >= k))
        if len(kept) == len(log):
            return log
        if kept.is_empty():
            raise ValueError(f"the {k}-core of this log is empty; use a smaller k.")
        log = kept
