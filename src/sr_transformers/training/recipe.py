"""Recipes: one YAML that fixes the model and its training; the command line wins over the file.

    model:     keys of LSRMConfig
    training:  keys of LSRMTrainingArguments

Unknown or misspelt keys are errors that name the nearest key, and values must have the key's type.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.messages import one_line, shown
from sr_transformers.recipe_files import RECIPES, find_recipe
from sr_transformers.training.arguments import LSRMTrainingArguments
from sr_transformers.training.yaml_reader import parse_yaml, read_yaml

SECTIONS = ("model", "training")
# Set by the program: where to write, and what the data fix.
_NOT_IN_RECIPES = {
    "output_dir": "the folder is the command's --output, or the second argument of train()",
    "vocab_size": "the prepared log has the items",
    "num_items": "the prepared log has the items",
    "successor_pairs": "training counts them in the log",
    **dict.fromkeys(("mix_window", "mix_stretches", "mix_pairs"), "training counts them in the log"),
    **dict.fromkeys(("mix_share", "mix_weights"), "they are fitted when training is over"),
    "time_unit": "training takes it from the log",
}


def _model_fields() -> dict[str, Any]:
    own = LSRMConfig.__annotations__  # not the keys that every PreTrainedConfig has
    return {name: hint for name, hint in own.items() if name not in ("items_fingerprint", "filter_seen")}  # of the run


def _training_fields() -> dict[str, Any]:
    hints = typing.get_type_hints(LSRMTrainingArguments)
    return {one.name: hints[one.name] for one in dataclasses.fields(LSRMTrainingArguments) if one.init}


def _fields(section: str) -> dict[str, Any]:
    fields = _model_fields() if section == "model" else _training_fields()
    return {name: hint for name, hint in fields.items() if name not in _NOT_IN_RECIPES}


@dataclass
class Recipe:
    """A named pair of settings.

    Attributes:
        name: the file's stem.
        model, training: values by key; keys left out have the defaults of the classes.
        chosen: why a rule took this recipe, in one sentence; None: somebody named it. Part of the record.
    """

    name: str = "recipe"
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    chosen: str | None = None

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: dict[str, Any] | None = None) -> "Recipe":
        """Reads a recipe, a file or one that comes with the package by its name: "lsrm/98k" or "98k" (`recipe_files`).

        Args:
            overrides: values by key, of either section; they win.

        Raises:
            FileNotFoundError: if there is no such file and no such name.
            ValueError: for a section, key or value that is not allowed; the message names file, key and nearest key.
        """
        path = find_recipe(name_or_path, RECIPES)
        content = read_yaml(path)
        content = {} if content is None else content
        if not isinstance(content, dict):
            raise ValueError(
                f"{path}: a recipe is a mapping of the sections {' and '.join(SECTIONS)} to keys and values, not "
                f"{shown(content)}."
            )
        unknown = set(content) - set(SECTIONS)
        if unknown:
            raise ValueError(f"{path}: unknown section {shown(sorted(unknown))}; a recipe has {', '.join(SECTIONS)}.")
        for section in SECTIONS:
            if not isinstance(content.get(section, {}), dict | None):
                raise ValueError(f"{path}: section {section} must hold keys and values, not {shown(content[section])}.")
        recipe = cls(path.stem, dict(content.get("model") or {}), dict(content.get("training") or {}))
        for section in SECTIONS:
            for key, value in getattr(recipe, section).items():
                _check(key, value, section, str(path))
        for key, value in (overrides or {}).items():
            recipe.set(key, value)
        return recipe

    def set(self, key: str, value: Any, where: str = "command line") -> None:
        """Sets a key of either section; `where` it was written, for messages."""
        for section in SECTIONS:
            if key in _fields(section):
                _check(key, value, section, where)
                getattr(self, section)[key] = value
                return
        raise ValueError(f"{where}: {_unknown(key, recipe_keys())}")

    def config(self, vocab_size: int) -> LSRMConfig:
        """The model's configuration for a vocabulary.

        Raises:
            ValueError: if no model can be built so; the message says why.
        """
        try:
            return LSRMConfig(vocab_size=vocab_size, **self.model)
        except StrictDataclassError as error:
            raise ValueError(f"recipe {self.name}: {one_line(str(error))}") from error

    def arguments(self, output_dir: str | Path, **more: Any) -> LSRMTrainingArguments:
        """The training arguments, writing to a folder."""
        return LSRMTrainingArguments(output_dir=str(output_dir), **{**self.training, **more})


def recipe_keys() -> list[str]:
    """All keys that a recipe may have, of the model first."""
    return [name for section in SECTIONS for name in _fields(section)]


def refuse_tokens(keys: Iterable[str], where: str, what: str) -> None:
    """Refuses secrets in what is written down: the file of a study, the settings of a search.

    Raises:
        ValueError: for a key that ends in _token; the message begins with `where`.
    """
    for key in map(str, keys):
        if key.endswith("_token"):
            raise ValueError(
                f"{where}: {key} does not belong into {what}; log in with `hf auth login`, or set HF_TOKEN."
            )


def default_of(key: str) -> Any:
    """What a key is that a recipe leaves out.

    Raises:
        KeyError: for an unknown key.
    """
    fields = [one for kind in (LSRMConfig, LSRMTrainingArguments) for one in dataclasses.fields(kind)]
    known = {one.name: one for one in fields if one.name in recipe_keys()}
    one = known[key]
    return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()


def parse_value(text: str, where: str) -> Any:
    """A command line's value as a recipe would read it: `0.1` a number, `[0.2, 0.1]` a list, `true` a truth value.

    Raises:
        ValueError: if it is no YAML; the message begins with `where`, the option's name.
    """
    return parse_yaml(text, f"{where} {shown(text)}")


def _unknown(key: str, names: list[str], where: str = "") -> str:
    if key in _NOT_IN_RECIPES:
        return f"{key} is no key of a recipe: {_NOT_IN_RECIPES[key]}."
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"unknown key {shown(key)}{where}{hint}"


def _check(key: str, value: Any, section: str, where: str) -> None:
    fields = _fields(section)
    if key not in fields:
        raise ValueError(f"{where}: {_unknown(key, list(fields), f' in {section}')}")
    if not _has_type(value, fields[key]):
        kind = type(value).__name__
        raise ValueError(f"{where}: {section}.{key} is {shown(value)} ({kind}); it must be {_words(fields[key])}.")


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "keys and values",
    type(None): "null",
}


def _words(hint: Any) -> str:
    """A type hint as people say it."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, typing.get_args(hint))))
    return _WORDS.get(origin or hint, str(hint))


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a YAML value fits a type hint; hints of classes that YAML cannot write are not judged."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_has_type(value, part) for part in typing.get_args(hint))
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if (origin or hint) in (list, tuple):
        return isinstance(value, list | tuple)
    if (origin or hint) is dict:
        return isinstance(value, dict)
    return True
