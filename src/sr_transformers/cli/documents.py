"""The files that `--json` names: looked at before the work, written whole and before anything is printed, so that a
reader that goes away (`| head`) or a full disk loses no result."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sr_transformers.records import read_json, write_whole


def check_place(name: str | None, reads: Iterable[str] = (), keys: Iterable[str] = ()) -> None:
    """Makes sure that a document could be written, and that it would not replace what the command reads.

    Args:
        name: of the file; None: no document is wanted.
        reads: files and folders that the command reads; a name on the Hub is none.
        keys: that every document of this command has (the first one of a list), by which an earlier one is known.

    Raises:
        OSError: if it is a folder, lies in a folder that does not exist, may not be written, is a file that the command
            reads, or is one in a folder that it reads and no earlier document of this command.
    """
    if name is None:
        return
    path = Path(name).absolute()
    if path.is_dir():
        raise IsADirectoryError(f"--json {name} is a folder; give the name of a file in it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--json {name}: there is no such folder; make it first.")
    if not os.access(path.parent, os.W_OK) and not (path.exists() and os.access(path, os.W_OK)):
        raise PermissionError(f"--json {name}: you may not write there; choose another folder.")
    for one in map(Path, reads if path.is_file() else ()):
        inside = one.is_dir() and path.resolve().is_relative_to(one.resolve()) and not _has(path, keys)
        if inside or (one.is_file() and one.samefile(path)):
            raise FileExistsError(f"--json {name} is a file that this command reads; choose another name.")


def _has(path: Path, keys: Iterable[str]) -> bool:
    """Whether a file holds a document with these keys, or a list of such."""
    try:
        content = read_json(path)
    except (ValueError, OSError):
        return False
    first = content[0] if isinstance(content, list) and content else content
    return isinstance(first, dict) and set(keys) <= set(first)


def check_figures(name: str | None) -> None:
    """Makes sure that the folder of `--figures` could be made; None is none.

    Raises:
        NotADirectoryError: if it is a file, or lies below one.
    """
    if name is None:
        return
    path = Path(name).absolute()
    file = next((one for one in (path, *path.parents) if one.exists() and not one.is_dir()), None)
    if file is not None:
        raise NotADirectoryError(f"--figures {name}: {file} is a file; give the name of a folder.")


def write_document(name: str | None, document: Any, **options: Any) -> None:
    """Writes a document, if there is a name; options are those of `json.dumps`.

    Raises:
        OSError: if it cannot be written, naming it.
    """
    if name is not None:
        write_whole(Path(name), json.dumps(_finite(document), **{"indent": 2, **options}) + "\n")


def _finite(value: Any) -> Any:
    """The same with null for NaN and infinities, which JSON does not have: what a single user has no error of."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
