"""What a search varies: one entry for each key of a recipe, and how a trial's values become a recipe.

The space is data: another key is another `Knob`. An entry whose key no recipe has (yet) is passed over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sr_transformers.lsrm.configuration_lsrm import HISTORY_PARTS, NEEDS_TIMES
from sr_transformers.training.portfolio import FEW_REPEATS, KINDS, WITHOUT_MOMENTS, choose
from sr_transformers.training.recipe import Recipe, default_of, recipe_keys
from sr_transformers.training.row_updates import DENSE

Counts = Mapping[str, Any]
Values = Mapping[str, Any]

# From so many items on a sampled softmax can pay: the full one costs 6 V d FLOPs per target, and below this it is as
# fast and exact.
MANY_ITEMS = 20_000
_WINDOWS = (20, 50, 100, 200)
HEADS = (1, 2, 4)
_HISTORIES = {
    "none": [],
    "with moments": [part for part in HISTORY_PARTS if part != "recency"],
    "without moments": list(WITHOUT_MOMENTS),
}


class Trial(Protocol):
    """What is needed of Optuna's trial."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: whole ones if both are, in steps or evenly in their logarithm."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def draw(self, trial: Trial, name: str, counts: Counts) -> Any:
        """A number, by the sampler."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        value = trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)
        return float(f"{value:.4g}")

    def encode(self, value: Any, counts: Counts) -> Any:
        """The parameter of a recipe's value; None if the range lacks it."""
        return value if self.low <= value <= self.high else None


@dataclass(frozen=True)
class Choices:
    """One of some values, each with the name that the sampler and the report know it by.

    Attributes:
        values: by name.
        fits: whether a value makes sense for a log; at least one always must.
    """

    values: Mapping[Any, Any]
    fits: Callable[[Any, Counts], bool] = lambda value, counts: True

    @classmethod
    def of(cls, *values: Any, fits: Callable[[Any, Counts], bool] = lambda value, counts: True) -> "Choices":
        """Values that are their own names."""
        return cls({value: value for value in values}, fits)

    def draw(self, trial: Trial, name: str, counts: Counts) -> Any:
        """A value, by the sampler."""
        return self.values[
            trial.suggest_categorical(name, [key for key, value in self.values.items() if self.fits(value, counts)])
        ]

    def encode(self, value: Any, counts: Counts) -> Any:
        """The name of a value; None if it is none of these, or not for this log."""
        fitting = (key for key, other in self.values.items() if other == value and self.fits(other, counts))
        return next(fitting, None)


def _always(counts: Counts, values: Values) -> bool:
    return True


@dataclass(frozen=True)
class Knob:
    """One key of a recipe that a search varies.

    Attributes:
        key: of the recipe, and the parameter's name.
        domain: where its values come from.
        when: whether it is varied, by the log's counts and the values of the knobs before it.
        decode, encode: from the domain's value to the recipe's and back.
    """

    key: str
    domain: Range | Choices
    when: Callable[[Counts, Values], bool] = _always
    decode: Callable[[Any], Any] = lambda value: value
    encode: Callable[[Any], Any] = lambda value: value


def _repeats(counts: Counts, values: Values) -> bool:
    return float(counts["repeat_share"]) >= FEW_REPEATS


def _updates_all_rows(counts: Counts, values: Values) -> bool:
    return bool(values.get("table_updates", DENSE) == DENSE)


def _fits_window(window: int, counts: Counts) -> bool:
    """Not far longer than histories are. All up to 100 always are there: rows are packed, empty places cost nothing."""
    return window <= max(100, 2 * float(counts["mean_length"]))


def _has_moments(parts: list[str], counts: Counts) -> bool:
    """Parts that read moments only where there are some to tell apart (`portfolio.choose`)."""
    return "history" not in choose(counts).overrides or not set(parts) & set(NEEDS_TIMES)


def _first(value: Any) -> float:
    """The bottom rate of a pair, or the one rate."""
    return float(value[0] if isinstance(value, list | tuple) else value)


def _pair(value: Any) -> list[float]:
    """The rates of the bottom and the top layer."""
    return [float(rate) for rate in value] if isinstance(value, list | tuple) else [float(value)] * 2


_DROPOUT = Range(0.0, 0.6, step=0.05)
_RATES = (0.1, 0.2, 0.3, 0.4, 0.5)
# The same in all layers, or falling by half from the bottom to the top, as the paper has it.
_RESIDUAL = {
    "0": [0.0, 0.0],
    **{f"{rate:g}": [rate, rate] for rate in _RATES},
    **{f"{rate:g} falling": [rate, rate / 2] for rate in _RATES},
}

