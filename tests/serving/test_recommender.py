import copy
import math
import shutil
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import pipeline

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender, Session
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.lsrm.identity_lsrm import items_fingerprint

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
ITEMS = ["tea", "green tea", "Käse", "a\tb", "42", "bread"]
COUNTS = np.array([10, 30, 10, 1, 0, 900])  # as after an append: the best seller has the last token


@pytest.fixture(scope="module")
def recommender():
    torch.manual_seed(0)
    config = LSRMConfig(vocab_size=len(ITEMS) + 2, hidden_size=8, max_position_embeddings=4, initializer_range=0.5)
    return Recommender(LSRMForCausalLM(config), build_tokenizer(ITEMS, COUNTS))


@pytest.fixture(scope="module")
def timed(recommender):
    torch.manual_seed(0)
    config = LSRMConfig(vocab_size=len(ITEMS) + 2, hidden_size=8, num_hidden_layers=1, max_position_embeddings=4,
                        history=["clock"], initializer_range=0.5)  # fmt: skip
    return Recommender(LSRMForCausalLM(config), recommender.tokenizer)


def names(found):
    return [one.item for one in found]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert names(one) == names(other)
        assert [a.probability for a in one] == pytest.approx([b.probability for b in other], abs=1e-6)


def test_probabilities_are_the_models_own(recommender):
    found = recommender.recommend(["tea", "bread"], k=99, exclude_seen=False)
    assert sorted(names(found)) == sorted(ITEMS)
    logits = recommender.model.eval()(torch.tensor([[2, 7]])).logits[0, -1, 2:]
    expected = dict(zip(ITEMS, logits.softmax(-1).tolist(), strict=True))
    for one in found:
        assert one.probability == pytest.approx(expected[one.item], abs=1e-6)
    assert [one.probability for one in found] == sorted((one.probability for one in found), reverse=True)


def test_seen_items_stay_out_unless_wanted(recommender):
    assert not set(names(recommender.recommend(["tea", "Käse"], k=6))) & {"tea", "Käse"}
    assert len(recommender.recommend(["tea", "Käse"], k=6)) == 4
    assert len(recommender.recommend(["tea", "Käse"], k=6, exclude_seen=False)) == 6


def test_seen_items_beyond_the_window_stay_out_too(recommender):
    history = ["green tea", "tea", "tea", "tea", "tea"]
    assert "green tea" not in names(recommender.recommend(history, k=6))


def test_candidates_limit_the_choice(recommender):
    found = recommender.recommend(["tea"], candidates=["a\tb", "bread", "never heard of"])
    assert set(names(found)) == {"a\tb", "bread"}


def test_a_batch_equals_one_by_one(recommender):
    histories = [["tea"], ["bread", "42", "Käse"], ["a\tb"] * 9]
    batch = recommender.recommend_batch(histories, k=3)
    for history, found in zip(histories, batch, strict=True):
        alone = recommender.recommend(history, k=3)
        assert names(found) == names(alone)
        assert [one.probability for one in found] == pytest.approx([one.probability for one in alone], abs=1e-6)


def test_many_users_are_encoded_part_by_part(recommender, monkeypatch):
    histories = [["tea", "bread", "42"][: 1 + index % 3] for index in range(7)]
    whole = recommender.recommend_batch(histories, k=6)
    monkeypatch.setattr("sr_transformers.evaluation.model_scorer._USERS", 2)
    parts = recommender.recommend_batch(histories, k=6)
    same(whole, parts)
    assert recommender.recommend_batch([]) == []


def test_bf16_changes_probabilities_by_its_rounding_alone(recommender):
    rounded = Recommender(recommender.model, recommender.tokenizer, bf16=True)
    exact = {one.item: one.probability for one in recommender.recommend(["tea", "bread"], k=6)}
    found = {one.item: one.probability for one in rounded.recommend(["tea", "bread"], k=6)}
    assert found == pytest.approx(exact, rel=0.05)
    assert found != exact


