"""Types of options: numbers with a range, refused by the name of their option before anything is loaded."""

import argparse
from collections.abc import Callable

from sr_transformers.messages import shown

# What --seen says, as `filter_seen` and `exclude_seen` take it.
SEEN = {"auto": None, "remove": True, "keep": False}


def at_least(minimum: int) -> Callable[[str], int]:
    """The type of an option that takes whole numbers from `minimum` on."""

    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{shown(text)} is no whole number of at least {minimum}.")
        return value

    return whole
