import numpy as np
import polars as pl
import pytest
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import build_tokenizer, item_list
from sr_transformers.evaluation.baselines import baselines
from sr_transformers.evaluation.evaluator import evaluate, known_past, table
from sr_transformers.evaluation.model_scorer import ModelScorer, check_vocabulary
from sr_transformers.evaluation.translation import TranslatedScorer, open_scorer
from sr_transformers.finetuning.vocabulary_transfer import with_vocabulary
from sr_transformers.lsrm.identity_lsrm import items_fingerprint


@pytest.fixture(scope="module")
def model(markov_prepared):
    """Untrained, of the log's own items."""
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=markov_prepared.vocab_size,
        hidden_size=16,
        max_position_embeddings=8,
        initializer_range=0.5,
        items_fingerprint=markov_prepared.items_fingerprint,
    )
    return LSRMForCausalLM(config).eval()


def save(model, data, items, folder):
    """The model with other items, or in another order, as a checkpoint."""
    other, tokenizer, _ = with_vocabulary(model, data.tokenizer, items)
    other.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return other


def test_a_model_of_the_logs_items_is_taken_as_it_is(model, markov_prepared, tmp_path):
    save(model, markov_prepared, item_list(markov_prepared.tokenizer), tmp_path)
    assert type(open_scorer(tmp_path, markov_prepared)) is ModelScorer


def test_the_same_items_in_another_order_give_the_same_numbers(model, markov_prepared, tmp_path):
    """As when a log gets one more user: as many items, and other tokens."""
    data = markov_prepared
    save(model, data, item_list(data.tokenizer)[::-1], tmp_path)
    scorer = open_scorer(tmp_path, data)
    assert type(scorer) is TranslatedScorer
    found, expected = evaluate(scorer, data, ks=(1, 10)), evaluate(ModelScorer(model), data, ks=(1, 10))
    assert found["metrics"] == pytest.approx(expected["metrics"], abs=1e-6)
    assert found["num_targets_outside_vocabulary"] == expected["num_targets_outside_vocabulary"]
    assert found["translated"] == {"items": 30, "items_known": 30}
    with pytest.raises(ValueError, match="was made of other items than those of"):
        evaluate(scorer.scorer, data)  # its tokens read as the log's


def test_items_that_one_side_lacks_have_no_place_and_probabilities_stay_the_models(model, markov_prepared, tmp_path):
    data = markov_prepared
    items = item_list(data.tokenizer)
    other = save(model, data, [1000, *items[5:], 1001], tmp_path)  # five items less, two more
    scorer = open_scorer(tmp_path, data)
    assert scorer.translated == {"items": 30, "items_known": 25}
    histories = [known_past(scorer, data, user, 6).items for user in range(40)]
    scores = scorer.score(histories)
    assert torch.isinf(scores[:, [2, 3, 4, 5, 6]]).all()
    own = [np.array([token - 7 + 3 for token in history if token >= 7]) for history in histories]
    expected = ModelScorer(other).score(own).log_softmax(1)[:, 3:28]
    torch.testing.assert_close(scores.log_softmax(1)[:, 7:], expected, atol=1e-5, rtol=0)
    report = evaluate(scorer, data, ks=(1, 100), filter_seen=False)
    targets = [data.items(user, place + 1, place)[0] for user, place in data.targets("test").tolist()]
    unknown = sum(token < 7 for token in targets)
    assert report["num_targets_outside_vocabulary"] == unknown > 10
    assert report["metrics"]["hr@100"] == pytest.approx(1 - unknown / len(targets))
    assert np.isfinite(report["metrics"]["loss"])
    text = table([report, *(evaluate(one, data, ks=(1, 100), filter_seen=False) for one in baselines(data))], ["mrr"])
    assert text.splitlines()[0].split("; ")[0].endswith("300 targets (0 outside the vocabulary, counted as missed)")
    assert f"it knows 25 of the 30 items; {unknown} of 300 targets are outside its vocabulary or the log's" in text


def test_a_model_with_far_more_items_is_asked_part_by_part(model, markov_prepared, tmp_path, monkeypatch):
    data = markov_prepared
    save(model, data, [*range(1000, 1200), *item_list(data.tokenizer)], tmp_path)
    scorer = open_scorer(tmp_path, data)
    histories = [known_past(scorer, data, user, 5).items for user in range(20)]
    whole = scorer.score(histories)
    monkeypatch.setattr("sr_transformers.evaluation.ranking._SCORES", 232 * 3)
    torch.testing.assert_close(scorer.score(histories), whole, atol=1e-5, rtol=0)


def test_a_model_of_none_of_the_items_is_refused(model, markov_prepared, tmp_path):
    save(model, markov_prepared, [1000 + n for n in range(30)], tmp_path)  # as many, and all others
    with pytest.raises(ValueError, match="knows none of the 30 items of"):
        open_scorer(tmp_path, markov_prepared)


