import hashlib
import struct

import pytest
from transformers import LlamaConfig

from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.identity_lsrm import check_same_items, items_fingerprint, tokenizer_fingerprint

ITEMS = ["tea", "Käse", "a\tb", "茶", "7"]


@pytest.mark.parametrize("items", [ITEMS, [7, -3, 12], ["7", "-3", "12"], []])
def test_a_vocabulary_has_the_fingerprint_of_its_items(items, tmp_path):
    tokenizer = build_tokenizer(items)
    assert tokenizer_fingerprint(tokenizer) == items_fingerprint(items)
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(type(tokenizer).from_pretrained(tmp_path)) == items_fingerprint(items)


def test_order_type_boundaries_and_every_letter_count():
    lists = [ITEMS, ITEMS[::-1], ITEMS[:-1], [*ITEMS[:-1], "8"], ["teaK", "äse", *ITEMS[2:]], [1, 2], ["1", "2"], [12]]
    assert len({items_fingerprint(items) for items in lists}) == len(lists)


def test_the_fingerprint_is_of_the_type_the_lengths_and_the_letters():
    by_hand = hashlib.sha256(b"text" + struct.pack("<qq", 1, 2) + b"abc").hexdigest()
    assert items_fingerprint(["a", "bc"]) == by_hand


@pytest.mark.parametrize("kind", [LSRMConfig, LlamaConfig])
def test_other_items_are_refused_and_nobodys_are_not(kind):
    config = kind(vocab_size=7)
    check_same_items(config, items_fingerprint(ITEMS), "the log")
    config.items_fingerprint = items_fingerprint(ITEMS)
    check_same_items(config, items_fingerprint(ITEMS), "the log")
    with pytest.raises(ValueError, match="the model's items are not those of the log, or stand in another order"):
        check_same_items(config, items_fingerprint(ITEMS[::-1]), "the log")
