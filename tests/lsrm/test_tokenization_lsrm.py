"""The vocabulary as a tokenizer: what it decodes it reads again, and ids are taken as a log has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.lsrm.tokenization_lsrm import LSRMTokenizer

AWKWARD = st.sampled_from([" ", "a b", "a\tb", "a\nb", "\n", "-7", "[PAD]", "."])
IDS = st.lists(AWKWARD | st.text("ab \t\nä.'", min_size=1), min_size=1, max_size=6, unique=True)


def saved_and_loaded(ids, path):
    build_tokenizer(ids).save_pretrained(path)
    return AutoTokenizer.from_pretrained(path)


@given(ids=IDS, places=st.lists(st.integers(0, 5), max_size=6))
def test_what_it_decodes_it_reads_again(ids, places, tmp_path_factory):
    tokenizer = saved_and_loaded(ids, tmp_path_factory.mktemp("tokenizer"))
    tokens = [2 + place % len(ids) for place in places]
    assert tokenizer(tokenizer.decode(tokens)).input_ids == tokens


@pytest.mark.parametrize(("ids", "text"), [(["a", "b"], " a b a"), (["a", "b c"], "\ta\tb c\ta"), ([7, 30], " 7 30 7")])
def test_every_item_comes_after_a_separator(ids, text):
    assert build_tokenizer(ids).decode([2, 3, 2]) == text


def test_special_tokens_are_read_again_too():
    tokenizer = build_tokenizer(["a"])
    assert tokenizer(tokenizer.decode([0, 2, 1])).input_ids == [0, 2, 1]


def test_integers_are_taken(tmp_path):
    tokenizer = saved_and_loaded([30, -7, 5], tmp_path)
    assert type(tokenizer) is LSRMTokenizer
    assert tokenizer([30, -7, 9], is_split_into_words=True).input_ids == [2, 3, 1]
    assert tokenizer([[30], [5, -7]], is_split_into_words=True).input_ids == [[2], [4, 3]]
    assert tokenizer([["30", 5]], is_split_into_words=True, padding=True).input_ids == [[2, 4]]
    assert tokenizer.encode([30, 5], is_split_into_words=True) == [2, 4]


@pytest.mark.parametrize("wrong", [None, 1.5, True])
def test_what_is_no_id_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        build_tokenizer([30, 1])([30, wrong], is_split_into_words=True)


def test_an_unknown_id_with_a_separator_stays_one(tmp_path):
    tokenizer = saved_and_loaded(["red", "shoe"], tmp_path)
    assert tokenizer(["red", "red shoe"], is_split_into_words=True).input_ids == [2, 1]


def test_an_unknown_id_with_a_special_token_stays_one(tmp_path):
    tokenizer = saved_and_loaded(["red", "shoe"], tmp_path)
    ids = ["red[UNK]shoe", "shoe[PAD]", "shoe", "[PAD]"]
    assert tokenizer(ids, is_split_into_words=True).input_ids == [1, 1, 3, 0]
