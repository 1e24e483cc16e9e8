"""A model whose attention reads time: through training, ranking, recommending, sessions, the pipeline and generate."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from sr_transformers import Recipe, Recommender, Session, prepare, train
from sr_transformers.evaluation.evaluator import evaluate, known_past
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.training.binding import time_unit

DAY = 86_400


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """200 users: an item begins a visit, a second one follows at once, and after a week comes the third, which is the
    first one's partner if only a minute lay between the two, else the second one's."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(200):
        now = int(rng.integers(0, 100)) * DAY
        for _ in range(6):
            first, second = rng.integers(0, 8, 2).tolist()
            gap = int(rng.choice([60, 3 * DAY]))
            third = first if gap == 60 else second
            moments = (now, now + gap, now + gap + 7 * DAY)
            for item, moment in zip((f"a{first}", f"b{second}", f"c{third}"), moments, strict=True):
                lines.append(f"u{user},{item},{moment}")
            now = moments[-1] + 30 * DAY
    folder = tmp_path_factory.mktemp("log")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    return prepare(folder / "log.csv", folder / "data", min_interactions=1)


def recipe(**more):
    model = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 8}
    dropout = {"embedding_dropout": 0.0, "residual_dropout": 0.0}
    training = {"num_train_epochs": 12, "learning_rate": 1e-2, "switch_optimizer": False, "precision": "fp32",
                "per_device_train_batch_size": 8, "filter_seen": False, "row_width": 16}  # fmt: skip
    return Recipe("small", {**model, **dropout, **more}, training)


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(recipe(attention_time=True), log, folder), folder


def test_it_learns_what_the_model_without_times_cannot(log, run, tmp_path):
    """Every target of the test is a third item: with the gap it is certain, without one of two."""
    without = train(recipe(), log, tmp_path / "run")
    ours, theirs = (one.reports[0]["metrics"] for one in (run[0], without))
    assert ours["loss"] < theirs["loss"] - 0.2
    assert ours["hr@1"] > theirs["hr@1"] + 0.2


def test_the_folder_holds_all_of_it(log, run):
    record, folder = run
    model = Checkpoint(folder).model()
    assert model.config.attention_time
    assert model.config.time_unit == time_unit(log)
    report = evaluate(ModelScorer(model), log)
    assert report["metrics"]["loss"] == pytest.approx(record.reports[0]["metrics"]["loss"], rel=1e-4)


def test_recommender_session_and_evaluation_answer_alike(log, run):
    """One by one, side by side, with the cache up to the window and beyond it."""
    recommender = Recommender.from_pretrained(run[1])
    scorer = recommender.scorer
    users = [known_past(scorer, log, user, position) for user, position in log.targets("test")[:9].tolist()]
    users += [one.last(length) for length, one in enumerate(users[:6], 1)]
    together = scorer.score([past.items for past in users], times=[past.times for past in users])
    for row, past in enumerate(users):
        alone = scorer.score([past.items], times=[past.times])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)
        raw = log.tokenizer.convert_ids_to_tokens(past.items.tolist())
        session = Session(recommender, raw[:1], past.times[:1].tolist())
        for item, moment in zip(raw[1:], past.times[1:].tolist(), strict=True):
            session.recommend()
            session.add(item, times=[moment])
        found = session.recommend(k=24, exclude_seen=False)
        expected = recommender.recommend(raw, k=24, exclude_seen=False, times=past.times.tolist())
        assert {one.item for one in found} == {one.item for one in expected}
        by_item = {one.item: one.probability for one in expected}
        for one in found:
            assert one.probability == pytest.approx(by_item[one.item], rel=1e-3, abs=1e-7)


def test_pipeline_and_generate_take_moments(log, run):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(run[1]), AutoTokenizer.from_pretrained(run[1])
    recommender = Recommender.from_pretrained(run[1])
    inputs, users = [], log.targets("test")[:5].tolist()
    for user, position in users:
        items = tokenizer.convert_ids_to_tokens(log.items(user, position).tolist())
        inputs.append({"history": items, "times": log.timestamps(user, position).tolist()})
    pipe = pipeline("next-item", model=model, tokenizer=tokenizer, batch_size=3, top_k=5, exclude_seen=False)
    for one, asked in zip(pipe(inputs), inputs, strict=True):
        ours = recommender.recommend(asked["history"], k=5, exclude_seen=False, times=asked["times"])
        assert [item["item_id"] for item in one] == [item.item for item in ours]
        assert [item["score"] for item in one] == pytest.approx([item.probability for item in ours], rel=1e-4)
    asked = inputs[0]
    ids, times = tokenizer.convert_tokens_to_ids(asked["history"][-8:]), asked["times"][-8:]
    new = model.generate(torch.tensor([ids]), times=torch.tensor([times]), max_new_tokens=1)[0, -1:]
    best = recommender.recommend(asked["history"], k=1, exclude_seen=False, times=asked["times"])[0]
    assert tokenizer.convert_ids_to_tokens(new.tolist()) == [best.item]


def test_missing_moments_are_refused(run):
    recommender = Recommender.from_pretrained(run[1])
    with pytest.raises(ValueError, match="pass times, for every history as many moments as items"):
        recommender.recommend(["a1", "b2"])
    with pytest.raises(ValueError, match=r"reads when interactions happened \(history, attention_time\)"):
        recommender.scorer.score([np.array([2, 3])])


def test_a_log_of_one_moment_is_refused_by_name(tmp_path):
    lines = ["user_id,item_id,timestamp", *(f"u{u},i{(u * k) % 7},0" for u in range(30) for k in range(1, 6))]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    data = prepare(tmp_path / "log.csv", tmp_path / "data")
    with pytest.raises(ValueError, match="and attention_time false"):
        train(recipe(attention_time=True), data, tmp_path / "run")
