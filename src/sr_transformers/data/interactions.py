"""A raw log made sound: times as integers, ids without nulls, rows sorted by user and time with ties as given.

What cannot be understood is refused with the first offending row; what is left out on request (k-core) is counted.
"""

import polars as pl

from sr_transformers.columns import ITEM, TIMESTAMP, USER


def clean(log: pl.DataFrame, name: str = "log") -> pl.DataFrame:
    """Checks a log and sorts it stably by (user, time): rows that tie keep the order of the source.

    Args:
        log: columns user_id, item_id, timestamp; times as integers, fractional numbers, dates, or text that is a
            number or ISO 8601.
        name: what to call the log in errors.

    Returns:
        The same rows; timestamp is int64: the source's numbers, or microseconds since 1970 for dates and ISO text.

    Raises:
        ValueError: an empty log, a null id or time, an id that is neither text nor integer, an empty text id, or a
            time that is no time. The message names the row, counted from 1 without a header.
    """
    if log.is_empty():
        raise ValueError(f"{name}: there are no interactions in it.")
    for column in (USER, ITEM):
        dtype = log.schema[column]
        if not (dtype.is_integer() or dtype == pl.String):
            raise ValueError(f"{name}: {column} is {dtype}; ids are text or integers. Cast the column first.")
        bad = log[column].is_null() if dtype.is_integer() else log[column].is_null() | (log[column] == "")
        _refuse(bad, log[column], f"{name}: {column} is missing")
    times = log[TIMESTAMP]
    _refuse(times.is_null(), times, f"{name}: {TIMESTAMP} is missing")
    parsed = _parse_times(times)
    _refuse(parsed.is_null(), times, f"{name}: {TIMESTAMP} is neither a number nor ISO 8601")
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
    if dtype.is_float():
        # Fractions of the source's unit would tie after rounding: keep them as microunits.
        whole = (times == times.round()).all()
        return (times if whole else times * 1e6).round().cast(pl.Int64, strict=False)
    if dtype in (pl.Date, pl.Datetime) or dtype == pl.Datetime:
        return times.cast(pl.Datetime("us")).dt.epoch("us")
    if dtype == pl.String:
        numbers = times.str.strip_chars().cast(pl.Float64, strict=False)
        if numbers.is_not_null().any():
            integers = times.str.strip_chars().cast(pl.Int64, strict=False)
            return integers if integers.is_not_null().all() else _parse_times(numbers)
        return times.str.to_datetime(time_unit="us", time_zone="UTC", strict=False).dt.epoch("us")
    return pl.Series([None] * len(times), dtype=pl.Int64)


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
