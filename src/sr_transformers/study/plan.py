"""What a study trains: a YAML of blocks, each a product of sizes, fractions, epochs and seeds; refuses unknown keys.

    name: ml-1m
    data: prepared/ml-1m                 # from where the command runs; --data wins
    recipe: ../lsrm/98k.yaml             # from the study file; gives what the study does not set; left out: defaults
    settings: {warmup_steps: 0.05}       # keys of the recipe, for every run
    validation_targets: 1000             # random targets that pick the best epoch; left out: all
    sizes: {3k: [1, 16, 1], 98k: [2, 64, 2]}           # layers, width, heads
    tuning: {sizes: [3k, 98k], learning_rates: [2e-3, 4e-3, 8e-3], fraction: {users: 0.1}, epochs: 3, seed: 1}
    blocks:
      main: {sizes: [3k, 98k], fractions: [1.0, {users: 0.1}], epochs: [3], seeds: [1, 2, 3]}
      no-dropout: {sizes: [3k], fractions: [1.0], epochs: [3], seeds: [1], settings: {residual_dropout: 0.0}}

A block whose `settings` differ is a variant: it has its own name in the runs and never enters the fit of the law; nor
does a block with `law: false`, for example other shapes. `must: true` marks a block that a budget must not leave out.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sr_transformers.data.fractions import FRACTIONS, USERS
from sr_transformers.lsrm.configuration_lsrm import LSRM_SIZES
from sr_transformers.public import last_part
from sr_transformers.training.recipe import Recipe, parse_value

MAIN = "main"


@dataclass(frozen=True)
class Size:
    """A shape: N = 12 layers width^2."""

    name: str
    layers: int
    width: int
    heads: int

    @property
    def num_non_embedding_parameters(self) -> int:
        return 12 * self.layers * self.width**2

    def settings(self) -> dict[str, int]:
        """Keys of the recipe."""
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
        }


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        block: name of the block; "main" and other blocks without settings of their own make up the law's points.
        of, fraction: what part of the data, see `data.fractions`.
        settings: keys of the recipe that only this run's block sets, as sorted pairs.
        must: whether a budget must keep it.
        in_law: whether its result is a point of the law.
        learning_rate: set by tuning, None before.
    """

    block: str
    size: Size
    of: str
    fraction: float
    epochs: float
    seed: int
    settings: tuple[tuple[str, Any], ...] = ()
    must: bool = False
    in_law: bool = True
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """Folder of the run; says all that tells it from the others."""
        part = "" if self.fraction == 1 else f"-{self.of}{self.fraction:g}"
        variant = f"-{self.block}" if self.settings else ""
        return f"{self.size.name}{part}-e{self.epochs:g}{variant}-s{self.seed}"

    @property
    def is_variant(self) -> bool:
        return bool(self.settings)

    def describe(self) -> dict[str, Any]:
        """For plan.json."""
        return {
            "block": self.block,
            "size": self.size.name,
            "layers": self.size.layers,
            "width": self.size.width,
            "of": self.of,
            "fraction": self.fraction,
            "epochs": self.epochs,
            "seed": self.seed,
            "settings": dict(self.settings),
            "in_law": self.in_law,
        }


@dataclass
class Tuning:
    """Which learning rates are tried on which sizes; larger sizes follow a power law of N through the best ones."""

    sizes: list[str]
    learning_rates: list[float]
    of: str
    fraction: float
    epochs: float
    seed: int


@dataclass
class Study:
    """A study file, read and checked."""

    name: str
    data: str
    recipe: Recipe
    sizes: dict[str, Size]
    runs: list[PlannedRun]
    tuning: Tuning | None = None
    validation_targets: int | None = None
    source: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> "Study":
        """Reads a study.

        Raises:
            FileNotFoundError: if there is no such file, or no such recipe.
            ValueError: for anything that is not a study; the message names the file and the key.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such study; recipes/studies/ holds examples.")
        try:
            content = parse_value(path.read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}: a study is a YAML of keys and values.")
        return cls.build(content, path)

    @classmethod
    def build(cls, content: dict[str, Any], path: Path) -> "Study":
        """A study from the content of its file; the recipe's path counts from the file's folder."""
        where = str(path)
        _keys(content, {"name", "data", "sizes", "blocks"},
              {"recipe", "settings", "tuning", "validation_targets"}, where)  # fmt: skip
        recipe = Recipe.load(path.parent / content["recipe"]) if content.get("recipe") else Recipe("defaults")
        _check_no_token(content.get("settings") or {}, where)
        for key, value in (content.get("settings") or {}).items():
            recipe.set(key, value)
        sizes = {str(name): _size(str(name), shape, where) for name, shape in content["sizes"].items()}
        runs: dict[str, PlannedRun] = {}
        for block, spec in content["blocks"].items():
            for run in _block(str(block), spec, sizes, recipe, where):
                known = runs.setdefault(run.name, run)
                if known.settings != run.settings:
                    raise ValueError(f"{where}: two blocks give the run {run.name} other settings; rename one block.")
        targets = content.get("validation_targets")
        if targets is not None and (not isinstance(targets, int) or targets < 1):
            raise ValueError(f"{where}: validation_targets is {targets!r}; it must be a whole number from 1 on.")
        tuning = _tuning(content["tuning"], sizes, where) if content.get("tuning") else None
        return cls(
            str(content["name"]), str(content["data"]), recipe, sizes, list(runs.values()), tuning, targets, content
        )

    def tuning_runs(self) -> list[PlannedRun]:
        """The runs that try learning rates."""
        if self.tuning is None:
            return []
        return [self.tuning_run(size, rate) for size in self.tuning.sizes for rate in self.tuning.learning_rates]

    def tuning_run(self, size: str, rate: float) -> PlannedRun:
        """The run that tries a learning rate on a size.

        Raises:
            ValueError: if the study tunes nothing.
        """
        one = self.tuning
        if one is None:
            raise ValueError(f"study {self.name} tunes no learning rate; add a section `tuning`.")
        return PlannedRun(
            f"lr{rate:g}",
            self.sizes[size],
            one.of,
            one.fraction,
            one.epochs,
            one.seed,
            (("learning_rate", rate),),
            must=True,
            in_law=False,
            learning_rate=rate,
        )


def dump(content: dict[str, Any]) -> str:
    """A study as YAML text, for its folder and what is published of it: absolute paths are their last part."""
    places = {key: last_part(content[key]) for key in ("data", "recipe") if os.path.isabs(str(content.get(key)))}
    return yaml.safe_dump({**content, **places}, sort_keys=False)


def _check_no_token(settings: dict[str, Any], where: str) -> None:
    """A study's file is copied into its folder and published with it."""
    for key in settings:
        if str(key).endswith("_token"):
            raise ValueError(
                f"{where}: {key} does not belong into a study; log in with `hf auth login`, or set HF_TOKEN."
            )


