"""How a recommendation tells what the user's own past did to it."""

import copy
import math

import numpy as np
import pytest
import torch

from sr_transformers import ExplainedRecommendation, LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.data.vocabulary import build_tokenizer

ITEMS = [f"i{n}" for n in range(28)]
TIMED = ("recency", "bigrams", "items", "baskets", "clock")
HISTORY, TIMES = ["i3", "i4", "i3", "unheard of", "i9", "i3", "i4"], [10, 10, 20, 20, 30, 40, 40]


def model(parts) -> LSRMForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 4}
    made = LSRMForCausalLM(LSRMConfig(vocab_size=30, history=list(parts), time_unit=7.0, **sizes))
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


def forgets(made: LSRMForCausalLM) -> LSRMForCausalLM:
    """The same model with nothing in the tables for a user's own items."""
    made = copy.deepcopy(made)
    for name, parameter in made.history.named_parameters():
        if "own_table" in name or "item_table" in name:
            torch.nn.init.zeros_(parameter)
    return made


class Called(LSRMForCausalLM):
    """A model whose forward has to be called."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("parts", [TIMED, ("recency", "items")], ids="-".join)
@pytest.mark.parametrize("called", [False, True], ids=["read", "called"])
def test_the_factor_is_the_probability_over_that_of_a_model_with_empty_tables(parts, called):
    made = model(parts)
    tokenizer = build_tokenizer(ITEMS)
    without = Recommender(forgets(made), tokenizer)
    if called:
        other = Called(made.config).eval()
        other.load_state_dict(made.state_dict())
        made = other
    asked = {"k": 28, "exclude_seen": False, "times": TIMES}
    plain = Recommender(made, tokenizer).recommend(HISTORY, **asked)
    found = Recommender(made, tokenizer).recommend(HISTORY, **asked, explain=True)
    expected = {one.item: one.probability for one in without.recommend(HISTORY, **asked)}
    factors = {one.item: one.own_factor for one in found}
    assert [(one.item, one.probability) for one in found] == [(one.item, one.probability) for one in plain]
    for one in found:
        assert one.own_factor == pytest.approx(one.probability / expected[one.item], rel=1e-4)
        assert one.had_before == (one.item in HISTORY)
    new = [factor for item, factor in factors.items() if item not in HISTORY]
    assert new == pytest.approx([new[0]] * len(new), rel=1e-4)
    assert sum(expected[item] * factor for item, factor in factors.items()) == pytest.approx(1, rel=1e-4)
    assert max(abs(math.log(factor)) for factor in factors.values()) > 0.2


def test_words():
    one = ExplainedRecommendation("i3", 0.2, 3.21, True)
    assert one.reason == "3.2 times as likely because the user had it before"
    assert ExplainedRecommendation("i4", 0.1, 0.7, False).reason == "new to the user"


def test_several_users_and_what_popularity_answers():
    recommender = Recommender(model(("recency",)), build_tokenizer(ITEMS, counts=np.arange(28, 0, -1)))
    found = recommender.recommend_batch([["nothing"], HISTORY], k=3, explain=True, fallback="popularity")
    assert [one.item for one in found[0]] == ["i0", "i1", "i2"]
    assert all(math.isnan(one.own_factor) and not one.had_before for one in found[0])
    assert found[1] == recommender.recommend(HISTORY, k=3, explain=True)


@pytest.mark.parametrize("parts", [(), ("clock",)])
def test_nothing_to_explain_is_said(parts):
    recommender = Recommender(model(parts), build_tokenizer(ITEMS))
    assert not recommender.scorer.scores_own_past
    with pytest.raises(ValueError, match=r"adds nothing \(history: (none|clock)\); leave explain out"):
        recommender.recommend(["i1"], times=[3] if parts else None, explain=True)
