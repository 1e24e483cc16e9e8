"""Moments at which a whole log is cut, for everybody at once; and walks over histories that lie one after the other."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sr_transformers.data.logs.timestamps import UNITS, parse_moment

# How the beginning of a period may be said; at most one way each.
MEASURES = ("validation_from", "test_from", "validation_share", "test_share", "validation_days", "test_days")
SHARE = 0.05  # of the interactions, of each period of which nothing is said
_DAY = 86_400  # seconds


def moments(
    timestamps: np.ndarray, given: Mapping[str, Any], unit: str | None, millionths: bool = False
) -> tuple[int, int]:
    """The first moments of validation and of test.

    Args:
        timestamps: `(rows,)` int64 of the whole log; may be a mapped file.
        given: of `MEASURES`, each with a value. `_from`: a moment, a number in the log's own unit of time or ISO 8601.
            `_share`: a fraction of all interactions, in (0, 1): the period begins at the moment before which all
            interactions but this share (and those of later periods) have passed. `_days`: whole days; the test period
            are the last so many, the day of the last interaction included, days beginning at midnight UTC
            (RecTools' TimeRangeSplitter); validation are the days before it. Of a period that is not mentioned the
            share is 0.05.
        unit, millionths: of the timestamps, see `parse_moment`.

    Raises:
        ValueError: for a share outside (0, 1), less than one day, days of a log whose unit of time nobody said, or a
            moment that is none.
    """
    for name, value in given.items():
        if name.endswith("_share") and not 0 < value < 1:
            raise ValueError(f"{name} {value} must lie between 0 and 1: a fraction of the interactions.")
        if name.endswith("_days") and value < 1:
            raise ValueError(f"{name} {value} must be at least 1.")
        if name.endswith("_days") and unit not in UNITS:
            raise ValueError(f"{name} {value}: the log's times are numbers of no known unit; say time_unit.")
    day = _DAY * UNITS.get(unit or "", 0)
    if "test_from" in given:
        test_from = parse_moment(given["test_from"], "test_from", unit, millionths)
    elif "test_days" in given:
        last = max(int(part.max()) for part in _parts(timestamps))
        test_from = (last // day + 1 - given["test_days"]) * day
    else:
        test_from = quantile(timestamps, 1 - given.get("test_share", SHARE))
    assert test_from is not None  # parse_moment gives back None for None only
    if "validation_from" in given:
        validation_from = parse_moment(given["validation_from"], "validation_from", unit, millionths)
        assert validation_from is not None
        return validation_from, test_from
    if "validation_days" in given:
        return test_from - given["validation_days"] * day, test_from
    if {"test_from", "test_days"} & given.keys():
        passed = sum(int((part < test_from).sum()) for part in _parts(timestamps)) / len(timestamps)
    else:
        passed = 1 - given.get("test_share", SHARE)
    before = passed - given.get("validation_share", SHARE)
    if before <= 0:
        raise ValueError(
            f"{passed:.2%} of the interactions lie before {test_from}, the first moment of test: validation takes all "
            "of them, and leaves nothing to train on. Begin test later or make validation shorter."
        )
    return quantile(timestamps, before), test_from


def blocks(lengths: np.ndarray, rows: int = 1 << 22) -> Iterator[tuple[int, int, int, int]]:
    """Cuts histories that lie one after the other into blocks of whole users.

    Args:
        lengths: `(U,)` int.
        rows: of a block, more only if a single user has more.

    Yields:
        (first user, user after the last, first row, row after the last).
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    user = 0
    while user < len(lengths):
        first = int(ends[user] - lengths[user])
        last = max(int(np.searchsorted(ends, first + rows, side="right")), user + 1)
        yield user, last, first, int(ends[last - 1])
        user = last


def quantile(values: np.ndarray, q: float) -> int:
    """`np.quantile(values, q, method="higher")` of int64 that need not fit the memory: no copy, no sort.

    >>> quantile(np.array([5, 1, 9, 7]), 0.5)
    7
    """
    rank = math.ceil((len(values) - 1) * q)
    low, high = min(int(part.min()) for part in _parts(values)), max(int(part.max()) for part in _parts(values))
    while low < high:  # narrowed to one of up to 65,536 intervals at a time
        width = (high - low) // (1 << 16) + 1
        counts = np.zeros(1 << 16, np.int64)
        for part in _parts(values):
            inside = part[(part >= low) & (part <= high)]
            distance = inside.astype(np.int64).view(np.uint64) - np.uint64(low % 2**64)
            counts += np.bincount((distance // np.uint64(width)).astype(np.int64), minlength=1 << 16)
        passed = np.cumsum(counts)
        interval = int(np.searchsorted(passed, rank, side="right"))
        rank -= int(passed[interval] - counts[interval])
        low, high = low + interval * width, min(low + (interval + 1) * width - 1, high)
    return low


def count_before(lengths: np.ndarray, timestamps: np.ndarray, moment: int) -> np.ndarray:
    """`(U,)` int64: interactions of every user before a moment."""
    counts = np.zeros(len(lengths), np.int64)
    for first, last, start, stop in blocks(lengths):
        user = np.repeat(np.arange(last - first), lengths[first:last])
        counts[first:last] = np.bincount(user, timestamps[start:stop] < moment, last - first)
    return counts


def _parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """Views of an array, some numbers at a time."""
    return (values[start : start + (1 << 22)] for start in range(0, len(values), 1 << 22))
