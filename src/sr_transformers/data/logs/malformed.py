"""Which row of a text file is malformed, and how: looked for only when an engine has refused the file.

Engines say it in words of their own, about options that are not ours, and count lines in ways of their own. Rows are
counted here as everywhere: from 1, without the header line and without empty lines.
"""

import contextlib
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

MAX_LINE = 4 << 20  # bytes of a row of CSV
_UNIT = "\x1f"  # stands for a separator of several characters


def open_text(file: Path, newline: str = "") -> TextIO:
    """A text file, perhaps compressed; what is not UTF-8 becomes surrogates."""
    how: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": newline}
    return gzip.open(file, "rt", **how) if file.suffix == ".gz" else open(file, **how)  # type: ignore[return-value]


def cut(lines: Iterable[str], separator: str, strict: bool = False) -> Iterator[list[str]]:
    """The rows of a CSV file, fields within quotes told apart from separators and line ends."""
    if len(separator) > 1:
        return csv.reader((line.replace(separator, _UNIT) for line in lines), delimiter=_UNIT, strict=strict)
    return csv.reader(lines, delimiter=separator, strict=strict)


def is_utf8(text: str) -> bool:
    """Whether text that was read with `open_text` was UTF-8, and whether it can be written so."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def csv_fault(file: Path, separator: str, width: int, has_header: bool) -> str | None:
    """What is wrong with the first malformed row of a CSV file; None if none is found.

    Args:
        width: fields of a row.
    """
    ends: dict[str, int] = {}  # row of the first line that ends so
    row = -has_header

    def watched(lines: TextIO) -> Iterator[str]:
        for line in lines:
            ends.setdefault(line[len(line.rstrip("\r\n")) :][-2:], row + 1)
            yield line

    def scan(lines: TextIO) -> str | None:
        nonlocal row
        for fields in cut(watched(lines), separator, strict=True):
            if not fields:
                continue
            row += 1
            if not is_utf8("".join(fields)):
                return f"row {row} is not UTF-8; convert the file, for example with iconv"
            if len(fields) != width and row and not (len(fields) == width + 1 and not fields[-1]):
                return f"row {row} has {len(fields)} fields, not {width}"
            if sum(len(field.encode()) + 1 for field in fields) > MAX_LINE:
                return f"row {row} is longer than {MAX_LINE} bytes"
        known = {end: first for end, first in ends.items() if end}
        if len(known) > 1:
            return f"from row {max(known.values())} on lines end differently ({' and '.join(map(repr, known))})"
        return None

    with _long_fields():
        try:
            return _scanned(file, "", scan)
        except csv.Error as error:
            return f"row {row + 1} has a quote that is not closed, or a field longer than {MAX_LINE} bytes ({error})"
        except (OSError, EOFError, zlib.error) as error:
            return f"after row {max(row, 0)} it breaks off ({error})"


def jsonl_fault(file: Path, ids: Iterable[str], columns: Iterable[str]) -> str | None:
    """What is wrong with the first malformed row of a JSONL file; None if none is found.

    Args:
        ids: keys whose values are ids.
        columns: keys that are read.
    """
    row = 0

    def scan(lines: TextIO) -> str | None:
        nonlocal row
        for line in lines:
            if not line.strip():
                continue
            row += 1
            if not is_utf8(line):
                return f"row {row} is not UTF-8; convert the file, for example with iconv"
            try:
                value = json.loads(line, object_pairs_hook=_Pairs, parse_constant=_no_number)
            except ValueError as error:
                return f"row {row} is no JSON ({error})"
            except RecursionError:
                return f"row {row} is nested too deeply"
            if not isinstance(value, _Pairs):
                return f"row {row} is no JSON object"
            keys = [key for key, _ in value]
            if twice := next((key for key in columns if keys.count(key) > 1), None):
                return f"row {row} has the key {twice} twice"
            for key, one in value:
                if isinstance(one, str) and not is_utf8(one):
                    return f"{key} of row {row} holds a lone surrogate"
                if key in ids and one is not None and (isinstance(one, bool) or not isinstance(one, str | int)):
                    shown = json.dumps(dict(one) if isinstance(one, _Pairs) else one)[:100]
                    return f"{key} of row {row} is {shown}; ids are text or integers"
        return None

    try:
        return _scanned(file, "\n", scan) or (_MARK if file.suffix != ".gz" and _has_mark(file) else None)
    except (OSError, EOFError, zlib.error) as error:
        return f"after row {row} it breaks off ({error})"


_MARK = "it begins with a byte order mark, which JSON does not have; remove its first 3 bytes"


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, keys that stand twice included."""


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _has_mark(file: Path) -> bool:
    with open(file, "rb") as content:
        return content.read(3) == b"\xef\xbb\xbf"


def _scanned(file: Path, newline: str, scan: Callable[[TextIO], str | None]) -> str | None:
    with open_text(file, newline) as lines:
        return scan(lines)


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(MAX_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)
