"""What a study trains: a YAML of blocks, each a product of sizes, fractions, epochs and seeds; refuses unknown keys.

    name: ml-1m
    data: prepared/ml-1m                 # from where the command runs; --data wins
    recipe: ../lsrm/98k.yaml             # from the study file; gives what the study does not set; left out: defaults
    settings: {warmup_steps: 0.05}       # keys of the recipe, for every run
    validation_targets: 1000             # random targets that pick the best epoch; left out: all
    converged_within: 0.01               # nats: a run that still gained more in its last tenth had not converged
    sizes: {3k: [1, 16, 1], 98k: [2, 64, 2]}           # layers, width, heads
    tuning:                              # see `tuning_section` and `rate_search`
      {sizes: [3k, 98k], learning_rates: [2e-3, 4e-3, 8e-3], dropouts: [0.0, 0.1, 0.2], epochs: 3, seed: 0}
    blocks:
      main: {sizes: [3k, 98k], fractions: [1.0, {users: 0.1}], epochs: {3k: 40, 98k: 20}, seeds: [1, 2, 3]}
      no-dropout: {sizes: [3k], fractions: [1.0], epochs: [3], seeds: [1], settings: {residual_dropout: 0.0}}

`epochs` are a list, or a mapping that gives every size of the block as many as it needs until it stops improving; the
law is fitted to runs of one number or to those of such mappings. A block whose `settings` differ is a variant: it has
its own name in the runs and never enters the fit of the law; nor does a block with `law: false`, for example other
shapes. `must: true` marks a block that a budget must not leave out. A run that several blocks name is done once, and is
a point of the law, marked `must`, or one of a mapping of epochs if one of them says so. Names of sizes and blocks
become names of folders: letters, digits, dots, dashes and underscores only.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sr_transformers.lsrm.configuration_lsrm import LSRM_SIZES
from sr_transformers.public import last_part
from sr_transformers.recipe_files import STUDIES, find_recipe
from sr_transformers.scaling.studies.soundness import CONVERGED_WITHIN
from sr_transformers.scaling.studies.study_values import (
    check_keys,
    epochs_by_size,
    folder_name,
    fractions_of,
    hashable,
    is_number,
    is_whole,
)
from sr_transformers.scaling.studies.tuning_section import Tuning, read_tuning
from sr_transformers.training.recipe import Recipe, refuse_tokens
from sr_transformers.training.yaml_reader import read_yaml


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
        own_epochs: whether the block gives every size its own number of epochs.
        must: whether a budget must keep it.
        in_law: whether its result is a point of the law.
        learning_rate, dropout: set by tuning, None before; the dropout is that of embeddings and residuals.
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
    own_epochs: bool = False
    learning_rate: float | None = None
    dropout: float | None = None

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
            "own_epochs": self.own_epochs,
            "seed": self.seed,
            "settings": dict(self.settings),
            "in_law": self.in_law,
            "learning_rate": self.learning_rate,
            "dropout": self.dropout,
        }


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
    converged_within: float = CONVERGED_WITHIN
    source: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, name_or_path: str | Path) -> "Study":
        """Reads a study, a file or one that comes with the package by its name: "ml-1m" (`recipe_files`).

        Raises:
            FileNotFoundError: if there is no such file and no such name, or no such recipe.
            ValueError: for anything that is not a study; the message names the file and the key.
        """
        path = find_recipe(name_or_path, STUDIES, "study")
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path}: a study is a YAML of keys and values.")
        return cls.build(content, path)

    @classmethod
    def build(cls, content: dict[str, Any], path: Path) -> "Study":
        """A study from the content of its file; the recipe is a path from the file's folder, or a name."""
        where = str(path)
        check_keys(content, {"name", "data", "sizes", "blocks"},
              {"recipe", "settings", "tuning", "validation_targets", "converged_within"}, where)  # fmt: skip
        for key in ("name", "data", "recipe"):
            if not isinstance(content.get(key, ""), str):
                raise ValueError(f"{where}: {key} is {content[key]!r}; it must be text.")
        for key in ("sizes", "blocks", "settings"):
            if not isinstance(content.get(key) or {}, dict):
                raise ValueError(f"{where}: {key} must hold names and values, not {content[key]!r}.")
        recipe = Recipe("defaults")
        if content.get("recipe"):
            beside = path.parent / content["recipe"]
            recipe = Recipe.load(beside if beside.is_file() else content["recipe"])
        refuse_tokens(content.get("settings") or {}, where, "a study")
        for key, value in (content.get("settings") or {}).items():
            recipe.set(key, value, where)
        sizes = {str(name): _size(str(name), shape, where) for name, shape in (content["sizes"] or {}).items()}
        runs: dict[str, PlannedRun] = {}
        for block, spec in (content["blocks"] or {}).items():
            for run in _block(str(block), spec, sizes, recipe, where):
                runs[run.name] = _both(runs.get(run.name, run), run, where)
        targets = content.get("validation_targets")
        if targets is not None and (not is_whole(targets) or targets < 1):
            raise ValueError(f"{where}: validation_targets is {targets!r}; it must be a whole number from 1 on.")
        within = content.get("converged_within", CONVERGED_WITHIN)
        if not is_number(within) or not within > 0:
            raise ValueError(f"{where}: converged_within is {within!r}; it must be a number of nats above 0.")
        n_of = {name: size.num_non_embedding_parameters for name, size in sizes.items()}
        tuning = read_tuning(content["tuning"], n_of, where) if content.get("tuning") else None
        return cls(
            content["name"], content["data"], recipe, sizes, list(runs.values()), tuning, targets, within, content
        )

    def tuning_run(self, size: str, rate: float, dropout: float | None, part: bool = False) -> PlannedRun:
        """The run that tries a learning rate and a dropout rate on a size, on all of the data or on `tuning.part`.

        Raises:
            ValueError: if the study tunes nothing (on a part).
        """
        one = self.tuning
        if one is None:
            raise ValueError(f"study {self.name} tunes no learning rate; add a section `tuning`.")
        where = one.part if part else one
        if where is None:
            raise ValueError(f"study {self.name} tunes nothing on a part of the data; add `part` to its `tuning`.")
        tried = f"lr{rate:g}" + ("" if dropout is None else f"-do{dropout:g}")
        settings: tuple[tuple[str, Any], ...] = (("learning_rate", rate),)
        if dropout is not None:
            settings += (("embedding_dropout", dropout), ("residual_dropout", dropout))
        return PlannedRun(
            tried, self.sizes[size], where.of, where.fraction, where.epochs[size], one.seed, settings, True, False
        )


