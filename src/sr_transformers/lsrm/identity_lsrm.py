# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Whose tokens are these? A fingerprint of an item vocabulary, and the question whether a model and a vocabulary fit.

A token is a place in a list of items: two lists of one length give every token another meaning, and nothing crashes. So
a model keeps the fingerprint of its items (`LSRMConfig.items_fingerprint`), and whoever brings it together with a
vocabulary or a log compares. This file travels to the Hub beside the weights: it imports nothing of ours.
"""

import array
import hashlib
import sys
from collections.abc import Iterable

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

FIRST_ITEM = 2  # tokens 0 and 1 are padding and unknown


def items_fingerprint(item_ids: Iterable[str | int]) -> str:
    """SHA-256 of raw ids in the order of their tokens, and of their type: 1 and "1" are different items.

    Args:
        item_ids: all integers or all text; a list of 10 million takes a few seconds.

    >>> items_fingerprint(["a", "bc"]) == items_fingerprint(["ab", "c"])
    False
    >>> items_fingerprint([1, 2]) == items_fingerprint(["1", "2"])
    False
    """
    ids = list(item_ids)
    return _of_texts([str(item) for item in ids], bool(ids) and isinstance(ids[0], int))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """The fingerprint of the items of a vocabulary, from what it really holds."""
    texts: list = tokenizer.convert_ids_to_tokens(list(range(FIRST_ITEM, len(tokenizer))))  # type: ignore[assignment]
    return _of_texts(texts, tokenizer.init_kwargs.get("item_id_type") == "integer")


def _of_texts(texts: list[str], integers: bool) -> str:
    digest = hashlib.sha256(b"integer" if integers else b"text")
    lengths = array.array("q", map(len, texts))  # without them "a", "bc" would be "ab", "c"
    if sys.byteorder == "big":
        lengths.byteswap()
    digest.update(lengths.tobytes())
    digest.update("".join(texts).encode())
    return digest.hexdigest()


def check_same_items(config: PreTrainedConfig, fingerprint: str, what: str) -> None:
    """Refuses a model whose tokens stand for other items. A model that was built by hand knows no items: it passes.

    Args:
        config: the model's.
        fingerprint: of the items that the model is to read and name.
        what: whose items these are, for the message.

    Raises:
        ValueError: if they are not the model's.
    """
    known = getattr(config, "items_fingerprint", None)
    if known is not None and known != fingerprint:
        raise ValueError(
            f"the model's items are not those of {what}, or stand in another order (fingerprints {known[:12]} and "
            f"{fingerprint[:12]}): every token would mean another item. Load model and vocabulary from the same folder."
        )


__all__ = ["check_same_items", "items_fingerprint", "tokenizer_fingerprint"]