@needs_compiler
def test_compiled_layers_give_the_same_answers(recommender):
    compiled = Recommender(recommender.model, recommender.tokenizer, compile=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    one, several, padded = [["tea", "Käse"]], [["tea", "42"], ["bread", "tea"]], [["tea", "42", "bread"], ["tea"]]
    # Then the first again: what is compiled for the others must not answer for it.
    for histories in (one, several, padded, one, several):
        same(compiled.recommend_batch(histories), recommender.recommend_batch(histories))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 3


@needs_compiler
def test_what_is_compiled_for_one_model_never_answers_for_another(recommender):
    """Few of the compiler's own conditions are looked at in every call; another depth and new weights are seen."""
    histories = [["tea", "Käse"]]
    compiled = Recommender(recommender.model, recommender.tokenizer, compile=True)
    compiled.recommend_batch(histories)
    config = copy.deepcopy(recommender.model.config)
    config.num_hidden_layers += 1
    deeper = LSRMForCausalLM(config).eval()
    expected = Recommender(deeper, recommender.tokenizer).recommend_batch(histories)
    of_deeper = Recommender(deeper, recommender.tokenizer, compile=True)
    same(of_deeper.recommend_batch(histories), expected)
    deeper.load_state_dict(LSRMForCausalLM(config).state_dict())
    expected = Recommender(deeper, recommender.tokenizer).recommend_batch(histories)
    same(of_deeper.recommend_batch(histories), expected)
    same(compiled.recommend_batch(histories), recommender.recommend_batch(histories))
    deeper.to(torch.bfloat16)
    (expected,) = Recommender(deeper, recommender.tokenizer).recommend_batch(histories)
    (found,) = of_deeper.recommend_batch(histories)
    by_item = [{one.item: one.probability for one in answer} for answer in (found, expected)]
    assert by_item[0] == pytest.approx(by_item[1], abs=0.02)


def test_unknown_items_are_skipped(recommender):
    with_unknown = recommender.recommend(["tea", "never heard of", "[UNK]", "[PAD]", "bread"])
    assert names(with_unknown) == names(recommender.recommend(["tea", "bread"]))


def test_a_history_without_known_items_is_an_error_or_popularity(recommender):
    with pytest.raises(ValueError, match=r"history 1 has no item that the model knows \(\['x'\]\).*popularity"):
        recommender.recommend_batch([["tea"], ["x"]])
    found = recommender.recommend([], k=3, fallback="popularity")
    assert names(found) == ["bread", "green tea", "tea"]  # by falling training count, not by token
    assert all(math.isnan(one.probability) for one in found)
    mixed = recommender.recommend_batch([["x"], ["tea"]], k=2, fallback="popularity")
    assert names(mixed[1]) == names(recommender.recommend(["tea"], k=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": True}, "k is True; it must be a whole number"),
        ({"k": 1.5}, "k is 1.5; it must be a whole number"),
        ({"exclude_seen": "no"}, "exclude_seen is 'no'; it must be True, False or None"),
        ({"exclude_seen": 0}, "exclude_seen is 0"),
        ({"fallback": "guess"}, "fallback 'guess'"),
        ({"candidates": ["nothing known"]}, "none of the candidates"),
    ],
)
def test_wrong_requests_are_refused(recommender, arguments, message):
    with pytest.raises(ValueError, match=message):
        recommender.recommend(["tea"], **arguments)
    if not {"fallback"} & set(arguments):
        with pytest.raises(ValueError, match=message):
            Session(recommender, ["tea"]).recommend(**arguments)


def test_lists_of_which_none_limits_anything(recommender):
    histories = [["tea"], ["bread"]]
    for nothing in ([None, None], [None, []]):
        assert recommender.recommend_batch(histories, 3, exclude=nothing) == recommender.recommend_batch(histories, 3)
    found = recommender.recommend_batch(histories, 3, candidates=[None, None])
    assert found == recommender.recommend_batch(histories, 3)


@pytest.mark.parametrize("history", [{"tea", "bread"}, frozenset({"tea"}), {"tea": 1}, {"tea": 1}.keys()])
def test_what_has_no_order_is_no_history(recommender, history):
    for ask in (
        recommender.recommend,
        lambda ids: recommender.recommend_frame(["u"], [ids]),
        lambda ids: recommender.user_embeddings([ids]),
        lambda ids: Session(recommender, ids),
    ):
        with pytest.raises(TypeError, match="a history is a sequence of item ids, oldest first; a"):
            ask(history)
    assert names(recommender.recommend(["tea"], candidates={"bread", "42"}, exclude={"42"})) == ["bread"]
    assert names(Session(recommender, ["tea"]).recommend(candidates={"bread", "42"}, exclude={"42"})) == ["bread"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_of_a_diverged_model_are_no_empty_list(recommender, bad):
    model = copy.deepcopy(recommender.model)
    torch.nn.init.constant_(model.model.norm.weight, bad)
    diverged = Recommender(model, recommender.tokenizer)
    for ask in (
        lambda: diverged.recommend_batch([["tea"], ["bread", "42"]]),
        lambda: diverged.recommend_frame(["u"], [["tea"]]),
        Session(diverged, ["tea"]).recommend,
    ):
        with pytest.raises(ValueError, match="a score is NaN or infinite: the model has diverged"):
            ask()


DAYS = np.array(["2026-01-01", "2026-01-02"], "datetime64[D]")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (DAYS, "the moment at place 0 is .*2026-01-01.*datetime64"),
        ([1, datetime(2026, 1, 2)], "the moment at place 1 is datetime"),
        ([1.0, 2.5], r"the moment at place 0 is 1.0 \(float\); moments are integers"),
        ([1, math.nan], r"the moment at place 1 is nan"),
        ([1, None], r"the moment at place 1 is None"),
        ([False, True], r"the moment at place 0 is False"),
        (["1", "2"], r"the moment at place 0 is '1'"),
        ([1, 1 << 63], r"the moment at place 1 is 9223372036854775808"),
        (7, "are 7; give a list of integers"),
        ("12", "are '12'; give a list of integers"),
        ({1, 2}, r"are \{1, 2\}; give a list of integers"),
        ([1], "must be one moment for each of its 2 items"),
        ([2, 1], "none earlier than the one before"),
    ],
)
def test_moments_are_integers_in_order(timed, times, message):
    """So in `Recommender`, in a `Session` and in the pipeline."""
    ids = ["tea", "bread"]
    asked = pipeline("next-item", model=timed.model, tokenizer=timed.tokenizer, device="cpu")
    for ask in (
        lambda moments: timed.recommend(ids, times=moments),
        lambda moments: Session(timed, ids, moments).recommend(),
        lambda moments: asked({"history": ids, "times": moments}),
    ):
        for fine in ([1, 2], (1, 1), np.array([1, 2]), pd.Series([1, 2])):
            assert len(ask(fine)) == 4
        with pytest.raises(ValueError, match=message):
            ask(times)


