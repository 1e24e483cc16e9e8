"""By which protocol a number was measured: its short fingerprint, and the refusal to put two protocols in one table.

A protocol is a mapping of readable fields (`evaluation.protocol.protocol_of` makes it); nothing but mappings is known
here, so that whatever reads records can ask.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sr_transformers.messages import shown

FINGERPRINT = "fingerprint"
# What helps a reader and moves no number: how the log's file is called, and the name that a protocol goes by.
NAMES = ("data", "protocol")
_DIGITS = 12


def with_fingerprint(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The fields and their `fingerprint`: 12 hexadecimal digits that depend on all fields but `NAMES`.

    >>> with_fingerprint({"data": "a.csv", "filter_seen": True})["fingerprint"]
    'e4b312ba47a8'
    """
    fields = {name: value for name, value in protocol.items() if name not in (FINGERPRINT, *NAMES)}
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
    return {**protocol, FINGERPRINT: hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between two protocols, field by field, as words; empty if their numbers may be compared.

    >>> differing({"part": "test", "filter_seen": True}, {"part": "test", "filter_seen": False})
    ['filter_seen is true and false']
    >>> differing({"part": "test"}, {"part": "test", "target": "item"})
    ["target is not recorded and 'item'"]
    """
    if FINGERPRINT in one and one.get(FINGERPRINT) == other.get(FINGERPRINT):
        return []
    names = [name for name in {**one, **other} if name != FINGERPRINT and one.get(name, ...) != other.get(name, ...)]
    told = [name for name in names if name not in NAMES] or names
    return [f"{name} is {_said(one, name)} and {_said(other, name)}" for name in told]


def refuse_mixed(protocols: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuses to put numbers of different protocols beside each other.

    Args:
        protocols: of every number, what it is called and its protocol.

    Raises:
        ValueError: naming the first two that do not go together, and each field that differs.
    """
    first: tuple[str, Mapping[str, Any]] | None = None
    for name, protocol in protocols:
        first = first or (name, protocol)
        if found := differing(first[1], protocol):
            raise ValueError(
                f"{shown(first[0])} and {shown(name)} have different protocols, and their numbers must not stand in "
                f"one table: {'; '.join(found)}. Make a table of each, or measure both by one protocol."
            )


def _said(protocol: Mapping[str, Any], name: str) -> str:
    if name not in protocol:
        return "not recorded"
    value = protocol[name]
    return shown(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)