def dump(content: dict[str, Any]) -> str:
    """A study as YAML text, for its folder and what is published of it: absolute paths are their last part."""
    places = {key: last_part(content[key]) for key in ("data", "recipe") if os.path.isabs(str(content.get(key)))}
    return yaml.safe_dump({**content, **places}, sort_keys=False)


def _both(known: PlannedRun, run: PlannedRun, where: str) -> PlannedRun:
    """A run that two blocks name: what one of them says of it holds."""
    if any(getattr(known, key) != getattr(run, key) for key in ("size", "fraction", "epochs", "settings")):
        raise ValueError(
            f"{where}: two different runs would be called {run.name}; rename a size or a block, or give fractions and "
            "epochs fewer digits."
        )
    first, second = (run, known) if run.in_law and not known.in_law else (known, run)
    return dataclasses.replace(
        first,
        must=first.must or second.must,
        in_law=first.in_law or second.in_law,
        own_epochs=first.own_epochs or (second.own_epochs and second.in_law),
    )


def _block(block: str, spec: Any, sizes: dict[str, Size], recipe: Recipe, where: str) -> Iterator[PlannedRun]:
    where = f"{where}: block {folder_name(block, where)}"
    check_keys(spec, {"sizes", "epochs", "seeds"}, {"fractions", "settings", "must", "law"}, where)
    for name in ("sizes", "seeds"):
        if not isinstance(spec[name], list) or not spec[name]:
            raise ValueError(f"{where}: {name} is {spec[name]!r}; it must be a list with something in it.")
    unknown = [name for name in map(str, spec["sizes"]) if name not in sizes]
    if unknown:
        raise ValueError(f"{where}: size {unknown[0]!r} is not among sizes ({', '.join(sizes)}).")
    settings = spec.get("settings") or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{where}: settings must hold keys and values, not {settings!r}.")
    refuse_tokens(settings, where, "a study")
    probe = Recipe(recipe.name, dict(recipe.model), dict(recipe.training))
    for key, value in settings.items():
        probe.set(key, value, where)
    own = isinstance(spec["epochs"], dict)
    epochs_of = epochs_by_size(spec["epochs"], list(map(str, spec["sizes"])), where)
    if not all(is_whole(seed) and seed >= 0 for seed in spec["seeds"]):
        raise ValueError(f"{where}: seeds are {spec['seeds']}; each must be a whole number from 0 on.")
    for name in ("must", "law"):
        if not isinstance(spec.get(name, False), bool):
            raise ValueError(f"{where}: {name} is {spec[name]!r}; it must be true or false.")
    fractions = fractions_of(spec.get("fractions", [1.0]), where)
    pairs = tuple(sorted((key, hashable(value)) for key, value in settings.items()))
    in_law, must = spec.get("law", True) and not pairs, spec.get("must", False)
    for size, (of, part) in itertools.product(map(str, spec["sizes"]), fractions):
        for epochs, seed in itertools.product(epochs_of[size], spec["seeds"]):
            yield PlannedRun(block, sizes[size], of, part, epochs, seed, pairs, must, in_law, own)


def _size(name: str, shape: Any, where: str) -> Size:
    folder_name(name, where)
    if shape is None and name in LSRM_SIZES:
        return Size(name, *LSRM_SIZES[name])
    if not (isinstance(shape, list) and len(shape) == 3 and all(is_whole(x) and x > 0 for x in shape)):
        raise ValueError(f"{where}: size {name} is {shape!r}; write [layers, width, heads], three whole numbers.")
    layers, width, heads = shape
    if width % heads:
        raise ValueError(f"{where}: size {name}: {heads} heads do not divide the width {width}.")
    return Size(name, layers, width, heads)