def test_moments_are_asked_for_by_a_model_that_reads_them(timed):
    for times in (None, 5, [[1], [2]]):
        with pytest.raises(ValueError, match="this model reads when interactions happened: pass times"):
            timed.recommend_batch([["tea"]], times=times)


@pytest.mark.parametrize("wrong", [None, math.nan, np.nan, pd.NA, pd.NaT, True, np.True_, 1.0, b"tea", ""])
def test_what_a_log_may_not_hold_is_no_id_here_either(wrong):
    """Whatever it would be called as text: None is not the item "None", True not the item 1.

    So in `Recommender`, as a candidate, in a `Session` and in the pipeline.
    """
    ids = ["None", "nan", "True", "1", "1.0", "<NA>", "NaT", "b'tea'", "tea"]
    for items in (ids, [1, 2, 3]):
        tokenizer = build_tokenizer(items)
        model = LSRMForCausalLM(
            LSRMConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, max_position_embeddings=8)
        )
        served = Recommender(model, tokenizer)
        answers = [
            lambda history, served=served: served.recommend(history),
            lambda history, served=served, known=items[-1]: served.recommend([known], candidates=history),
            lambda history, served=served: Session(served, history).recommend(),
            pipeline("next-item", model=model, tokenizer=tokenizer, device="cpu"),
        ]
        for answer in answers:
            answer([items[-1]])
            answer([np.str_(items[-1]) if items is ids else np.int64(items[-1])])
            for history in ([wrong], [items[-1], wrong, items[0]]):
                with pytest.raises(ValueError, match=f"the item at place {len(history) // 2} is"):
                    answer(history)