def _block(block: str, spec: Any, sizes: dict[str, Size], recipe: Recipe, where: str) -> Iterator[PlannedRun]:
    where = f"{where}: block {block}"
    _keys(spec, {"sizes", "epochs", "seeds"}, {"fractions", "settings", "must", "law"}, where)
    for name in ("sizes", "epochs", "seeds"):
        if not isinstance(spec[name], list) or not spec[name]:
            raise ValueError(f"{where}: {name} is {spec[name]!r}; it must be a list with something in it.")
    unknown = [name for name in map(str, spec["sizes"]) if name not in sizes]
    if unknown:
        raise ValueError(f"{where}: size {unknown[0]!r} is not among sizes ({', '.join(sizes)}).")
    settings = spec.get("settings") or {}
    _check_no_token(settings, where)
    probe = Recipe(recipe.name, dict(recipe.model), dict(recipe.training))
    for key, value in settings.items():
        probe.set(key, value)
    if any(not isinstance(epochs, int | float) or epochs <= 0 for epochs in spec["epochs"]):
        raise ValueError(f"{where}: epochs are {spec['epochs']}; each must be a number above 0.")
    fractions = [_fraction(one, where) for one in spec.get("fractions", [1.0])]
    pairs = tuple(sorted((key, _hashable(value)) for key, value in settings.items()))
    for size, (of, part), epochs, seed in itertools.product(spec["sizes"], fractions, spec["epochs"], spec["seeds"]):
        in_law = bool(spec.get("law", True)) and not pairs
        must = bool(spec.get("must"))
        yield PlannedRun(block, sizes[str(size)], of, part, float(epochs), int(seed), pairs, must, in_law)


def _fraction(value: Any, where: str) -> tuple[str, float]:
    of, part = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (USERS, value)
    if of not in FRACTIONS or not isinstance(part, int | float) or not 0 < part <= 1:
        raise ValueError(
            f"{where}: a fraction is {value!r}; write 0.1 or {{users: 0.1}}, {{interactions: 0.1}}, {{context: 0.1}}."
        )
    return of, float(part)


def _size(name: str, shape: Any, where: str) -> Size:
    if shape is None and name in LSRM_SIZES:
        return Size(name, *LSRM_SIZES[name])
    if not (isinstance(shape, list) and len(shape) == 3 and all(isinstance(x, int) and x > 0 for x in shape)):
        raise ValueError(f"{where}: size {name} is {shape!r}; write [layers, width, heads], three whole numbers.")
    layers, width, heads = shape
    if width % heads:
        raise ValueError(f"{where}: size {name}: {heads} heads do not divide the width {width}.")
    return Size(name, layers, width, heads)


def _tuning(spec: Any, sizes: dict[str, Size], where: str) -> Tuning:
    where = f"{where}: tuning"
    _keys(spec, {"sizes", "learning_rates", "epochs"}, {"fraction", "seed"}, where)
    unknown = [name for name in spec["sizes"] if name not in sizes]
    if unknown:
        raise ValueError(f"{where}: size {unknown[0]!r} is not among sizes ({', '.join(sizes)}).")
    rates = spec["learning_rates"]
    if len(rates) < 2 or any(not isinstance(rate, int | float) or rate <= 0 for rate in rates):
        raise ValueError(f"{where}: learning_rates are {rates}; give at least two numbers above 0.")
    of, part = _fraction(spec.get("fraction", 1.0), where)
    return Tuning(list(spec["sizes"]), sorted(map(float, rates)), of, part, spec["epochs"], spec.get("seed", 1))


def _keys(content: Any, needed: set[str], optional: set[str], where: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where} must hold keys and values, not {content!r}.")
    missing, unknown = needed - set(content), set(content) - needed - optional
    if missing or unknown:
        raise ValueError(
            f"{where}: missing keys {sorted(missing)}, unknown keys {sorted(unknown)}; it takes "
            f"{', '.join(sorted(needed))} and may have {', '.join(sorted(optional))}."
        )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
