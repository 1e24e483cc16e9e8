"""Checked values of a study file: each reader raises a ValueError that names the file and the key."""

import math
import re
from typing import Any

from sr_transformers.data.fractions import FRACTIONS, USERS

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def epochs_by_size(value: Any, sizes: list[str], where: str) -> dict[str, list[float]]:
    """Numbers of epochs by size, from a list for all sizes or a mapping of one for each."""
    if isinstance(value, dict):
        by_size = {str(size): [epochs] for size, epochs in value.items()}
        missing = [size for size in sizes if size not in by_size]
        if missing:
            raise ValueError(f"{where}: epochs has no number for the size {missing[0]!r}.")
    else:
        by_size = dict.fromkeys(sizes, value if isinstance(value, list) else [value])
    numbers = [one for size in sizes for one in by_size[size]]
    if not numbers or not all(is_number(one) and one > 0 for one in numbers):
        raise ValueError(f"{where}: epochs is {value!r}; give numbers above 0: [20], or {{98k: 20}} for every size.")
    return {size: [float(one) for one in by_size[size]] for size in sizes}


def fractions_of(values: Any, where: str) -> list[tuple[str, float]]:
    if not isinstance(values, list) or not values:
        raise ValueError(f"{where}: fractions is {values!r}; it must be a list with something in it.")
    return [fraction_of(one, where) for one in values]


def fraction_of(value: Any, where: str) -> tuple[str, float]:
    of, part = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (USERS, value)
    if of not in FRACTIONS or not is_number(part) or not 0 < part <= 1:
        raise ValueError(
            f"{where}: a fraction is {value!r}; write 0.1 or {{users: 0.1}}, {{interactions: 0.1}}, {{context: 0.1}}."
        )
    return of, float(part)


def is_ladder(values: Any, least: int) -> bool:
    return isinstance(values, list) and all(map(is_number, values)) and len(set(values)) == len(values) >= least


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def folder_name(name: str, where: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{where}: {name!r} would become the name of a folder; use letters, digits, dots, dashes and underscores."
        )
    return name


def check_keys(content: Any, needed: set[str], optional: set[str], where: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where} must hold keys and values, not {content!r}.")
    missing, unknown = needed - set(content), set(content) - needed - optional
    if missing or unknown:
        raise ValueError(
            f"{where}: missing keys {sorted(missing)}, unknown keys {sorted(unknown)}; it takes "
            f"{', '.join(sorted(needed))} and may have {', '.join(sorted(optional))}."
        )


def hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
