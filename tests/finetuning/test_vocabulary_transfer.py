import math

import numpy as np
import polars as pl
import pytest
import scipy.sparse
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.columns import ITEM, TIMESTAMP, USER
from sr_transformers.data.fractions import FractionOfData
from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import build_tokenizer, item_counts, item_list
from sr_transformers.finetuning.vocabulary_transfer import _keep_best, add_items, nearest_weights, with_vocabulary
from sr_transformers.lsrm.identity_lsrm import items_fingerprint

OLD = ["a", "b", "c", "d"]


def make(tie=True, items=OLD, **more):
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=len(items) + 2, hidden_size=8, max_position_embeddings=4, tie_word_embeddings=tie, **more
    )
    return LSRMForCausalLM(config), build_tokenizer(items)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Training histories: n beside a (twice) and b (once), m only beside n, c and x far from all that is known."""
    histories = ["a n a", "n b", "m n", "c x x x x x n"]
    rows = [
        (f"u{user}", item, time)
        for user, history in enumerate(histories)
        for time, item in enumerate([*history.split(), "held", "out"])
    ]
    frame = pl.DataFrame(rows, schema=[USER, ITEM, TIMESTAMP], orient="row")
    return prepare(frame, tmp_path_factory.mktemp("log") / "data")


@pytest.mark.parametrize("init", ["mean", "random"])
@pytest.mark.parametrize("tie", [True, False])
def test_known_items_and_special_tokens_keep_their_rows(init, tie):
    model, tokenizer = make(tie)
    new_items = ["c", "new", "a", "other"]
    grown, vocabulary, change = with_vocabulary(model, tokenizer, new_items, init)
    assert item_list(vocabulary) == new_items
    assert grown.config.vocab_size == len(vocabulary) == 6
    assert (change.known, change.new, change.dropped) == (2, 2, 2)
    for old, new in (
        (model.get_input_embeddings().weight, grown.get_input_embeddings().weight),
        (model.get_output_embeddings().weight, grown.get_output_embeddings().weight),
    ):
        assert torch.equal(new[[0, 1, 2, 4]], old[[0, 1, 4, 2]])
        assert not torch.isin(new[[3, 5]], old).any()
    assert (grown.lm_head.weight is grown.model.embed_tokens.weight) == tie
    before = {name: value for name, value in model.state_dict().items() if "embed_tokens" not in name}
    for name, value in before.items():
        assert "lm_head" in name or torch.equal(grown.state_dict()[name], value)


def test_logits_of_known_items_do_not_change():
    model, tokenizer = make()
    grown, vocabulary, _ = with_vocabulary(model, tokenizer, ["d", "n", "b", "a"], "mean")
    before = model.eval()(torch.tensor([tokenizer.convert_tokens_to_ids(["a", "d"])])).logits[0, -1]
    after = grown.eval()(torch.tensor([vocabulary.convert_tokens_to_ids(["a", "d"])])).logits[0, -1]
    for item in ("a", "b", "d"):
        one, two = before[tokenizer.convert_tokens_to_ids(item)], after[vocabulary.convert_tokens_to_ids(item)]
        assert one.item() == pytest.approx(two.item(), abs=1e-6)


def test_added_items_follow_the_old_ones():
    model, tokenizer = make()
    grown, vocabulary, change = add_items(model, tokenizer, ["n", "m"])
    assert item_list(vocabulary) == [*OLD, "n", "m"]
    assert torch.equal(grown.model.embed_tokens.weight[:6], model.model.embed_tokens.weight)
    assert change.as_dict() == {
        "known": 4, "new": 2, "dropped": 0, "by_nearest": 0, "by_mean": 2, "by_random": 0
    }  # fmt: skip
    found = Recommender(grown, vocabulary).recommend(["n"], k=9)
    assert {one.item for one in found} == {*OLD, "m"}


def test_an_item_that_is_there_cannot_be_added():
    model, tokenizer = make()
    with pytest.raises(ValueError, match="item 'b' is in the vocabulary already"):
        add_items(model, tokenizer, ["n", "b"])


def test_mean_rows_lie_about_the_mean_and_differ():
    model, tokenizer = make(initializer_range=0.9)
    rows = add_items(model, tokenizer, [f"n{i}" for i in range(400)])[0].model.embed_tokens.weight[6:].detach()
    old = model.model.embed_tokens.weight[2:].detach()
    deviation = (rows - old.mean(0)) / (0.01 * old.std(0, correction=0))
    assert deviation.mean().abs() < 5 / math.sqrt(deviation.numel())
    assert deviation.std().item() == pytest.approx(1.0, abs=0.05)
    assert len(rows.unique(dim=0)) == 400


def test_random_rows_are_those_of_a_fresh_model_and_follow_the_seed():
    model, tokenizer = make(initializer_range=0.3)
    items = [f"n{i}" for i in range(400)]
    one, two, other = (
        add_items(model, tokenizer, items, "random", seed=seed)[0].model.embed_tokens.weight[6:].detach()
        for seed in (1, 1, 2)
    )
    assert one.std().item() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_nearest_rows_are_the_weighted_mean_of_the_neighbours(log):
    model, tokenizer = make()
    items = [str(item) for item in item_list(log.tokenizer)]
    assert set(items) == {"a", "b", "c", "n", "m", "x"}
    grown, _, change = with_vocabulary(model, tokenizer, items, "nearest", log)
    # Pairs at most 5 apart: n with a 2 times, n with b once; x with c 5 times. Counts: n 4, a 2, b 1, c 1, x 5.
    with_a, with_b = 2 / math.sqrt(4 * 2), 1 / math.sqrt(4 * 1)
    old = dict(zip(OLD, model.model.embed_tokens.weight[2:], strict=True))
    new = dict(zip(items, grown.model.embed_tokens.weight[2:], strict=True))
    expected = (with_a * old["a"] + with_b * old["b"]) / (with_a + with_b)
    torch.testing.assert_close(new["n"], expected)
    torch.testing.assert_close(new["x"], old["c"])
    # m meets nothing known: the mean, and counted as such.
    spread = model.model.embed_tokens.weight[2:].std(0, correction=0)
    assert ((new["m"] - model.model.embed_tokens.weight[2:].mean(0)).abs() < 0.06 * spread).all()
    assert (change.new, change.by_nearest, change.by_mean, change.dropped) == (3, 2, 1, 1)
    assert torch.equal(new["a"], old["a"])


def test_only_training_data_decide_who_is_near(log):
    weights = nearest_weights(log, ["a", "held", "out"], torch.tensor([0, 1, 2, -1, -1]).numpy())
    assert weights.nnz == 0  # both occur in the held-out part only


def test_a_part_of_the_interactions_is_all_that_is_read(tmp_path):
    """The older half, in which "n" stands beside "a", is left out."""
    ids = ["n", "a", "n", "a", "b", "x", "b", "x", "b", "held", "out"]
    log = pl.DataFrame({"user_id": [1] * 11, "item_id": ids, "timestamp": range(11)})
    part = FractionOfData(prepare(log, tmp_path / "data"), "interactions", 0.5)
    assert part.train_items(0, int(part.train_lengths[0])).size < 6
    weights = nearest_weights(part, ["a", "n", "b", "x"], np.array([0, 1, 2, -1, 4, -1]))
    assert weights[3].nnz == 0
    assert weights[5].nnz == 1


def test_at_most_ten_neighbours_count(tmp_path):
    rows = [(f"u{n}", item, time) for n in range(12) for time, item in enumerate(["new", f"k{n:02}"] * (1 + (n < 3)))]
    data = prepare(
        pl.DataFrame([*rows, *(("v", "z", time) for time in range(3))], schema=[USER, ITEM, TIMESTAMP], orient="row"),
        tmp_path / "data",
    )
    items = [str(item) for item in item_list(data.tokenizer)]
    source = torch.tensor([0, 1, *(-1 if item in ("new", "z") else 2 for item in items)]).numpy()
    weights = nearest_weights(data, items, source)
    row = weights[2 + items.index("new")]
    assert row.nnz == 10
    assert row.sum() == pytest.approx(1.0)


def test_what_the_copy_has_otherwise():
    model, tokenizer = make(embedding_dropout=0.1)
    grown, _, _ = with_vocabulary(model, tokenizer, OLD, config_changes={"embedding_dropout": 0.4})
    assert grown.model.embedding_dropout.p == 0.4
    assert model.model.embedding_dropout.p == 0.1
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), grown.parameters(), strict=True))


def test_precision_and_types_of_ids_survive():
    model, tokenizer = make(items=[30, 10])
    grown, vocabulary, change = with_vocabulary(model.to(torch.bfloat16), tokenizer, [10, 20])
    assert grown.dtype == torch.bfloat16
    assert item_list(vocabulary) == [10, 20]
    # A log read from CSV has ids as text: they are the same items.
    _, vocabulary, change = with_vocabulary(model, tokenizer, ["10", 20])
    assert (change.known, item_list(vocabulary)) == (1, ["10", "20"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "zero"}, "init is 'zero'; choose from mean, random, nearest"),
        ({"init": "nearest"}, "needs data"),
        ({"item_ids": ["a", "a"]}, "'a' is given twice"),
        ({"tokenizer": build_tokenizer(["a"])}, "the vocabulary has 3 tokens, the model 6"),
    ],
)
def test_wrong_requests_are_refused(arguments, message):
    model, tokenizer = make()
    with pytest.raises(ValueError, match=message):
        with_vocabulary(**{"model": model, "tokenizer": tokenizer, "item_ids": ["a", "n"], **arguments})


def test_a_vocabulary_of_something_else_is_refused():
    model, tokenizer = make()
    tokenizer.pad_token = "d"
    with pytest.raises(ValueError, match="padding is token 5"):
        with_vocabulary(model, tokenizer, ["a"])


def test_training_counts_go_on_with_their_items_and_the_model_knows_its_new_ones():
    model, _ = make()
    tokenizer = build_tokenizer(OLD, np.array([5, 900, 7, 6]))
    grown, vocabulary, _ = add_items(model, tokenizer, ["new"])
    assert item_counts(vocabulary).tolist() == [5, 900, 7, 6, 0]
    assert grown.config.items_fingerprint == items_fingerprint([*OLD, "new"])
    assert Recommender(grown, vocabulary).recommend([], k=1, fallback="popularity")[0].item == "b"
    _, vocabulary, _ = with_vocabulary(grown, vocabulary, ["c", "other", "b"])
    assert item_counts(vocabulary).tolist() == [7, 0, 900]
    assert item_counts(add_items(model, build_tokenizer(OLD), ["new"])[1]) is None


def test_a_vocabulary_of_other_items_than_the_models_is_refused():
    model, tokenizer = make()
    model.config.items_fingerprint = items_fingerprint(OLD)
    assert add_items(model, tokenizer, ["new"])
    with pytest.raises(ValueError, match="the model's items are not those of the vocabulary"):
        add_items(model, build_tokenizer(OLD[::-1]), ["new"])


def test_of_equally_near_items_the_more_popular_ones_count():
    near = scipy.sparse.csr_matrix(np.ones((1, 14)))
    counts = np.array([0, 0, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9])
    assert _keep_best(near, counts).indices.tolist() == list(range(4, 14))