def test_other_items_without_a_vocabulary_beside_the_model_are_refused(model, markov_prepared, tmp_path):
    save(model, markov_prepared, item_list(markov_prepared.tokenizer)[::-1], tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="no vocabulary beside it says which items it has"):
        open_scorer(tmp_path, markov_prepared)
    markov_prepared.tokenizer.save_pretrained(tmp_path)  # of the log, not of the model
    with pytest.raises(ValueError, match="the model's items are not those of the vocabulary beside"):
        open_scorer(tmp_path, markov_prepared)


def test_a_model_built_by_hand_is_judged_by_the_vocabulary_beside_it(model, markov_prepared, tmp_path):
    data = markov_prepared
    config = LSRMConfig(vocab_size=data.vocab_size, hidden_size=16)
    LSRMForCausalLM(config).save_pretrained(tmp_path)
    assert type(open_scorer(tmp_path, data)) is ModelScorer  # nothing says which items these are
    build_tokenizer(item_list(data.tokenizer)[::-1]).save_pretrained(tmp_path)
    assert type(open_scorer(tmp_path, data)) is TranslatedScorer
    build_tokenizer([1, 2]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the vocabulary has 4 tokens, the model 32"):
        open_scorer(tmp_path, data)


def test_tasks_refuse_what_evaluation_translates(markov_prepared):
    config = LSRMConfig(vocab_size=markov_prepared.vocab_size)
    check_vocabulary("x", config, markov_prepared)
    config.items_fingerprint = items_fingerprint(item_list(markov_prepared.tokenizer)[::-1])
    with pytest.raises(ValueError, match=r"x: the model's items are not those of .*, or stand in another order"):
        check_vocabulary("x", config, markov_prepared)


def test_one_more_user_changes_tokens_and_not_what_a_model_is_worth(tmp_path):
    """Two logs of the same ten items in another order of popularity: read by raw id one scorer is worth the same."""
    rows = [(f"u{user}", f"i{(user + n) % 10}", n) for user in range(30) for n in range(5 + user % 3)]
    more = [("z", f"i{9 - n % 3}", n) for n in range(40)]
    schema = ["user_id", "item_id", "timestamp"]
    one = prepare(pl.DataFrame(rows, schema=schema, orient="row"), tmp_path / "one")
    two = prepare(pl.DataFrame([*rows, *more], schema=schema, orient="row"), tmp_path / "two")
    assert one.vocab_size == two.vocab_size
    assert one.item_ids.to_pylist() != two.item_ids.to_pylist()
    torch.manual_seed(0)
    trained = LSRMForCausalLM(LSRMConfig(vocab_size=12, hidden_size=16, items_fingerprint=one.items_fingerprint))
    trained.save_pretrained(tmp_path / "model")
    one.tokenizer.save_pretrained(tmp_path / "model")
    on_one = open_scorer(tmp_path / "model", one).score([one.items(3, 4)])[0, 2:]
    on_two = open_scorer(tmp_path / "model", two).score([two.items(3, 4)])[0, 2:]
    by_id = [
        dict(zip(data.item_ids.to_pylist(), found.tolist(), strict=True))
        for data, found in ((one, on_one), (two, on_two))
    ]
    assert by_id[0] == pytest.approx(by_id[1], abs=1e-5)


def test_the_moment_of_the_request_comes_along(tmp_path):
    """A model that is told when it is asked, on a log of which it lacks an item."""
    rows = [(f"u{user}", f"i{(user + n) % 10}", 10 * n) for user in range(30) for n in range(6)]
    schema = ["user_id", "item_id", "timestamp"]
    one = prepare(pl.DataFrame(rows, schema=schema, orient="row"), tmp_path / "one")
    two = prepare(
        pl.DataFrame([*rows, *(("z", "more", n) for n in range(9))], schema=schema, orient="row"), tmp_path / "two"
    )
    config = LSRMConfig(vocab_size=12, hidden_size=16, items_fingerprint=one.items_fingerprint, history=["clock"],
                        query_time=True, time_unit=5.0)  # fmt: skip
    torch.manual_seed(0)
    LSRMForCausalLM(config).save_pretrained(tmp_path / "model")
    one.tokenizer.save_pretrained(tmp_path / "model")
    found = []
    for data in (one, two):
        history = list(data.histories["user_id"]).index("u3")
        moments = np.array([0, 10, 20, 30, 77])
        scores = open_scorer(tmp_path / "model", data).score([data.items(history, 4)], times=[moments])[0, 2:]
        found.append(dict(zip(data.item_ids.to_pylist(), scores.tolist(), strict=True)))
    assert found[1].pop("more") == -float("inf")
    assert found[0] == pytest.approx(found[1], abs=1e-5)
