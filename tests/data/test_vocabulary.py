import base64
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sr_transformers.data.vocabulary import (
    NUM_SPECIAL,
    PAD_ID,
    UNK_ID,
    build_tokenizer,
    decode_items,
    encode_items,
    item_counts,
    popular_first,
    set_item_counts,
)

AWKWARD = st.sampled_from(
    ["[PAD]", "[UNK]", "<[PAD]>", " ", "\t", "\n", "a\tb", "a b", "007", "7", "\x00", "ä", "a\u0308"]
)
IDS = st.lists(AWKWARD | st.text(min_size=1, max_size=5), min_size=1, max_size=8, unique=True)


def saved_and_loaded(item_ids, path):
    build_tokenizer(item_ids).save_pretrained(path)
    return AutoTokenizer.from_pretrained(path)


@given(ids=IDS)
@settings(max_examples=150)
def test_any_text_round_trips_through_the_saved_tokenizer(ids, tmp_path_factory):
    tokenizer = saved_and_loaded(ids, tmp_path_factory.mktemp("tokenizer"))
    tokens = list(range(NUM_SPECIAL, NUM_SPECIAL + len(ids)))
    assert len(tokenizer) == NUM_SPECIAL + len(ids)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (PAD_ID, UNK_ID)
    assert encode_items(tokenizer, ids) == tokens
    assert decode_items(tokenizer, tokens) == ids
    assert tokenizer(ids, is_split_into_words=True)["input_ids"] == tokens


def test_integer_ids_come_back_as_integers(tmp_path):
    tokenizer = saved_and_loaded([30, -7, 0], tmp_path)
    assert encode_items(tokenizer, [-7, 30, "0"]) == [3, 2, 4]
    decoded = decode_items(tokenizer, [3, 2, 4])
    assert decoded == [-7, 30, 0]
    assert all(type(item) is int for item in decoded)
    assert decode_items(tokenizer, [PAD_ID, UNK_ID, 2]) == ["[PAD]", "[UNK]", 30]


def test_what_is_no_item_of_the_vocabulary_is_unknown():
    tokenizer = build_tokenizer(["a"])
    assert encode_items(tokenizer, ["b", "a", "", "[UNK]", "[PAD]"]) == [UNK_ID, 2, UNK_ID, UNK_ID, UNK_ID]
    assert encode_items(tokenizer, []) == []
    assert decode_items(tokenizer, []) == []


def test_special_tokens_get_names_that_are_part_of_no_item():
    tokenizer = build_tokenizer(["x[PAD]y", "<[PAD]>", "[UNK]"])
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("<<[PAD]>>", "<[UNK]>")


def test_a_history_in_one_string_is_cut_at_every_separator_that_no_item_has():
    assert build_tokenizer(["a", "c"])("a c\ta\nc  a")["input_ids"] == [2, 3, 2, 3, 2]
    assert build_tokenizer(["a b", "c"])("a b\tc")["input_ids"] == [2, 3]
    assert build_tokenizer(["a\tb", "c"])("a\tb\nc")["input_ids"] == [2, 3]


def test_batches_are_padded_and_cut_on_the_left(tmp_path):
    tokenizer = saved_and_loaded(["a", "b", "c"], tmp_path)
    batch = tokenizer([["a"], ["a", "b", "c"]], is_split_into_words=True, padding=True, truncation=True, max_length=2)
    assert batch["input_ids"] == [[PAD_ID, 2], [3, 4]]
    assert batch["attention_mask"] == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a"], "item id 'a' is given twice"),
        ([1, 1], "item id '1' is given twice"),
        (["a", ""], "item id '' is empty"),
        (["a", "\ud800"], "lone surrogate"),
    ],
)
def test_ids_that_cannot_be_told_apart_or_written_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        build_tokenizer(ids)


def test_training_counts_stay_with_the_vocabulary(tmp_path):
    counts = np.array([3, 0, 2**40, 3])
    build_tokenizer(["a", "b", "c", "d"], counts).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert item_counts(tokenizer).tolist() == counts.tolist()
    assert popular_first(tokenizer).tolist() == [4, 2, 5, 3]  # ties by token
    assert item_counts(build_tokenizer(["a"])) is None
    assert popular_first(build_tokenizer(["a"])) is None


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, 3, 4], [1, -1, 2], [[1, 2, 3]]])
def test_there_is_one_count_for_each_item(counts):
    with pytest.raises(ValueError, match="give one of at least 0 for each of 3 items"):
        set_item_counts(build_tokenizer(["a", "b", "c"]), np.array(counts))


@pytest.mark.parametrize("kept", ["%%%", 7, base64.b64encode(b"no zlib").decode()])
def test_damaged_counts_are_refused(kept, tmp_path):
    tokenizer = build_tokenizer(["a", "b"], np.array([1, 2]))
    tokenizer.init_kwargs["item_counts"] = kept
    with pytest.raises(ValueError, match=r"item_counts in tokenizer_config\.json is damaged"):
        item_counts(tokenizer)


@pytest.mark.parametrize("other", [[1], [1, 2, 3], [1, -2]])
def test_counts_of_another_vocabulary_are_refused(other):
    tokenizer = build_tokenizer(["a", "b"])
    packed = zlib.compress(np.array(other, "<i8").tobytes())
    tokenizer.init_kwargs["item_counts"] = base64.b64encode(packed).decode()
    with pytest.raises(ValueError, match="not one count for each of the 2 items"):
        item_counts(tokenizer)
