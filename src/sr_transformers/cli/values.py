"""What several commands share: types of options (numbers with a range, refused by the name of their option before
anything is loaded), their words, and how warnings are told."""

import argparse
import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from sr_transformers.messages import shown

# What --seen says, as `filter_seen` and `exclude_seen` take it.
SEEN = {"auto": None, "remove": True, "keep": False}
ATTENTION_HELP = (
    "sdpa, eager, flash_attention_2, torch_varlen or flex_attention; without it the fastest that suits model, "
    "precision and machine"
)


MOST_DRAWS = 100_000  # far more than any interval needs; beyond, memory or patience ends first


def at_least(minimum: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that takes whole numbers from `minimum` on, up to `most` if there is a limit."""

    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{shown(text)} is no whole number of at least {minimum}.")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is too many; give at most {most:,}.")
        return value

    return whole


def duration(text: str) -> float:
    """The type of an option that takes a time: seconds of "90s", "30m", "1h" or "1h30m".

    >>> duration("1h30m"), duration("2.5m")
    (5400.0, 150.0)
    """
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    found = [float(part or 0) for part in parts.groups()] if parts else [0.0]
    seconds = sum(size * part for size, part in zip((3600, 60, 1), found, strict=False))
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no time above 0; write 90s, 30m, 1h or 1h30m.")
    return seconds


@contextlib.contextmanager
def plain_warnings(command: str) -> Iterator[None]:
    """Warnings as one line each, like errors."""

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        print(f"sr-transformers {command}: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
