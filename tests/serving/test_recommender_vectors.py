"""Vectors whose inner product is the ranking, tables, and limits for each history."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender, Session
from sr_transformers.data.vocabulary import build_tokenizer

ITEMS = [f"i{n}" for n in range(200)]
HISTORIES = [[f"i{(7 * user + 3 * step) % 200}" for step in range(1 + user % 12)] for user in range(100)]


def model(**more):
    torch.manual_seed(0)
    config = LSRMConfig(vocab_size=len(ITEMS) + 2, hidden_size=16, num_hidden_layers=1, max_position_embeddings=8,
                        initializer_range=0.3, **more)  # fmt: skip
    return LSRMForCausalLM(config)


@pytest.fixture(scope="module")
def recommender():
    return Recommender(model(), build_tokenizer(ITEMS, np.arange(len(ITEMS))))


def names(found):
    return [one.item for one in found]


def test_the_inner_product_ranks_as_the_recommender_does(recommender):
    ids, items = recommender.item_embeddings()
    users = recommender.user_embeddings(HISTORIES)
    assert ids == ITEMS
    assert (items.shape, users.shape) == ((200, 16), (100, 16))
    assert items.dtype == users.dtype == np.float32
    lists = recommender.recommend_batch(HISTORIES, 10, exclude_seen=False)
    for scores, found in zip(users @ items.T, lists, strict=True):
        assert [ids[place] for place in np.argsort(-scores)[:10]] == names(found)
    cosine = users @ (items / np.linalg.norm(items, axis=1, keepdims=True)).T
    same = [
        [ids[place] for place in np.argsort(-scores)[:10]] == names(found)
        for scores, found in zip(cosine, lists, strict=True)
    ]
    assert sum(same) < 50


def test_faiss_finds_the_same(recommender):
    faiss = pytest.importorskip("faiss")
    ids, items = recommender.item_embeddings()
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    _, places = index.search(recommender.user_embeddings(HISTORIES), 10)
    lists = recommender.recommend_batch(HISTORIES, 10, exclude_seen=False)
    assert [[ids[place] for place in row] for row in places.tolist()] == [names(found) for found in lists]


def test_vectors_are_refused_where_they_would_not_rank(recommender):
    with pytest.raises(ValueError, match=r"adds to the scores of single items \(recency of its history\)"):
        Recommender(model(history=["recency"]), recommender.tokenizer).item_embeddings()
    other = GPT2LMHeadModel(GPT2Config(vocab_size=202, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    other.config.max_position_embeddings = 8
    for call in (lambda one: one.item_embeddings(), lambda one: one.user_embeddings([["i1"]])):
        with pytest.raises(ValueError, match="has no vectors: its scores are more than a product"):
            call(Recommender(other, recommender.tokenizer))
    hooked = model()
    hooked.lm_head.register_forward_hook(lambda module, inputs, output: output * 2)
    assert isinstance(hooked.lm_head, nn.Linear)
    with pytest.raises(ValueError, match="has no vectors"):
        Recommender(hooked, recommender.tokenizer).item_embeddings()
    with pytest.raises(ValueError, match="history 1 has no item"):
        recommender.user_embeddings([["i1"], ["x"]])
    assert recommender.user_embeddings([]).shape == (0, 16)


def test_vectors_belong_to_the_caller(recommender):
    before = recommender.recommend(["i1"])
    recommender.item_embeddings()[1][:] = 0
    assert recommender.recommend(["i1"]) == before


def test_candidates_and_exclusions_of_each_history(recommender):
    histories = [["i1"], ["i2"], ["i3"]]
    found = recommender.recommend_batch(
        histories, 5, candidates=[["i4", "i5", "x"], None, ["i6"]], exclude=[["i4"], None, None]
    )
    free = recommender.recommend_batch(histories, 200)
    assert names(found[0]) == ["i5"]
    assert names(found[1]) == names(free[1])[:5]
    assert names(found[2]) == ["i6"]
    best = names(free[0])[0]
    everybody = recommender.recommend_batch(histories, 200, exclude=[best, "never heard of"])
    assert [names(one) for one in everybody] == [[item for item in names(one) if item != best] for one in free]
    assert everybody[0][0].probability == free[0][1].probability  # what is left out is not shared out
    assert names(recommender.recommend(["i1"], 3, exclude=[best])) == names(free[0])[1:4]
    assert names(Session(recommender, ["i1"]).recommend(3, exclude=[best])) == names(free[0])[1:4]


def test_limits_hold_where_users_are_scored_part_by_part(recommender, monkeypatch):
    each = [[f"i{user}", f"i{(user + 50) % 200}"] for user in range(len(HISTORIES))]
    whole = recommender.recommend_batch(HISTORIES, 5, exclude_seen=False, candidates=each, exclude=HISTORIES)
    monkeypatch.setattr("sr_transformers.serving.recommender.rows_of_scores", lambda _: 7)
    parts = recommender.recommend_batch(HISTORIES, 5, exclude_seen=False, candidates=each, exclude=HISTORIES)
    assert [names(one) for one in parts] == [names(one) for one in whole]
    for found, only, never in zip(whole, each, HISTORIES, strict=True):
        assert set(names(found)) == set(only) - set(never)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"candidates": [["i1"]]}, "candidates has 1 lists for 2 histories"),
        ({"exclude": [["i1"]] * 3}, "exclude has 3 lists for 2 histories"),
        ({"candidates": [["i1"], ["x"]]}, "none of the candidates of history 1"),
        ({"exclude": [["i1"], [None]]}, "the item at place 0 is None"),
    ],
)
def test_lists_of_another_number_are_refused(recommender, options, says):
    with pytest.raises(ValueError, match=says):
        recommender.recommend_batch([["i1"], ["i2"]], **options)


def test_a_table_of_several_users(recommender):
    found = recommender.recommend_frame(["b", "a"], [["i1"], ["i2"]], 3, candidates=[None, ["i9"]])
    expected = recommender.recommend(["i1"], 3)
    assert found.schema == {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int32, "score": pl.Float64}
    assert found.select("user_id", "item_id", "rank").rows() == [
        *(("b", one.item, place) for place, one in enumerate(expected, 1)),
        ("a", "i9", 1),
    ]
    assert found["score"].to_list()[:3] == pytest.approx([one.probability for one in expected], abs=1e-6)
    unknown = recommender.recommend_frame([1], [["x"]], 2, fallback="popularity")
    assert unknown["item_id"].to_list() == ["i199", "i198"]
    assert all(math.isnan(score) for score in unknown["score"])
    assert recommender.recommend_frame([], [], 3).height == 0
    for users in (["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="give every history a user of its own"):
            recommender.recommend_frame(users, [["i1"], ["i2"]])