@pytest.mark.parametrize("history", ["tea", 42, b"tea"])
def test_a_single_id_is_no_history(recommender, history):
    with pytest.raises(TypeError, match="item ids are given as a sequence"):
        recommender.recommend(history)


def test_without_training_counts_nothing_is_taken_for_popular(recommender):
    silent = Recommender(recommender.model, build_tokenizer(ITEMS))
    assert silent.popular is None
    for fallback in ("error", "popularity"):
        with pytest.raises(ValueError, match=r"history 0 has no item .* the vocabulary keeps no training counts"):
            silent.recommend(["x"], fallback=fallback)


def test_training_counts_are_saved_with_the_vocabulary(recommender, tmp_path):
    recommender.model.save_pretrained(tmp_path)
    recommender.tokenizer.save_pretrained(tmp_path)
    again = Recommender.from_pretrained(tmp_path)
    assert names(again.recommend([], k=6, fallback="popularity")) == [
        "bread", "green tea", "tea", "Käse", "a\tb", "42"
    ]  # fmt: skip


@pytest.mark.parametrize(("filter_seen", "named"), [(None, False), (True, False), (False, True)])
def test_seen_items_are_recommended_if_the_model_was_evaluated_so(recommender, filter_seen, named):
    model = copy.deepcopy(recommender.model)
    model.config.filter_seen = filter_seen
    served = Recommender(model, recommender.tokenizer)
    session = Session(served, ["tea", "bread"])
    for found in (served.recommend(["tea", "bread"], k=6), session.recommend(6)):
        assert ("tea" in names(found)) == ("bread" in names(found)) == named
        assert len(found) == (6 if named else 4)
    assert len(served.recommend(["tea", "bread"], k=6, exclude_seen=True)) == 4
    assert len(session.recommend(6, exclude_seen=True)) == 4
    assert len(served.recommend(["tea", "bread"], k=6, exclude_seen=False)) == 6
    assert len(session.recommend(6, exclude_seen=False)) == 6


def test_a_vocabulary_of_other_items_is_refused_though_it_is_as_long(recommender):
    model = copy.deepcopy(recommender.model)
    model.config.items_fingerprint = items_fingerprint(ITEMS)
    assert Recommender(model, build_tokenizer(ITEMS)).recommend(["tea"])
    for other in (ITEMS[::-1], ["tea", "green tea", "Käse", "a\tb", "42", "butter"]):
        with pytest.raises(ValueError, match="the model's items are not those of the vocabulary, or stand in another"):
            Recommender(model, build_tokenizer(other))


def test_integer_ids_come_back_as_integers():
    config = LSRMConfig(vocab_size=5, hidden_size=8, max_position_embeddings=4)
    recommender = Recommender(LSRMForCausalLM(config), build_tokenizer([30, 10, 20]))
    assert set(names(recommender.recommend([30]))) == {10, 20}
    for history in ([10, 30], ["10", "30"], ["10", 30], np.array([10, 30]), [10, 99, 30]):
        assert recommender.encode(history).tolist() == [3, 2]


def test_a_foreign_vocabulary_is_refused(recommender):
    with pytest.raises(ValueError, match="the vocabulary has 3 tokens, the model 8"):
        Recommender(recommender.model, build_tokenizer(["one"]))


def test_it_loads_from_a_folder(recommender, tmp_path):
    recommender.model.save_pretrained(tmp_path)
    recommender.tokenizer.save_pretrained(tmp_path)
    again = Recommender.from_pretrained(tmp_path)
    assert names(again.recommend(["Käse"])) == names(recommender.recommend(["Käse"]))
