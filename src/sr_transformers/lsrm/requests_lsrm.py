# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""What whoever asks for recommendations may say: ids, histories, moments, how many, yes or no.

Python would take much for something else: a set for a history in whatever order it has, True for the item 1 or for one
recommendation, "no" for yes, a day for the moment that its number is. Such a request is refused in words, the same ones
wherever it is made.
"""

import itertools
import numbers
from collections.abc import Collection, Iterable, Mapping, Set
from time import time_ns
from typing import Any

from .configuration_lsrm import UNITS

_BOUND = 1 << 63  # moments are int64


def check_ids(items: Iterable[object]) -> None:
    """Refuses what can be no id of an item, as the preparation of a log does: ids are text or integers.

    Taken as text, a missing value would be the item called "None" or "nan", and True the item 1.

    Raises:
        ValueError: naming the first such value.
        TypeError: for a single id, which would be read letter by letter, and for what can be read only once.
    """
    if isinstance(items, str | bytes) or not isinstance(items, Collection):
        raise TypeError(f"item ids are given as a sequence, got {items!r}; write [{items!r}].")
    for place, item in enumerate(items):
        if isinstance(item, str) and not item:
            raise ValueError(f"the item at place {place} is '', an empty text; leave it out.")
        if isinstance(item, bool) or not isinstance(item, str | numbers.Integral):
            kind = type(item).__name__
            raise ValueError(
                f"the item at place {place} is {item!r} ({kind}); ids are text or integers, as in the log. Leave "
                "missing ones out and write the others so."
            )


def check_order(history: Any) -> None:
    """Refuses a history without an order of its own.

    Raises:
        TypeError: for a set or a mapping.
    """
    if isinstance(history, Set | Mapping):
        kind = type(history).__name__
        raise TypeError(f"a history is a sequence of item ids, oldest first; a {kind} has no such order: pass a list.")


def check_times(times: Any, history: Collection[Any], name: str) -> list[int]:
    """The moments of a history.

    Args:
        name: what a message calls them.

    Raises:
        ValueError: unless they are one integer for each item, none earlier than the one before.
    """
    if isinstance(times, str | bytes | Set | Mapping) or not isinstance(times, Collection):
        raise ValueError(f"{name} are {times!r}; give a list of integers, in the unit of the log.")
    for place, time in enumerate(times):
        if isinstance(time, bool) or not isinstance(time, numbers.Integral) or not -_BOUND <= int(time) < _BOUND:
            raise ValueError(
                f"{name}: the moment at place {place} is {time!r} ({type(time).__name__}); moments are integers of 64 "
                "bits, in the unit of the log that the model was trained on (its times may be seconds, days or others)."
            )
    found = [int(time) for time in times]
    if len(found) != len(history) or any(a > b for a, b in itertools.pairwise(found)):
        raise ValueError(
            f"{name} must be one moment for each of its {len(history)} items, none earlier than the one before."
        )
    return found


def moment_of_request(query_time: Any, times: Collection[int], config: Any, name: str = "query_time") -> int | None:
    """When it is asked what comes next, for a model that is told so; None for others.

    Args:
        query_time: the moment, in the unit of the log; None: now.
        times: of the history, as `check_times` has it.
        config: of the model.
        name: what a message calls the moment.

    Raises:
        ValueError: for a moment that is none or lies before the history's last, a model that is not told, or no moment
            where the unit of the log is not known.
    """
    if not getattr(config, "query_time", False):
        if query_time is None:
            return None
        raise ValueError(f"{name}: this model is not told when it is asked (query_time in config.json); leave it out.")
    if query_time is None:
        if config.times_in is None:
            raise ValueError(
                f"this model is told when it is asked, and the unit of its log's times is not known: give {name}, in "
                "that unit."
            )
        query_time = time_ns() * UNITS[config.times_in] // UNITS["ns"]
    (found,) = check_times([query_time], [None], name)
    if times and found < list(times)[-1]:
        raise ValueError(f"{name} is {found}, before {list(times)[-1]}, the last moment of the history.")
    return found


def check_count(name: str, count: Any) -> None:
    """Raises ValueError unless `count` is a whole number from 1 on."""
    if isinstance(count, bool) or not isinstance(count, numbers.Integral):
        raise ValueError(f"{name} is {count!r}; it must be a whole number.")
    if count < 1:
        raise ValueError(f"{name} is {count}; it must be at least 1.")


def check_request(count: Any, exclude_seen: Any, name: str = "k") -> None:
    """Refuses what a list of recommendations cannot be of.

    Raises:
        ValueError: unless `count` (of that name) is a whole number from 1 on, and exclude_seen True, False or None: any
            other text or number would count as yes.
    """
    check_count(name, count)
    if exclude_seen is not None and not isinstance(exclude_seen, bool):
        raise ValueError(f"exclude_seen is {exclude_seen!r}; it must be True, False or None.")


__all__ = ["check_count", "check_ids", "check_order", "check_request", "check_times", "moment_of_request"]
