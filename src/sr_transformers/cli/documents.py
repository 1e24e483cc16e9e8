"""The files that `--json` names: looked at before the work, written whole and before anything is printed, so that a
reader that goes away (`| head`) or a full disk loses no result."""

import json
import os
from pathlib import Path
from typing import Any

from sr_transformers.records import write_whole


def check_place(name: str | None) -> None:
    """Makes sure that a document could be written; None is none.

    Raises:
        OSError: if it is a folder, lies in a folder that does not exist, or may not be written.
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


def write_document(name: str | None, document: Any, **options: Any) -> None:
    """Writes a document, if there is a name; options are those of `json.dumps`.

    Raises:
        OSError: if it cannot be written, naming it.
    """
    if name is not None:
        write_whole(Path(name), json.dumps(document, **{"indent": 2, **options}) + "\n")