SPACE = (
    # Size: depth against width.
    Knob("num_hidden_layers", Range(1, 8, log=True)),
    Knob("hidden_size", Choices.of(32, 64, 128, 256)),
    Knob("num_attention_heads", Choices.of(*HEADS)),
    Knob("max_position_embeddings", Choices.of(*_WINDOWS, fits=_fits_window)),
    # Dropout where it sits.
    Knob("embedding_dropout", _DROPOUT, encode=_first),
    Knob("residual_dropout", Choices(_RESIDUAL), encode=_pair),
    Knob("attention_dropout", _DROPOUT, decode=lambda rate: [rate, rate], encode=_first),
    # What a user's own past adds, where users come back to items.
    Knob("history", Choices(_HISTORIES, fits=_has_moments), when=_repeats),
    Knob("num_successors", Choices.of(64, 512), when=lambda counts, values: "mix" in values.get("history", ())),
    # Loss: history and a sampled softmax exclude each other.
    Knob(
        "num_negatives",
        Choices.of(0, 1024, 8192, fits=lambda value, counts: 4 * value < float(counts["items_in_vocabulary"])),
        when=lambda counts, values: counts["items_in_vocabulary"] >= MANY_ITEMS and not values.get("history"),
    ),
    # Training.
    Knob("optimizer", Choices({"one for all": None, "muon": "muon"})),
    Knob("learning_rate", Range(3e-4, 1e-2, log=True)),
    Knob("table_lr_multiplier", Range(0.1, 2.0, log=True)),
    Knob("per_device_train_batch_size", Choices.of(8, 16, 32, 64)),
    Knob("num_train_epochs", Range(5, 45)),
    # As a time, which does not depend on learning rate, batch and amount of data as weight_decay does.
    Knob("decay_epochs", Choices({"never": None, "4": 4.0, "8": 8.0, "16": 16.0}), when=_updates_all_rows),
)
# What the report and the first draws around a good setting call them.
GROUPS = {
    "size": ("num_hidden_layers", "hidden_size", "num_attention_heads", "max_position_embeddings"),
    "dropout": ("embedding_dropout", "residual_dropout", "attention_dropout"),
    "training": (
        "optimizer",
        "learning_rate",
        "table_lr_multiplier",
        "per_device_train_batch_size",
        "num_train_epochs",
        "decay_epochs",
    ),
}


def suggest(trial: Trial, counts: Counts, fixed: Values) -> dict[str, Any]:
    """Values by key of the recipe, drawn by the sampler of a trial.

    Args:
        counts: of the manifest of the prepared log.
        fixed: keys that are not varied, and their values.
    """
    known, values = set(recipe_keys()), dict(fixed)
    for knob in SPACE:
        if knob.key in known and knob.key not in fixed and knob.when(counts, values):
            values[knob.key] = knob.decode(knob.domain.draw(trial, knob.key, counts))
    return values


def recipe_of(values: Values, kind: str, seed: int) -> Recipe:
    """The recipe of a trial: its values, and for the other keys what the log's kind has in `recipes/regimes/`."""
    recipe = Recipe.load(f"regimes/{kind}", dict(values))
    recipe.name = "tuned"
    width, window = recipe.model["hidden_size"], recipe.model["max_position_embeddings"]
    for key, value in (("intermediate_size", 4 * width), ("row_width", window)):
        if key not in values:
            recipe.set(key, value)
    recipe.set("seed", seed)
    return recipe


def parameters_of(recipe: Recipe, counts: Counts, fixed: Values) -> dict[str, Any]:
    """Optuna's parameters of a recipe; what the space lacks for this log is left to the sampler."""
    settings = {**recipe.model, **recipe.training}
    known, values, found = set(recipe_keys()), dict(fixed), {}
    for knob in SPACE:
        if knob.key not in known or knob.key in fixed or not knob.when(counts, values):
            continue
        values[knob.key] = settings.get(knob.key, default_of(knob.key))
        parameter = knob.domain.encode(knob.encode(values[knob.key]), counts)
        if parameter is not None:
            found[knob.key] = parameter
    return found


def portfolio(counts: Counts, fixed: Values) -> dict[str, dict[str, Any]]:
    """What a search begins with, by name: the setting for the log's kind, those of the other kinds, and around the
    first one a draw of its size, of its dropout and of its training each."""
    own = choose(counts)
    overrides = {key: value for key, value in own.overrides.items() if key not in fixed}
    first = parameters_of(Recipe.load(own.name, overrides), counts, fixed)
    found = {own.kind: first}
    for kind in KINDS:
        if kind != own.kind:
            found[kind] = parameters_of(Recipe.load(f"regimes/{kind}", overrides), counts, fixed)
    for name, keys in GROUPS.items():
        found[f"{own.kind}, {name} drawn"] = {key: value for key, value in first.items() if key not in keys}
    return found
