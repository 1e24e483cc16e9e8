import pytest
import torch
from transformers import pipeline

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.lsrm.configuration_lsrm import CUSTOM_PIPELINES
from sr_transformers.lsrm.identity_lsrm import items_fingerprint
from sr_transformers.lsrm.pipeline_lsrm import NEXT_ITEM, NextItemPipeline, best_items

ITEMS = ["tea", "green tea", "Käse", "a\tb", "42", "bread"]


def model_of(num_items):
    torch.manual_seed(0)
    return LSRMForCausalLM(
        LSRMConfig(vocab_size=num_items + 2, hidden_size=8, max_position_embeddings=4, initializer_range=0.5)
    )


@pytest.fixture(scope="module")
def model():
    return model_of(len(ITEMS))


@pytest.fixture(scope="module")
def pipe(model):
    return pipeline("next-item", model=model, tokenizer=build_tokenizer(ITEMS), device="cpu")


def items(found):
    return [one["item_id"] for one in found]


def test_best_items_by_hand():
    scores = torch.tensor([[-torch.inf, -torch.inf, 1.0, 3.0, 2.0], [-torch.inf, -torch.inf, 1.0, 1.0, 1.0]])
    e = torch.tensor([1.0, 3.0, 2.0]).exp()
    first, second = best_items(scores, [[3], []], 2, torch.tensor([True, True, True, True, False]))
    # Token 3 is excluded and 4 not allowed, and neither gives its probability away.
    assert [token for token, _ in first] == [2]
    assert first[0][1] == pytest.approx(float(e[0] / e.sum()))
    assert second == [(2, pytest.approx(1 / 3)), (3, pytest.approx(1 / 3))]


def test_the_task_is_known_and_the_class_ours(pipe):
    assert type(pipe) is NextItemPipeline
    assert list(CUSTOM_PIPELINES) == [NEXT_ITEM]
    assert NextItemPipeline._registered_impl[NEXT_ITEM]["impl"] is NextItemPipeline


def test_it_says_what_the_recommender_says(pipe, model):
    recommender = Recommender(model, pipe.tokenizer)
    for history in (["tea"], ["bread", "42", "Käse"], ["a\tb"] * 9, ["green tea", "tea", "tea", "tea", "tea"]):
        for exclude_seen in (True, False):
            found = pipe(history, top_k=4, exclude_seen=exclude_seen)
            expected = recommender.recommend(history, 4, exclude_seen)
            assert items(found) == [one.item for one in expected]
            assert [one["score"] for one in found] == pytest.approx([one.probability for one in expected], abs=1e-6)


def test_many_histories_equal_one_by_one(pipe):
    histories = [["tea"], ["bread", "42", "Käse"], ["a\tb"] * 9, ["Käse"]]
    alone = [pipe(history, top_k=3) for history in histories]
    for together in (
        pipe(histories, top_k=3),
        pipe(tuple(histories), top_k=3),
        pipe(histories, top_k=3, batch_size=1),
        pipe(histories, top_k=3, batch_size=3),
        list(pipe((history for history in histories), top_k=3)),
        pipe([{"history": history} for history in histories], top_k=3),
    ):
        assert [items(found) for found in together] == [items(found) for found in alone]
        for found, expected in zip(together, alone, strict=True):
            assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-6)


def test_excluded_and_candidate_items(pipe):
    assert not set(items(pipe(["tea"], exclude=["bread", "42", "never heard of"]))) & {"tea", "bread", "42"}
    assert set(items(pipe(["tea"], candidates=["bread", "tea", "never heard of"]))) == {"bread"}
    first, second = pipe([{"history": ["tea"], "exclude": ["bread"]}, ["tea"]])
    assert "bread" not in items(first)
    assert "bread" in items(second)


def test_defaults_can_be_set_once(model):
    pipe = pipeline("next-item", model=model, tokenizer=build_tokenizer(ITEMS), top_k=2, exclude_seen=False)
    assert len(pipe(["tea"])) == 2
    assert len(pipe(["tea"], top_k=9)) == 6
    assert len(pipeline("next-item", model=model, tokenizer=build_tokenizer(ITEMS))(["tea"])) == 5


def test_integer_ids_come_back_as_integers():
    pipe = pipeline("next-item", model=model_of(3), tokenizer=build_tokenizer([30, 10, 20]))
    assert sorted(items(pipe([30, "10"], exclude_seen=False))) == [10, 20, 30]


