"""What a prepared folder says of itself (`manifest.json`), and whether its files are still those that were made.

The manifest names the size and the digest of every file, and its own digest. Sizes are looked at whenever a folder is
opened; contents by whoever is about to read all of them (training, evaluation, appending) and by
`sr-transformers data verify`. Nothing is repaired here: a folder that changed is prepared again, or copied again.

The digests (XXH3, 128 bits, at the speed of memory) find damage and mix-ups. They are no protection from somebody who
wants to deceive: whoever can write the files can write the manifest.
"""

import functools
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from sr_transformers.data.logs.paths import check_name

MANIFEST = "manifest.json"
FORMAT = 4
_DIGEST, _FILES = "xxh128", "files"  # of the manifest itself; of the others
_FIX = "Prepare the log again, or copy the folder again from where it is whole."

Files = Mapping[str, Mapping[str, Any]]


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes manifest.json, with size and digest of every other file that is there; to be done last.

    Hidden files and folders of the folder are not part of it.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / MANIFEST and not path.relative_to(folder).parts[0].startswith(".")
    )
    files = {name: {"bytes": (folder / name).stat().st_size, _DIGEST: digest(folder / name)} for name in names}
    whole = {"format": FORMAT, **manifest, _FILES: files}
    text = json.dumps({**whole, _DIGEST: _of_manifest(whole)}, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> tuple[dict[str, Any], Files]:
    """The manifest of a prepared folder, and by name what it says of the other files: `bytes` and `xxh128`.

    Raises:
        FileNotFoundError: if the folder is not a prepared one.
        ValueError: for a manifest that is damaged, was changed, or is of another version.
    """
    check_name(folder)
    file = folder / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} is not a prepared folder (no {MANIFEST}); make one with "
            f"`sr-transformers prepare LOG --output {folder}`."
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: it cannot be read as JSON ({error}). {_FIX}") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{file} is damaged: it is no JSON object. {_FIX}")
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{file} has format {manifest.get('format')}, this version reads {FORMAT}: prepare the log again."
        )
    if manifest.pop(_DIGEST, None) != _of_manifest(manifest):
        raise ValueError(f"{file} was changed after it was made (its digest is another). {_FIX}")
    return manifest, manifest.pop(_FILES)


def check_sizes(folder: Path, files: Files) -> None:
    """Compares kinds and sizes of files with what the manifest says; opens none of them.

    Raises:
        ValueError: for the first file that is missing, no regular file (a pipe would be waited for) or of another size.
    """
    for name, said in files.items():
        if fault := _fault(folder / name, said["bytes"]):
            raise ValueError(f"{folder / name} {fault}. {_FIX}")


def check_contents(folder: Path, files: Files) -> None:
    """Compares sizes and digests of files with what the manifest says.

    A file that was not written to since this process looked at it is not read again.

    Raises:
        ValueError: naming all files that are not what was made.
    """
    faults = []
    for name, said in files.items():
        fault = _fault(folder / name, said["bytes"])
        if fault is None and digest(folder / name) != said[_DIGEST]:
            fault = "has other contents than when it was made (its digest is another)"
        if fault is not None:
            faults.append(f"{folder / name} {fault}")
    if faults:
        raise ValueError(f"{'; '.join(faults)}. {_FIX}")


def verify(folder: str | Path) -> Files:
    """Whether a prepared folder is what was made: its manifest, and the contents of all files that this names.

    Returns:
        By name what the manifest says of each file.

    Raises:
        FileNotFoundError, ValueError: as `read_manifest` and `check_contents`.
    """
    files = read_manifest(Path(folder))[1]
    check_contents(Path(folder), files)
    return files


def digest(file: Path) -> str:
    """XXH3 of a file, 128 bits in hexadecimal."""
    state = file.stat()
    return _digest(os.path.abspath(file), state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=1 << 16)
def _digest(file: str, size: int, changed: int, node: int) -> str:
    whole = xxhash.xxh3_128()
    with open(file, "rb") as content:
        while part := content.read(1 << 20):
            whole.update(part)
    return whole.hexdigest()


def _fault(file: Path, size: int) -> str | None:
    """What is wrong with a file from outside."""
    try:
        state = file.stat()
    except FileNotFoundError:
        return "is missing"
    if not stat.S_ISREG(state.st_mode):
        return "is no regular file"
    if state.st_size != size:
        return f"has {state.st_size} bytes, and had {size} when it was made"
    return None


def _of_manifest(manifest: dict[str, Any]) -> str:
    return xxhash.xxh3_128(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
