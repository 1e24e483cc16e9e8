"""Which recipe suits a log: a rule on what `prepare` counted. `train auto` takes it, a search begins with it.

There are three kinds of logs, each with a recipe in `recipes/regimes/`:

    dense     long histories without repeats, ratings of films for example (ml-1m, ml-100k)
    sparse    short histories without repeats, reviews or tweets for example (movietweetings, Amazon)
    repeats   users come back to items, shops and groceries for example (online-retail, Complete Journey)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sr_transformers.data.prepared import PreparedData
from sr_transformers.training.recipe import Recipe

AUTO = "auto"
DENSE, SPARSE, REPEATS = "dense", "sparse", "repeats"
KINDS = (DENSE, SPARSE, REPEATS)

# Share of the interactions with an item that the user had before. Logs of ratings and reviews have none or next to none
# (a few are entered twice), shops and groceries have .3 and more; a twentieth is far from both.
FEW_REPEATS = 0.05
# Interactions per user. What tells dense from sparse is whether a window of 50 is filled: below it dropout and an early
# end matter most, above it the window and more epochs do. Public logs have 6 to 24 and 100 and more.
LONG_HISTORY = 50.0
# Different moments per user. With fewer than two nobody is seen to come back at another time, and the parts of the
# history that read moments have nothing to count.
FEW_MOMENTS = 2.0
# `history` of a model for such a log: `recency` stands in for `baskets`, beside which it adds nothing.
WITHOUT_MOMENTS = ("recency", "bigrams", "items", "mix")


@dataclass(frozen=True)
class Choice:
    """A recipe for a log.

    Attributes:
        kind: stem of the recipe in `recipes/regimes/`.
        overrides: keys of the recipe that this log needs otherwise.
        because: which and why, in one sentence.
    """

    kind: str
    because: str
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the recipe, as `sr-transformers recipes` lists it."""
        return f"regimes/{self.kind}"


def choose(counts: Mapping[str, Any]) -> Choice:
    """The recipe for a log with these counts.

    Args:
        counts: of the manifest of a prepared folder; looked at are `mean_length`, `repeat_share` and `tied_share`.

    >>> choose({"mean_length": 6.0, "repeat_share": 0.0, "tied_share": 0.0}).kind
    'sparse'
    """
    length, repeats = float(counts["mean_length"]), float(counts["repeat_share"])
    if repeats >= FEW_REPEATS:
        said = f"users come back to items: {repeats:.0%} of the interactions repeat one (from {FEW_REPEATS:.0%} on)"
        moments = length * (1 - float(counts["tied_share"]))
        if moments >= FEW_MOMENTS:
            return Choice(REPEATS, _sentence(REPEATS, said))
        said += f"; without moments, as a user has only {moments:.1f} different ones (at least {FEW_MOMENTS:g})"
        return Choice(REPEATS, _sentence(REPEATS, said), {"history": list(WITHOUT_MOMENTS)})
    few = f"and few items are had again ({repeats:.1%} of the interactions, below {FEW_REPEATS:.0%})"
    if length >= LONG_HISTORY:
        said = f"histories are long, {length:.1f} interactions per user (from {LONG_HISTORY:g} on), {few}"
        return Choice(DENSE, _sentence(DENSE, said))
    said = f"histories are short, {length:.1f} interactions per user (below {LONG_HISTORY:g}), {few}"
    return Choice(SPARSE, _sentence(SPARSE, said))


def auto_recipe(data: PreparedData, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe that `choose` takes for a prepared log; `Recipe.chosen` says why.

    Args:
        overrides: values by key; they win.

    Raises:
        ValueError: for a key or value that is not allowed.
    """
    choice = choose(data.manifest["counts"])
    recipe = Recipe.load(choice.name, {**choice.overrides, **(overrides or {})})
    recipe.chosen = choice.because
    return recipe


def _sentence(kind: str, said: str) -> str:
    return f"{AUTO} takes regimes/{kind}, because {said}."
