"""What must not leave with a repository: files that a link leads to, tokens, the path of the home folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import get_token

from sr_transformers.public import private_words

_WEIGHTS = (".safetensors",)
_BLOCK = 1 << 24  # bytes read at a time
_OVERLAP = 4096  # of two blocks: longer than any token or home folder


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Makes sure that nothing of what is published is a link or a device.

    Args:
        folder: of the run or study.
        names: files and folders in it, folders with all that they hold; those that do not exist are passed over.

    Raises:
        ValueError: if one is: publishing would follow it to a file that nobody meant to show.
    """
    for name in names:
        top = folder / name
        inside = sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else []
        found = [path for path in (top, *inside) if path.is_symlink()]
        if found:
            more = f" and {len(found) - 1} more links" if len(found) > 1 else ""
            raise ValueError(
                f"{found[0]}{more}: publishing follows no links; put the file itself there, or remove the link."
            )
        special = [path for path in (top, *inside) if path.exists() and not path.is_file() and not path.is_dir()]
        if special:
            raise ValueError(f"{special[0]} is neither a file nor a folder; remove it before you publish.")


def refuse_private(folder: Path, token: str | None = None) -> None:
    """Makes sure that no file holds a token of the Hub or the path of the home folder.

    Weights are not looked at: they are numbers.

    Raises:
        ValueError: if one does, naming it.
    """
    secrets = (token, get_token())
    # A card last: what it says stands in a record, which is what must change.
    for path in sorted(folder.rglob("*"), key=lambda path: (path.name == "README.md", path)):
        if not path.is_file() or path.suffix in _WEIGHTS:
            continue
        with open(path, "rb") as file:
            end = b""
            while block := file.read(_BLOCK):
                found = private_words(end + block, [one for one in secrets if one and len(one) > 7])
                if found:
                    raise ValueError(
                        f"{os.path.relpath(path, folder)} would show {' and '.join(found)} to everybody: take it out "
                        "there (in the run's or study's own file of that name) and publish again."
                    )
                end = block[-_OVERLAP:]
