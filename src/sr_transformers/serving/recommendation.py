"""What is recommended: an item, how likely it is, and on request what the user's own past did to that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sr_transformers.columns import ITEM, USER

ItemId = str | int


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended item; a web framework turns it into an object with these two names.

    Attributes:
        item: raw id, of the type that the log had.
        probability: the model's, over all items of the vocabulary, in [0, 1]; nan where popularity stood in.
    """

    item: ItemId
    probability: float


@dataclass(frozen=True, slots=True)
class ExplainedRecommendation(Recommendation):
    """A recommended item, and what the user's own past did to its probability.

    Attributes:
        own_factor: `p(v) / p0(v)`: how many times as likely the item is as it would be without the user's own past, 0
            or more. p is the model's probability, and p0 the one that the same model gives when nothing is added to the
            scores of the items that the user had (`history` of its configuration: recency, bigrams, items and baskets).
            The window that the model reads, and what followed its items elsewhere (mix), are part of both. As
            the probabilities of all items sum to 1, an item that the user never had gets a little less when others get
            more: its factor is the same for all such items. nan where popularity stood in.
        had_before: whether the item is one of the user's own past.
    """

    own_factor: float
    had_before: bool

    @property
    def reason(self) -> str:
        """The factor in words."""
        if not self.had_before:
            return "new to the user"
        return f"{self.own_factor:.1f} times as likely because the user had it before"


def as_frame(users: Sequence[ItemId], found: Sequence[Sequence[Recommendation]], items: Any) -> pl.DataFrame:
    """The table of `Recommender.recommend_frame`; items: the type of polars that their ids have."""
    lengths = np.array([len(one) for one in found], np.int64)
    who = pl.Series(USER, list(users))
    return pl.DataFrame(
        {
            USER: who.gather(np.repeat(np.arange(len(users)), lengths)),
            ITEM: pl.Series([one.item for row in found for one in row], dtype=items),
            "rank": pl.Series([place for n in lengths for place in range(1, n + 1)], dtype=pl.Int32),
            "score": pl.Series([one.probability for row in found for one in row], dtype=pl.Float64),
        }
    )


__all__ = ["ExplainedRecommendation", "ItemId", "Recommendation", "as_frame"]
