"""Raw ids: of what type those of a vocabulary are in a table, and whether some are given for each history."""

from collections.abc import Sequence
from typing import Any

import polars as pl
from transformers import PreTrainedTokenizerBase

from sr_transformers.serving.recommendation import ItemId


def type_of_ids(tokenizer: PreTrainedTokenizerBase, items: Sequence[ItemId]) -> Any:
    """The type of polars for the ids of a vocabulary: text, or integers of which some may have all 64 bits."""
    if tokenizer.init_kwargs.get("item_id_type") != "integer":
        return pl.String
    return pl.UInt64 if any(int(item) >= 1 << 63 for item in items) else pl.Int64


def is_for_each(given: Any, count: int) -> bool:
    """Whether ids are given as one list, or None, for each of `count` histories, and not as one list for all."""
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
        return False
    if count > 1 and len(given) == count and all(one is None for one in given):
        return True
    return any(hasattr(one, "__len__") and not isinstance(one, str | bytes) for one in given)
