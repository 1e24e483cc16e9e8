"""The section `tuning` of a study: which learning rates and dropout rates are tried on which sizes.

    tuning:
      sizes: [3k, 98k]
      learning_rates: [2e-3, 4e-3, 8e-3]
      dropouts: [0.0, 0.1, 0.2]
      epochs: {3k: 30, 98k: 22}
      start: {3k: [4e-3, 0.0]}           # where to begin; left out: at what the smaller sizes suggest
      part: {fraction: {users: 0.1}, sizes: [3k, 98k], epochs: {3k: 40, 98k: 30}, start: {98k: 0.2}}

`part` tries the dropout rates once more, on a part of the data: what is best depends on the size, and more on how much
there is to learn from.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sr_transformers.scaling.studies.study_values import check_keys, epochs_by_size, fraction_of, is_ladder, is_whole


@dataclass(frozen=True)
class TuningPart:
    """Sizes whose dropout is tuned on a part of the data too, with the learning rates found on all of it.

    Attributes:
        of, fraction: what part, see `data.fractions`.
        epochs: of every run that tries, by size; its keys are the sizes, the smallest first.
        start: dropout rate to begin at, by size; sizes without begin at the one that was best on all of the data.
    """

    of: str
    fraction: float
    epochs: dict[str, float]
    start: dict[str, float] = field(default_factory=dict)


@dataclass
class Tuning:
    """Which learning rates and dropout rates are tried on which sizes; `rate_search` says how.

    Attributes:
        sizes: names, the smallest first.
        learning_rates, dropouts: the ladders that are walked, rising; no dropouts: only the rate is tuned.
        of, fraction, seed: of every run that tries; epochs: by size.
        start: learning rate and dropout rate to begin at, both on the ladders, by size; sizes without begin at what the
            smaller ones suggest. It saves runs and decides nothing: what is chosen has its neighbours tried.
        part: a part of the data on which the dropout is tuned once more.
    """

    sizes: list[str]
    learning_rates: list[float]
    dropouts: list[float]
    of: str
    fraction: float
    epochs: dict[str, float]
    seed: int
    start: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    part: TuningPart | None = None


def read_tuning(spec: Any, n_of: Mapping[str, int], where: str) -> Tuning:
    """The section, checked.

    Args:
        n_of: N of every size of the study.

    Raises:
        ValueError: naming the file and the key.
    """
    where = f"{where}: tuning"
    check_keys(spec, {"sizes", "learning_rates", "epochs"}, {"dropouts", "fraction", "seed", "start", "part"}, where)
    names = _sizes(spec["sizes"], n_of, where)
    if twins := [(one, other) for one, other in itertools.pairwise(names) if n_of[one] == n_of[other]]:
        raise ValueError(f"{where}: {' and '.join(twins[0])} have the same N, for which one rate is chosen; tune one.")
    rates, dropouts = spec["learning_rates"], spec.get("dropouts", [])
    if not is_ladder(rates, 2) or min(rates) <= 0:
        raise ValueError(f"{where}: learning_rates is {rates!r}; give at least two different numbers above 0.")
    if not is_ladder(dropouts, 0) or any(not 0 <= one < 1 for one in dropouts):
        raise ValueError(f"{where}: dropouts is {dropouts!r}; give different numbers from 0 to below 1.")
    seed = spec.get("seed", 0)
    if not is_whole(seed) or seed < 0:
        raise ValueError(f"{where}: seed is {seed!r}; it must be a whole number from 0 on.")
    of, fraction = fraction_of(spec.get("fraction", 1.0), where)
    rates, dropouts = sorted(map(float, rates)), sorted(map(float, dropouts))
    epochs = {size: numbers[0] for size, numbers in epochs_by_size(spec["epochs"], names, where).items()}
    begin = _start(spec, names, where)
    start = {size: _pair(one, rates, dropouts, where) for size, one in begin.items()}
    part = _part(spec["part"], names, n_of, dropouts, fraction, where) if spec.get("part") is not None else None
    return Tuning(names, rates, dropouts, of, fraction, epochs, seed, start, part)


def _sizes(names: Any, known: Mapping[str, int], where: str) -> list[str]:
    """Names of known sizes, the smallest first."""
    if not isinstance(names, list) or not names:
        raise ValueError(f"{where}: sizes is {names!r}; it must be a list with something in it.")
    unknown = [name for name in map(str, names) if name not in known]
    if unknown:
        raise ValueError(f"{where}: size {unknown[0]!r} is not among sizes ({', '.join(known)}).")
    return sorted(map(str, names), key=known.__getitem__)


def _start(spec: dict[str, Any], names: list[str], where: str) -> dict[str, Any]:
    begin = spec.get("start", {})
    if not isinstance(begin, dict):
        raise ValueError(f"{where}: start is {begin!r}; write a place on the ladders for each of some sizes.")
    begin = {str(size): one for size, one in begin.items()}
    if unknown := [name for name in begin if name not in names]:
        raise ValueError(f"{where}: start names {unknown[0]!r}, which is not among its sizes ({', '.join(names)}).")
    return begin


def _pair(value: Any, rates: list[float], dropouts: list[float], where: str) -> tuple[float, float | None]:
    pair = value if isinstance(value, list) else [value]
    if len(pair) != 1 + bool(dropouts) or pair[0] not in rates or any(one not in dropouts for one in pair[1:]):
        raise ValueError(
            f"{where}: a start is {value!r}; write one of learning_rates"
            + (" and one of dropouts, [0.004, 0.1]." if dropouts else ", 0.004.")
        )
    return float(pair[0]), float(pair[1]) if dropouts else None


def _part(
    spec: Any, tuned: list[str], n_of: Mapping[str, int], dropouts: list[float], whole: float, where: str
) -> TuningPart:
    where = f"{where}: part"
    check_keys(spec, {"fraction", "sizes", "epochs"}, {"start"}, where)
    if not dropouts:
        raise ValueError(f"{where}: only dropouts are tuned on a part, and the section names none.")
    names = _sizes(spec["sizes"], {name: n_of[name] for name in tuned}, where)
    of, fraction = fraction_of(spec["fraction"], where)
    if fraction >= whole:
        raise ValueError(f"{where}: fraction is {fraction:g}; it must be below the {whole:g} of the section.")
    epochs = {size: numbers[0] for size, numbers in epochs_by_size(spec["epochs"], names, where).items()}
    start = _start(spec, names, where)
    for one in start.values():
        if one not in dropouts:
            raise ValueError(f"{where}: a start is {one!r}; write one of dropouts, {dropouts[0]:g}.")
    return TuningPart(of, fraction, epochs, {size: float(one) for size, one in start.items()})
