"""A row of the tables of bad inputs, and small ways to damage a file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Damage = Callable[[Path], Any]

# In commands DATA, RUN and RECIPE are sound; d, m and s are copies of the prepared log, the finished run and a run that
# was stopped in the middle, made for the row if its command names them. o is the output.
TRAIN = "train r.yaml --data DATA --output o"
FLAG = "train RECIPE --data DATA --output o"
RESUME = "train RECIPE --data DATA --output s"


@dataclass(frozen=True)
class Row:
    """One bad input.

    Attributes:
        id: unique; A, B, C, ... as in the collection of faults it was found in, N for new ones.
        what: is wrong.
        command: of sr-transformers, in words.
        says: regular expression that the message has to match.
        damage: what is done to the row's folder first.
        code: exit code.
        makes: names that may be new in the folder afterwards; otherwise nothing may.
        seconds: until it counts as a hang.
        room: bytes that a file may have, as on a full disk.
        first: a command that is run before it, and refused.
    """

    id: str
    what: str
    command: str
    says: str
    damage: Damage | None = None
    code: int = 2
    makes: tuple[str, ...] = ()
    seconds: float = 60
    room: int = 1 << 40
    first: str = ""


def write(name: str, content: str | bytes) -> Damage:
    """Writes a file."""

    def damage(here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def recipe(content: str | bytes) -> Damage:
    """Writes r.yaml."""
    return write("r.yaml", content)


def edit(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Changes a file's bytes."""

    def damage(here: Path) -> None:
        path = here / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def cut(name: str, part: float = 0.5) -> Damage:
    """Leaves the first part of a file."""
    return edit(name, lambda content: content[: int(len(content) * part)])


def flip(name: str, where: float = 0.5, number: int = 16) -> Damage:
    """Inverts bytes of a file."""

    def change(content: bytes) -> bytes:
        first = int(len(content) * where)
        return content[:first] + bytes(255 - one for one in content[first : first + number]) + content[first + number :]

    return edit(name, change)


def remove(*names: str) -> Damage:
    """Removes files."""
    return lambda here: [(here / name).unlink() for name in names]


def edit_json(name: str, change: Callable[[Any], Any]) -> Damage:
    """Changes what a JSON file holds; `change` works in place or returns the new content."""

    def damage(here: Path) -> None:
        path = here / name
        content = json.loads(path.read_text())
        changed = change(content)
        path.write_text(json.dumps(content if changed is None else changed))

    return damage


def set_keys(name: str, **values: Any) -> Damage:
    """Sets keys of a JSON file."""
    return edit_json(name, lambda content: content.update(values))


def drop_keys(name: str, *keys: str) -> Damage:
    """Removes keys of a JSON file; "a.b" is b of a."""

    def change(content: Any) -> None:
        for key in keys:
            *path, last = key.split(".")
            part = content
            for step in path:
                part = part[step]
            del part[last]

    return edit_json(name, change)


def both(*damages: Damage) -> Damage:
    """One after the other."""
    return lambda here: [damage(here) for damage in damages]
