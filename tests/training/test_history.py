"""A model with history through training, ranking, recommending and fine-tuning, on a log with baskets and repeats."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, pipeline

from sr_transformers import Recipe, Recommender, Session, prepare, train
from sr_transformers.cli import main
from sr_transformers.data.fractions import FractionOfData
from sr_transformers.data.transitions import successor_table
from sr_transformers.evaluation.evaluator import evaluate, known_past
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.lsrm.configuration_lsrm import HISTORY_PARTS, LAGS
from sr_transformers.training.binding import time_unit

IDS_ONLY = ["recency", "bigrams", "items"]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """120 users who buy baskets of a few of their own five items, now and then."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(120):
        own = rng.permutation(40)[:5]
        now = 0
        for _ in range(rng.integers(4, 9)):
            now += int(rng.integers(1, 9)) * 86_400
            items = rng.permutation(own)[: rng.integers(1, 4)]
            lines += [f"u{user},i{item},{now}" for item in items]
    folder = tmp_path_factory.mktemp("log")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    return prepare(folder / "log.csv", folder / "data")


def recipe(parts, **more):
    model = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 6}
    training = {
        "num_train_epochs": 6,
        "learning_rate": 1e-2,
        "switch_optimizer": False,
        "per_device_train_batch_size": 8,
    }
    return Recipe("small", {**model, "history": list(parts), "num_successors": 8}, {**training, **more})


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    """A finished run with every part."""
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(recipe(HISTORY_PARTS), log, folder), folder


