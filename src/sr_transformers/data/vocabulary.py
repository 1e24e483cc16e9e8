"""The item vocabulary: which raw item id is which row of the embedding, kept as a standard transformers tokenizer.

Token 0 is padding, token 1 stands for every unknown item, items follow from token 2 on by falling training count (ties:
by id). So the order of the tokens is the popularity ranking of the training data. `AutoTokenizer.from_pretrained` loads
the saved folder without code of ours.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sr_transformers.lsrm.configuration_lsrm import NUM_SPECIAL

PAD_ID = 0
UNK_ID = 1

# Splits a history that is given as one string; the first of these that occurs in no item id is used.
_SEPARATORS = ("\t", "\n", "\x1f", "\x1e", "\x1d", "\x1c")


def build_tokenizer(item_ids: Sequence[str] | Sequence[int]) -> PreTrainedTokenizerFast:
    """Makes the tokenizer of a vocabulary.

    Args:
        item_ids: distinct raw ids, most popular first; integers are kept as their decimal text.

    Returns:
        A tokenizer that takes `tokenizer(["id 1", "id 2"], is_split_into_words=True)` for any text whatsoever, and
        tab-separated ids in one string. It pads and truncates on the left: the most recent items stay.

    Raises:
        ValueError: for duplicate ids, or an id that is empty or cannot be written as UTF-8.
    """
    texts = [str(item) for item in item_ids]
    everything = "\x00".join(texts)
    try:
        everything.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"an item id holds a lone surrogate and has no UTF-8 form: {error}") from error
    pad, unk = _unused("[PAD]", everything), _unused("[UNK]", everything)
    vocabulary = dict(zip((pad, unk, *texts), range(NUM_SPECIAL + len(texts)), strict=True))
    if "" in vocabulary:
        raise ValueError("item id '' is empty; ids must be distinct and hold something.")
    if len(vocabulary) < NUM_SPECIAL + len(texts):
        twice = next(text for index, text in enumerate(texts, NUM_SPECIAL) if vocabulary[text] != index)
        raise ValueError(f"item id {twice!r} is given twice; ids must be distinct.")
    core = Tokenizer(WordLevel({pad: PAD_ID, unk: UNK_ID}, unk_token=unk))
    separator = next((mark for mark in _SEPARATORS if mark not in everything), None)
    if separator is not None:
        core.pre_tokenizer = pre_tokenizers.Split(separator, behavior="removed")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=pad,
        unk_token=unk,
        padding_side="left",
        truncation_side="left",
        model_input_names=["input_ids", "attention_mask"],
        item_id_type="integer" if item_ids and isinstance(item_ids[0], int) else "text",
    )
    # Only now: transformers copies what it is given, which for a large vocabulary takes longer than to prepare the log.
    tokenizer.backend_tokenizer.model = WordLevel(vocabulary, unk_token=unk)
    return tokenizer


def _unused(name: str, everything: str) -> str:
    """A special token's name that is part of no item id: tokenizers find special tokens inside longer text."""
    while name in everything:
        name = f"<{name}>"
    return name


def encode_items(tokenizer: PreTrainedTokenizerBase, item_ids: Sequence[str | int]) -> list[int]:
    """Token of every raw id, `UNK_ID` for items outside the vocabulary."""
    # An unknown item may be called like the padding token.
    return [max(tokenizer.convert_tokens_to_ids(str(item)), UNK_ID) for item in item_ids]  # type: ignore[misc, type-var]


def decode_items(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str | int]:
    """Raw id of every token, as text or integer like those of the log."""
    texts: list = tokenizer.convert_ids_to_tokens(list(tokens))  # type: ignore[assignment]
    if tokenizer.init_kwargs.get("item_id_type") == "integer":
        return [int(text) if index >= NUM_SPECIAL else text for index, text in zip(tokens, texts, strict=True)]
    return texts
