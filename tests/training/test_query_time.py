"""A model that is told when it is asked: trained, evaluated and served, on a log where that says what comes next."""

import json
import time

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from sr_transformers import Recipe, Recommender, Session, prepare, train
from sr_transformers.cli import main
from sr_transformers.data.protocols import BASKET
from sr_transformers.evaluation.baselines import baselines
from sr_transformers.evaluation.baskets import evaluate_baskets
from sr_transformers.evaluation.evaluator import evaluate, known_past, table
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.evaluation.protocol import request_choice
from sr_transformers.evaluation.significance import check_run, compare
from sr_transformers.scaling.studies.teacher import sample_log
from sr_transformers.serving.recommendation_lists import recommend_all

DAY = 86_400
PARTS = ["recency", "items", "baskets", "clock", "mix"]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """120 users who begin each basket with one of three items and go on in it, if they do, with one of three others:
    whether the next item is of the first or of the second kind is known from its moment alone."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(120):
        now = 1_600_000_000
        for _ in range(rng.integers(5, 9)):
            now += int(rng.integers(1, 9)) * DAY
            lines.append(f"u{user},first{rng.integers(3)},{now}")
            lines += [f"u{user},later{item},{now}" for item in rng.permutation(3)[: rng.integers(0, 3)]]
    folder = tmp_path_factory.mktemp("log")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    return prepare(folder / "log.csv", folder / "data", time_unit="s")


def recipe(**more):
    model = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 6}
    training = {"num_train_epochs": 6, "learning_rate": 1e-2, "switch_optimizer": False, "warmup_steps": 5}
    return Recipe(
        "asked",
        {**model, "history": PARTS, **more},
        {**training, "per_device_train_batch_size": 8, "precision": "fp32"},
    )


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(recipe(query_time=True), log, folder), folder


@pytest.fixture(scope="module")
def plain(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    return train(recipe(), log, folder), folder


def test_who_is_told_knows_more(run, plain):
    told, untold = run[0].reports[0], plain[0].reports[0]
    assert told["metrics"]["loss"] < 1.25 < 1.5 < untold["metrics"]["loss"]  # of three items, and of six
    assert told["metrics"]["hr@1"] > untold["metrics"]["hr@1"] + 0.05


def test_it_is_a_protocol_of_its_own(log, run, plain):
    told, untold = ([one["protocol"] for one in record.reports] for record, _ in (run, plain))
    assert {one["request_time"] for one in told} == {"the target's own"}
    assert not any("request_time" in one for one in untold)
    assert {one["fingerprint"] for one in told}.isdisjoint({one["fingerprint"] for one in untold})
    assert "the target's own time is known" in table(run[0].reports)
    with pytest.raises(ValueError, match="request_time"):
        table([run[0].reports[0], plain[0].reports[0]])
    with pytest.raises(ValueError, match=r"tested by another protocol.*request_time"):
        check_run(run[1], log, False)
    check_run(run[1], log, False, query_time=True)
    scorers = [
        ModelScorer(AutoModelForCausalLM.from_pretrained(one[1]), name=n) for one, n in ((run, "a"), (plain, "b"))
    ]
    with pytest.raises(ValueError, match=r"^a is told when the target happens .*, and b is not: two protocols"):
        compare({"a": scorers[:1], "b": scorers[1:]}, log)
    assert (request_choice(scorers[:1]), request_choice(scorers[1:]), request_choice([])) == (True, False, False)


def test_counting_may_know_it_too(log, run):
    """The basket is over when the next one begins, so what lies in it may come again."""
    told, untold = baselines(log, query_time=True), baselines(log)
    assert [one.name for one in told] == [one.name for one in untold]
    assert told[-1].fitted["validation_loss"] < untold[-1].fitted["validation_loss"]
    assert evaluate(told[-1], log)["metrics"]["loss"] < evaluate(untold[-1], log)["metrics"]["loss"]
    losses = {one["model"]: one["metrics"].get("loss") for one in run[0].reports}
    assert losses["mix"] == evaluate(told[-1], log)["metrics"]["loss"]


def test_the_folder_and_the_next_basket(log, run, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(run[1])
    assert (model.config.query_time, model.config.times_in) == (True, "s")
    report = evaluate(ModelScorer(model), log)
    assert report["metrics"]["loss"] == pytest.approx(run[0].reports[0]["metrics"]["loss"], rel=1e-5)
    assert report["protocol"] == run[0].reports[0]["protocol"]
    whole = prepare(log.path.parent / "log.csv", tmp_path / "baskets", time_unit="s", split="last_basket")
    told, untold = (evaluate_baskets(baselines(whole, query_time=known)[-1], whole) for known in (True, False))
    assert (told["protocol"]["target"], told["protocol"]["request_time"]) == (BASKET, "the target's own")
    assert told["metrics"]["ndcg@5"] > untold["metrics"]["ndcg@5"]


def test_all_front_ends_answer_alike(log, run, tmp_path):
    recommender = Recommender.from_pretrained(run[1])
    scorer, tokenizer = recommender.scorer, AutoTokenizer.from_pretrained(run[1])
    rows = log.targets("test")[:12].tolist()
    pasts = [known_past(scorer, log, *row) for row in rows]
    expected = scorer.score([one.items for one in pasts], times=[one.times for one in pasts]).softmax(1)
    raw = [tokenizer.convert_ids_to_tokens(one.items.tolist()) for one in pasts]
    times, asked = [one.times[:-1].tolist() for one in pasts], [int(one.times[-1]) for one in pasts]
    found = recommender.recommend_batch(raw, 6, False, times=times, query_time=asked)
    pipe = pipeline("next-item", model=recommender.model, tokenizer=tokenizer, top_k=6, exclude_seen=False)
    inputs = [{"history": h, "times": t, "query_time": q} for h, t, q in zip(raw, times, asked, strict=True)]
    assert recommend_all(recommender, log, tmp_path / "lists.parquet", 6, before="test", exclude_seen=False) == 120
    for row, (history, moments, when) in enumerate(zip(raw, times, asked, strict=True)):
        wanted = {item: float(p) for item, p in zip(log.item_ids.to_pylist(), expected[row, 2:], strict=True)}
        session = Session(recommender, history[:2], moments[:2])
        for item, moment in zip(history[2:], moments[2:], strict=True):
            session.recommend(query_time=moment)
            session.add(item, times=[moment])
        session.recommend(query_time=when + DAY)
        alone = recommender.recommend(history, 6, False, times=moments, query_time=when)
        (piped,) = pipe([inputs[row]])
        for one in (found[row], session.recommend(6, False, query_time=when), alone):
            assert {each.item: each.probability for each in one} == pytest.approx(wanted, rel=1e-4, abs=1e-7)
        assert {each["item_id"]: each["score"] for each in piped} == pytest.approx(wanted, rel=1e-4, abs=1e-7)
    assert recommender.recommend_batch(raw[:2], times=times[:2], query_time=2_000_000_000)


def test_the_request_is_made_now_unless_told(run, capsys):
    recommender = Recommender.from_pretrained(run[1])
    history, times = ["first1", "later1"], [int(time.time()) - 9 * DAY] * 2
    now, then = (
        recommender.recommend(history, 6, False, times=times, query_time=when) for when in (int(time.time()), times[-1])
    )
    found = recommender.recommend(history, 6, False, times=times)
    assert [one.item for one in found] == [one.item for one in now]
    assert {one.item[:5] for one in now[:3]} == {"first"}
    assert {one.item for one in then[:2]} == {"later0", "later2"}
    command = ["recommend", "--model", str(run[1]), "--history", *history, "--seen", "keep", "-k", "6"]
    command += ["--times", *map(str, times)]
    for more, wanted in (([], now), (["--query-time", str(times[-1])], then)):
        assert main([*command, *more]) == 0
        assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [one.item for one in wanted]


def test_other_moments_of_a_request_are_refused(log, run, plain, tmp_path):
    recommender, untold = (Recommender.from_pretrained(one[1]) for one in (run, plain))
    asked = {"history": ["first1"], "times": [50]}
    for wrong, says in (
        (49, "^query_time is 49, before 50, the last moment of the history"),
        ("now", "query_time: the moment at place 0 is 'now'"),
        (True, "query_time: the moment at place 0 is True"),
        ([60, 70], "^query_time has 2 moments for 1 histories; give one for each"),
    ):
        with pytest.raises(ValueError, match=says):
            recommender.recommend(**asked, query_time=wrong)
    with pytest.raises(ValueError, match=r"^query_time: this model is not told"):
        untold.recommend(**asked, query_time=60)
    with pytest.raises(ValueError, match=r"is not told when it is asked"):
        Session(untold, ["first1"], [50]).recommend(query_time=60)
    with pytest.raises(ValueError, match="leave query_time out"):
        recommend_all(recommender, log, tmp_path / "lists.parquet", before="test", query_time=60)
    recommender.model.config.times_in = None
    with pytest.raises(ValueError, match="the unit of its log's times is not known: give query_time, in that unit"):
        recommender.recommend(**asked)
    with pytest.raises(ValueError, match="the teacher is told when it is asked"):
        sample_log(recommender.model, log, 100, tmp_path / "sampled")


def test_commands_ask_as_the_model_was_trained(log, run, plain, tmp_path, capsys):
    command = ["evaluate", "--model", str(run[1]), "--data", str(log.path)]
    assert main([*command, "--json", str(tmp_path / "found.json")]) == 0
    reports = json.loads((tmp_path / "found.json").read_text())
    assert {one["protocol"]["request_time"] for one in reports} == {"the target's own"}
    assert reports[0]["metrics"]["loss"] == pytest.approx(run[0].reports[0]["metrics"]["loss"], rel=1e-5)
    capsys.readouterr()
    assert main(["evaluate", "--model", str(run[1]), "--model", str(plain[1]), "--data", str(log.path)]) == 2
    assert "two protocols, whose numbers do not belong into one table" in capsys.readouterr().err
    assert main(["tasks", "--model", f"a={run[1]}", "--data", str(log.path)]) == 2
    assert "the tasks ask what follows the last known interaction" in capsys.readouterr().err
    assert main(["compare", str(run[1]), str(plain[1]), "--data", str(log.path)]) == 2
    assert "two protocols" in capsys.readouterr().err
