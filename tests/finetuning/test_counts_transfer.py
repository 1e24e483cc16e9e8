"""What `mix` has counted stays with its items."""

import numpy as np
import pytest
import torch
from made_mix import fill_mix

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.data.vocabulary import NUM_SPECIAL, build_tokenizer, item_list
from sr_transformers.finetuning.vocabulary_transfer import add_items, with_vocabulary
from sr_transformers.lsrm.configuration_lsrm import LAGS

ITEMS = [f"i{number}" for number in range(9)]
DROPPED = "i4"
ENDS = [10, 20, 30]
TIMES = [5, 5, 22, 25]
HISTORY = ["i1", "i6", "i1", "i7"]


@pytest.fixture(params=[("items", "mix"), ("items", "baskets", "clock", "mix")])
def model(request):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "max_position_embeddings": 4}
    made = LSRMForCausalLM(LSRMConfig(vocab_size=11, history=list(request.param), **sizes)).eval()
    fill_mix(made, ENDS)
    return made


def pairs(model, tokenizer):
    """`(lag or stretch, item or None, item) -> count` by the items' names."""
    mix, names = model.history.mix, [None] * NUM_SPECIAL + item_list(tokenizer)
    found = {}
    for lag in range(LAGS):
        for item in range(len(names)):
            for place in range(int(mix.successor_starts[lag, item]), int(mix.successor_starts[lag, item + 1])):
                key = (lag, names[item], names[mix.successor_tokens[place]])
                found[key] = int(mix.successor_counts[place])
    for stretch in range(len(mix.recent_starts) - 1 if model.config.needs_times else 0):
        for place in range(int(mix.recent_starts[stretch]), int(mix.recent_starts[stretch + 1])):
            found["stretch", stretch, names[mix.recent_tokens[place]]] = int(mix.recent_counts[place])
    return found


def answers(model, tokenizer):
    times = {"times": TIMES} if model.config.needs_times else {}
    found = Recommender(model, tokenizer).recommend(HISTORY, k=99, exclude_seen=False, **times)
    return {one.item: one.probability for one in found}


def test_items_that_are_added_leave_what_is_mixed_in_as_it_was(model):
    tokenizer = build_tokenizer(ITEMS)
    model.config.mix_share = 1.0  # what was counted speaks alone
    before = answers(model, tokenizer)
    grown, vocabulary, _ = add_items(model, tokenizer, ["new"])
    after = answers(grown, vocabulary)
    assert after.pop("new") == pytest.approx(0, abs=1e-6)
    assert after == pytest.approx(before, rel=1e-5)
    assert grown.config.mix_weights == model.config.mix_weights


def test_every_count_goes_with_its_items(model, tmp_path):
    tokenizer = build_tokenizer(ITEMS)
    order = np.random.default_rng(0).permutation([item for item in ITEMS if item != DROPPED]).tolist()
    grown, vocabulary, _ = with_vocabulary(model, tokenizer, [*order[:3], "new", *order[3:], "newer"])
    kept = {key: count for key, count in pairs(model, tokenizer).items() if DROPPED not in key}
    assert pairs(grown, vocabulary) == kept
    assert len(kept) > 20
    popularity = dict(zip(item_list(vocabulary), grown.history.mix.popularity[NUM_SPECIAL:].tolist(), strict=True))
    before = dict(zip(ITEMS, model.history.mix.popularity[NUM_SPECIAL:].tolist(), strict=True))
    assert popularity == {item: before.get(item, 0) for item in item_list(vocabulary)}
    grown.save_pretrained(tmp_path)
    vocabulary.save_pretrained(tmp_path)
    loaded = Recommender.from_pretrained(tmp_path)
    assert answers(loaded.scorer.model, vocabulary) == pytest.approx(answers(grown, vocabulary))


def test_nothing_may_be_left(model):
    grown, vocabulary, _ = with_vocabulary(model, build_tokenizer(ITEMS), ["new", "newer"])
    assert pairs(grown, vocabulary) == {}
    assert grown.config.successor_pairs == 1
    assert not grown.history.mix.popularity.any()
    times = {"times": [5]} if model.config.needs_times else {}
    (found,) = Recommender(grown, vocabulary).recommend(["newer"], k=2, exclude_seen=True, **times)
    assert found.item == "new"
