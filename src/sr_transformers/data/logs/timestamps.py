"""Moments in time: written by people as ISO 8601, kept in logs as numbers of some unit since 1970."""

import contextlib
import datetime
import decimal
import math

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # per second
_DIGITS = 22  # of a number; no log holds any beyond 2**63
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def parse_moment(moment: int | str | None, option: str, unit: str | None, millionths: bool = False) -> int | None:
    """A moment as a number of a sound log: the first that is not before it.

    Args:
        moment: a number in the unit of the log as it was given, or ISO 8601 (UTC where no zone is given).
        option: what to call it in errors.
        unit: of the sound log's times.
        millionths: whether these are millionths of the unit of the log as it was given.

    Raises:
        ValueError: if it is neither, or ISO 8601 where the unit is not known.

    >>> parse_moment("1970-01-01T00:00:01", "since", "ms"), parse_moment("1.5", "since", "us", millionths=True)
    (1000, 1500000)
    """
    if moment is None:
        return None
    if isinstance(moment, bool) or not isinstance(moment, int | str):
        raise ValueError(f"{option} {moment!r} must be an int or text: a number, or a moment in ISO 8601.")
    with contextlib.suppress(decimal.InvalidOperation):
        number = decimal.Decimal(moment)
        if number.is_finite() and number.adjusted() < _DIGITS:
            if date := _date_in(str(moment), unit):
                raise ValueError(
                    f"{option} {moment} would be {moment} {unit} after 1970. If it is a date write {date}, and "
                    f"{moment}.0 if it is a number."
                )
            return math.ceil(number * 10**6 if millionths else number)
    try:
        time = datetime.datetime.fromisoformat(str(moment))
    except ValueError as error:
        raise ValueError(f"{option} {moment!r} is neither a number nor ISO 8601.") from error
    if unit not in UNITS:
        raise ValueError(f"{option} {moment!r}: the log's times are numbers of no known unit; say time_unit.")
    time = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    microseconds = (time - _EPOCH) // datetime.timedelta(microseconds=1)
    return -(-microseconds * UNITS[unit] // 10**6)  # the first number that is not before the moment


def _date_in(text: str, unit: str | None) -> str | None:
    """The day that a number was most likely meant as: a year or YYYYMMDD, in a log of finer units than seconds."""
    if unit in ("ms", "us", "ns") and text.isdigit() and len(text) in (4, 8) and 1900 <= int(text[:4]) < 2100:
        with contextlib.suppress(ValueError):
            return datetime.date(int(text[:4]), int(text[4:6] or 1), int(text[6:] or 1)).isoformat()
    return None


def show_moment(moment: int, unit: str | None) -> str:
    """A number of a log as ISO 8601 (UTC); as it is where the unit is not known or the year has no four digits.

    >>> show_moment(1000, "ms")
    '1970-01-01T00:00:01'
    """
    if unit not in UNITS:
        return str(moment)
    try:
        return (_EPOCH + datetime.timedelta(seconds=moment // UNITS[unit])).replace(tzinfo=None).isoformat()
    except OverflowError:
        return str(moment)
