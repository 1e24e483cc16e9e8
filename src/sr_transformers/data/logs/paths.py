"""Paths that can be opened here: names in UTF-8, and files that end.

Checked before any library of another language sees a path: those crash at a name that is not UTF-8, and wait for ever
at a pipe or a device.
"""

import os
import stat
from pathlib import Path


def check_name(path: str | Path) -> None:
    """Raises ValueError for a name that is not UTF-8, or that this process does not read as UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ValueError(
            f"{shown}: its name is not read as UTF-8 here; rename it, or, where the terminal shows it well, set "
            "PYTHONUTF8=1."
        ) from error


def check_regular(path: Path) -> None:
    """Raises ValueError for what is there and no regular file (links are followed), and for names as `check_name`."""
    check_name(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(
            f"{path}: it is no regular file but a pipe, a device or the like; write what comes out of it to a file, "
            "and give that."
        )
