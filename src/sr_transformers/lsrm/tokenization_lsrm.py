# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""The item vocabulary as a tokenizer that takes ids as a log has them, integers too.

All that the vocabulary is stands in `tokenizer.json`; elsewhere transformers' own class reads it and wants ids as text.
"""

from numbers import Integral
from typing import Any

from transformers import PreTrainedTokenizerFast


class LSRMTokenizer(PreTrainedTokenizerFast):
    """`tokenizer([[7, 9]], is_split_into_words=True)` is what `[["7", "9"]]` is, and an id stays one token.

    Attributes:
        separators: characters at which a history given as one string is cut; they occur in no item id. `decode` puts
            the first of them before every item.
    """

    # No `__init__`: transformers reads tokenizer.json as it is only for a class without one.

    @property
    def separators(self) -> str:
        return self.init_kwargs.get("separators", "")

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("is_split_into_words") and isinstance(text, list | tuple):
            text = [self._word(one) for one in text]
        return super()._encode_plus(text, *args, **kwargs)

    def _word(self, item: Any) -> Any:
        """An id as text; a history as its ids."""
        if isinstance(item, list | tuple):
            return [self._word(one) for one in item]
        if isinstance(item, Integral) and not isinstance(item, bool):
            return str(item)
        # An unknown id with a separator or a special token in it would come apart, perhaps into ids that are known.
        marks = [*self.separators, *(token for token in self.all_special_tokens if token != item)]
        return self.unk_token if isinstance(item, str) and any(mark in item for mark in marks) else item


__all__ = ["LSRMTokenizer"]
