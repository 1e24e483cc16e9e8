"""The item vocabulary: which raw item id is which row of the embedding, kept as a standard transformers tokenizer.

Token 0 is padding, token 1 stands for every unknown item, items follow from token 2 on. `prepare` numbers them by
falling training count (ties: by id), but no reader may count on that order: items that come later (`append`,
`add_items`, old items that `finetune` keeps) follow the known ones however popular they are. What is popular is said by
the training counts, which the vocabulary carries (`item_counts`). `AutoTokenizer.from_pretrained` loads the saved
folder without code of ours, and with it takes integers too (`tokenization_lsrm`).
"""

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase

from sr_transformers.lsrm.configuration_lsrm import NUM_SPECIAL
from sr_transformers.lsrm.tokenization_lsrm import LSRMTokenizer

PAD_ID = 0
UNK_ID = 1

_COUNTS = "item_counts"  # key of tokenizer_config.json: int64, little-endian, zlib, base64

# A history that is given as one string is cut at those that occur in no item id, and written with the first of them.
_SEPARATORS = " \t\n\x1f\x1e\x1d\x1c"


def build_tokenizer(item_ids: Sequence[str] | Sequence[int], counts: np.ndarray | None = None) -> LSRMTokenizer:
    """Makes the tokenizer of a vocabulary.

    Args:
        item_ids: distinct raw ids in the order of their tokens; integers are kept as their decimal text.
        counts: `(V - 2,)` training interactions of every item; None: not known.

    Returns:
        A tokenizer that takes `tokenizer(["id 1", "id 2"], is_split_into_words=True)` for any text whatsoever, and ids
        in one string, separated by spaces, tabs or line breaks, whichever occur in no id. What it decodes it reads
        again: every item comes after a separator. It pads and truncates on the left: the most recent items stay.

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
    separators = "".join(mark for mark in _SEPARATORS if mark not in everything)
    if separators:
        core.pre_tokenizer = pre_tokenizers.Split(Regex(f"[{separators}]"), behavior="removed")
        core.decoder = decoders.Replace(Regex(r"\A"), separators[0])
    tokenizer = LSRMTokenizer(
        tokenizer_object=core,
        pad_token=pad,
        unk_token=unk,
        padding_side="left",
        truncation_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        separators=separators,
        item_id_type="integer" if item_ids and isinstance(item_ids[0], int) else "text",
    )
    # Only now: transformers copies what it is given, which for a large vocabulary takes longer than to prepare the log.
    tokenizer.backend_tokenizer.model = WordLevel(vocabulary, unk_token=unk)
    if counts is not None:
        set_item_counts(tokenizer, counts)
    return tokenizer


def set_item_counts(tokenizer: PreTrainedTokenizerBase, counts: np.ndarray) -> None:
    """Keeps the training counts of the items with their vocabulary: saving it saves them (in `tokenizer_config.json`).

    Args:
        counts: `(V - 2,)` integers of at least 0, from token 2 on.

    Raises:
        ValueError: for another number of counts, or one below 0.
    """
    counts, num_items = np.asarray(counts), len(tokenizer) - NUM_SPECIAL
    if counts.shape != (num_items,) or (num_items and counts.min() < 0):
        raise ValueError(f"counts have the shape {counts.shape}; give one of at least 0 for each of {num_items} items.")
    packed = zlib.compress(counts.astype("<i8").tobytes(), 1)
    tokenizer.init_kwargs[_COUNTS] = base64.b64encode(packed).decode()


def item_counts(tokenizer: PreTrainedTokenizerBase) -> np.ndarray | None:
    """`(V - 2,)` int64, training interactions of every item from token 2 on; None if the vocabulary does not know them.

    Raises:
        ValueError: if what stands there is not one count per item.
    """
    packed = tokenizer.init_kwargs.get(_COUNTS)
    if packed is None:
        return None
    size = 8 * (len(tokenizer) - NUM_SPECIAL)
    try:
        unpacking = zlib.decompressobj()
        found = unpacking.decompress(base64.b64decode(packed, validate=True), size + 1)  # whatever it would grow to
    except (TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise ValueError(f"{_COUNTS} in tokenizer_config.json is damaged: {error}. Load another copy.") from error
    counts = np.frombuffer(found, "<i8") if len(found) == size else None
    if counts is None or (len(counts) and counts.min() < 0):
        raise ValueError(
            f"{_COUNTS} in tokenizer_config.json is not one count for each of the {size // 8} items of tokenizer.json: "
            "the two files are of different vocabularies. Load another copy."
        )
    return counts.astype(np.int64)


def popular_first(tokenizer: PreTrainedTokenizerBase) -> np.ndarray | None:
    """`(V - 2,)` int64 tokens of the items by falling training count, ties by token; None without counts."""
    counts = item_counts(tokenizer)
    return None if counts is None else np.argsort(-counts, kind="stable") + NUM_SPECIAL


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


def item_list(tokenizer: PreTrainedTokenizerBase) -> list[str | int]:
    """Raw ids of a vocabulary in the order of their tokens.

    Raises:
        ValueError: if tokens 0 and 1 are not padding and unknown: then it is no item vocabulary of this library.
    """
    if (tokenizer.pad_token_id, tokenizer.unk_token_id) != (PAD_ID, UNK_ID):
        raise ValueError(
            f"padding is token {tokenizer.pad_token_id} and unknown is token {tokenizer.unk_token_id}; an item "
            f"vocabulary has them at {PAD_ID} and {UNK_ID}."
        )
    return decode_items(tokenizer, range(NUM_SPECIAL, len(tokenizer)))