@pytest.fixture(scope="module")
def ids_run(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids") / "run"
    return train(recipe(IDS_ONLY), log, folder), folder


def test_history_learns_what_the_model_without_cannot(log, run, tmp_path):
    record, _ = run
    without = train(recipe(()), log, tmp_path / "run")
    ours, theirs = (next(r for r in one.reports if r["model"].startswith("lsrm")) for one in (record, without))
    assert ours["metrics"]["loss"] < theirs["metrics"]["loss"] - 0.3


def test_the_folder_holds_all_of_it(log, run):
    """Loaded again it ranks as it did at the end of the run, and knows its counts."""
    record, folder = run
    model = Checkpoint(folder).model()
    report = evaluate(ModelScorer(model), log)
    assert report["metrics"]["loss"] == pytest.approx(record.reports[0]["metrics"]["loss"], rel=2e-4)
    assert model.config.time_unit == time_unit(log)
    for name, table in successor_table(log, 8).items():
        assert torch.equal(getattr(model.history.mix, name), torch.from_numpy(table))


def test_a_recommender_and_a_session_answer_as_the_evaluation(log, run):
    recommender = Recommender.from_pretrained(run[1])
    scorer = recommender.scorer
    users = [known_past(scorer, log, user, position) for user, position in log.targets("test")[:20].tolist()]
    expected = scorer.score([past.items for past in users], times=[past.times for past in users]).log_softmax(1)
    raw = [log.tokenizer.convert_ids_to_tokens(past.items.tolist()) for past in users]
    times = [past.times.tolist() for past in users]
    found = recommender.recommend_batch(raw, k=40, exclude_seen=False, times=times)
    for row, (history, moments) in enumerate(zip(raw, times, strict=True)):
        named = {one.item: one.probability for one in found[row]}
        for token in range(2, log.vocab_size):
            item = log.tokenizer.convert_ids_to_tokens(token)
            assert named[item] == pytest.approx(float(expected[row, token].exp()), rel=1e-4, abs=1e-7)
        session = Session(recommender, history[:2], moments[:2])
        for item, moment in zip(history[2:], moments[2:], strict=True):
            session.recommend()
            session.add(item, times=[moment])
        again = session.recommend(k=40, exclude_seen=False)
        assert [one.item for one in again][:5] == [one.item for one in found[row]][:5]
        assert again[0].probability == pytest.approx(found[row][0].probability, rel=1e-4)


def test_moments_that_are_missing_or_wrong_are_refused(run):
    recommender = Recommender.from_pretrained(run[1])
    with pytest.raises(ValueError, match="pass times, for every history as many moments as items"):
        recommender.recommend(["i1", "i2"])
    with pytest.raises(ValueError, match="times of history 0 must be one moment for each of its 2 items"):
        recommender.recommend(["i1", "i2"], times=[1])
    with pytest.raises(ValueError, match="none earlier than the one before"):
        recommender.recommend(["i1", "i2"], times=[2, 1])
    session = Session(recommender, ["i1"], [5])
    with pytest.raises(ValueError, match="the moment 4 is before 5"):
        session.add("i2", times=[4])


def test_pipeline_and_generate_read_ids_alone(log, ids_run):
    folder = ids_run[1]
    recommender = Recommender.from_pretrained(folder)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    histories = [
        tokenizer.convert_ids_to_tokens(log.items(user, position).tolist())
        for user, position in log.targets("test")[:12].tolist()
    ]
    assert max(map(len, histories)) > 6  # longer than the window
    piped = pipeline("next-item", model=model, tokenizer=tokenizer)(
        histories, top_k=5, exclude_seen=False, batch_size=5
    )
    ours = recommender.recommend_batch(histories, k=5, exclude_seen=False)
    for one, other in zip(piped, ours, strict=True):
        assert [item["item_id"] for item in one] == [item.item for item in other]
        assert [item["score"] for item in one] == pytest.approx([item.probability for item in other], rel=1e-4)


def test_the_pipeline_takes_moments(log, run):
    folder = run[1]
    recommender = Recommender.from_pretrained(folder)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    pipe = pipeline("next-item", model=model, tokenizer=tokenizer, batch_size=3, top_k=5, exclude_seen=False)
    inputs = []
    for user, position in log.targets("test")[:7].tolist():
        items = tokenizer.convert_ids_to_tokens(log.items(user, position).tolist())
        times = log.timestamps(user, position).tolist()
        inputs.append({"history": ["nothing known", *items], "times": [times[0], *times]})
    for one, asked in zip(pipe(inputs), inputs, strict=True):
        ours = recommender.recommend(asked["history"], k=5, exclude_seen=False, times=asked["times"])
        assert [item["item_id"] for item in one] == [item.item for item in ours]
        assert [item["score"] for item in one] == pytest.approx([item.probability for item in ours], rel=1e-4)
    with pytest.raises(ValueError, match="write a history as"):
        pipe(["i1", "i2"])


def test_the_command_takes_moments(run, capsys):
    arguments = ["recommend", "--model", str(run[1]), "--history", "i1", "i2", "-k", "3"]
    assert main([*arguments, "--times", "86400", "172800"]) == 0
    shown = capsys.readouterr().out
    ours = Recommender.from_pretrained(run[1]).recommend(["i1", "i2"], k=3, times=[86400, 172800], explain=True)
    assert [line.split(maxsplit=3)[1::2] for line in shown.splitlines()] == [[one.item, one.reason] for one in ours]
    assert main(arguments) == 2
    assert "--times: this model reads when interactions happened" in capsys.readouterr().err
    assert main([*arguments[:3], "--data", "x", "--output", "y.parquet", "--times", "1"]) == 2
    assert "--times are those of --history" in capsys.readouterr().err


def test_a_run_that_is_killed_goes_on_to_the_same_weights(log, run, tmp_path):
    """Everything that history needs is made anew from log and checkpoint."""

    class StopError(Exception):
        pass

    class StopAfter(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            if state.epoch >= 3:
                raise StopError

    with pytest.raises(StopError):
        train(recipe(HISTORY_PARTS), log, tmp_path / "run", callbacks=[StopAfter()])
    train(recipe(HISTORY_PARTS), log, tmp_path / "run")
    whole, resumed = (Checkpoint(folder).model().state_dict() for folder in (run[1], tmp_path / "run"))
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_part_of_the_log_counts_itself_alone(log):
    part = FractionOfData(log, "users", 0.5)
    whole, half = successor_table(log, 40), successor_table(part, 40)
    transitions = sum(max(int(n) - lag - 1, 0) for n in part.train_lengths for lag in range(LAGS))
    assert half["successor_counts"].sum() == transitions < whole["successor_counts"].sum()


def test_successors_by_counting(log):
    table = successor_table(log, 8)
    for lag in range(LAGS):
        counts = np.zeros((log.vocab_size, log.vocab_size), int)
        for user in range(len(log)):
            items = log.train_items(user, int(log.train_lengths[user]))
            for a, b in zip(items[: -lag - 1], items[lag + 1 :], strict=True):
                counts[a, b] += 1
        starts = table["successor_starts"][lag]
        for item in range(log.vocab_size):
            of_item = counts[item]
            best = np.sort(np.argsort(-of_item, kind="stable")[: min((of_item > 0).sum(), 8)])
            kept = slice(starts[item], starts[item + 1])
            assert np.array_equal(table["successor_tokens"][kept], best)
            assert np.array_equal(table["successor_counts"][kept], of_item[best])
    assert table["successor_starts"][0, 0] == 0
    assert np.array_equal(table["successor_starts"][:-1, -1], table["successor_starts"][1:, 0])
    assert table["successor_starts"][-1, -1] == len(table["successor_tokens"]) == len(table["successor_counts"])


def test_a_log_without_moments_is_refused_by_name(tmp_path):
    lines = ["user_id,item_id,timestamp", *(f"u{u},i{(u * k) % 7},0" for u in range(30) for k in range(1, 6))]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    data = prepare(tmp_path / "log.csv", tmp_path / "data")
    with pytest.raises(ValueError, match="leave baskets and clock out"):
        train(recipe(["clock"]), data, tmp_path / "run")


def test_the_configuration_of_a_run_names_the_parts(run):
    groups = run[0].parameters
    model = Checkpoint(run[1]).model()
    assert sum(groups.values()) == sum(one.numel() for one in model.parameters())
    assert groups["blocks"] == model.config.num_non_embedding_parameters
    assert groups["history"] == sum(
        one.numel() for name, one in model.named_parameters() if "history" in name or "clock" in name
    )
    config = json.loads((run[1] / "config.json").read_text())
    assert config["history"] == list(HISTORY_PARTS)
    assert config["num_successors"] == 8