def test_special_tokens_are_neither_read_nor_named(pipe):
    assert items(pipe(["tea", "[PAD]", "[UNK]", "never heard of"])) == items(pipe(["tea"]))
    assert len(pipe(["tea"], top_k=99, exclude_seen=False)) == len(ITEMS)


@pytest.mark.parametrize("history", [[], ["never heard of"], [["tea"], ["never heard of"]]])
def test_a_history_without_known_items_is_refused(pipe, history):
    with pytest.raises(ValueError, match="knows no item of the history"):
        pipe(history)


@pytest.mark.parametrize("history", ["tea", 42, [["tea"], "bread"], {"history": "tea"}])
def test_a_single_id_is_no_history(pipe, history):
    with pytest.raises(TypeError, match="a history is a list of item ids"):
        pipe(history)


def test_a_dict_without_a_history_is_refused(pipe):
    with pytest.raises(ValueError, match=r"a dict needs the key 'history' with the item ids.*; this one has \['x'\]"):
        pipe([{"x": ["i1"]}])


def test_a_dict_with_keys_that_mean_nothing_is_refused(pipe):
    with pytest.raises(ValueError, match=r"may have exclude, times, query_time; this one has \['history', 'exlude'\]"):
        pipe({"history": ["tea"], "exlude": ["bread"]})


@pytest.mark.parametrize("history", [{"tea", "bread"}, [["tea"], frozenset({"tea"})], {"history": {"tea": 1}}])
def test_what_has_no_order_is_no_history(pipe, history):
    with pytest.raises(TypeError, match=r"a history is a sequence of item ids, oldest first; a (set|frozenset|dict)"):
        pipe(history)
    assert items(pipe(["tea"], candidates={"bread"}, exclude={"42"})) == ["bread"]


def test_scores_of_a_diverged_model_are_no_empty_list(pipe):
    model = model_of(len(ITEMS))
    torch.nn.init.constant_(model.model.norm.weight, torch.nan)
    with pytest.raises(ValueError, match="a score is NaN or infinite: the model has diverged"):
        pipeline("next-item", model=model, tokenizer=pipe.tokenizer)(["tea"])


def test_bad_options_are_refused(pipe):
    with pytest.raises(ValueError, match="top_k is 0"):
        pipe(["tea"], top_k=0)
    for wrong in (True, 2.0, "2"):
        with pytest.raises(ValueError, match=f"top_k is {wrong!r}; it must be a whole number"):
            pipe(["tea"], top_k=wrong)
    with pytest.raises(ValueError, match="exclude_seen is 'no'; it must be True, False or None"):
        pipe(["tea"], exclude_seen="no")
    with pytest.raises(ValueError, match="none of the candidates"):
        pipe(["tea"], candidates=["never heard of"])
    with pytest.raises(TypeError, match="colour"):
        pipe(["tea"], colour="red")


@pytest.mark.parametrize(("filter_seen", "named"), [(None, 4), (True, 4), (False, 6)])
def test_seen_items_are_named_if_the_model_was_evaluated_so(filter_seen, named):
    model = model_of(len(ITEMS))
    model.config.filter_seen = filter_seen
    pipe = pipeline("next-item", model=model, tokenizer=build_tokenizer(ITEMS))
    assert len(pipe(["tea", "bread"])) == named
    assert len(pipe(["tea", "bread"], exclude_seen=True)) == 4
    assert len(pipe(["tea", "bread"], exclude_seen=False)) == 6


def test_a_vocabulary_of_other_items_is_refused_though_it_is_as_long():
    model = model_of(len(ITEMS))
    model.config.items_fingerprint = items_fingerprint(ITEMS)
    assert pipeline("next-item", model=model, tokenizer=build_tokenizer(ITEMS))(["tea"])
    with pytest.raises(ValueError, match="the model's items are not those of the vocabulary"):
        pipeline("next-item", model=model, tokenizer=build_tokenizer(ITEMS[::-1]))


def test_a_tokenizer_that_pads_on_the_right_is_refused(model):
    tokenizer = build_tokenizer(ITEMS)
    tokenizer.padding_side = "right"
    with pytest.raises(ValueError, match="pads on the right"):
        pipeline("next-item", model=model, tokenizer=tokenizer)
