import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from made_mix import fill_mix

from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.lsrm.configuration_lsrm import HISTORY_PARTS, LSRMConfig
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.scaling.studies.teacher import LOG_FILE, sample_log


@pytest.fixture(scope="module")
def teacher(markov_prepared):
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1, "max_position_embeddings": 12}
    config = LSRMConfig(vocab_size=markov_prepared.vocab_size, initializer_range=0.8, **shape)
    return LSRMForCausalLM(config).eval()


@pytest.fixture(scope="module")
def sampled(teacher, markov_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampled") / "log"
    found = sample_log(teacher, markov_prepared, 12_000, folder, seed=3, say=lambda line: None)
    return found, pl.read_parquet(folder / LOG_FILE), folder


def test_lengths_and_first_items_are_those_of_the_log(sampled, markov_prepared):
    found, log, folder = sampled
    assert json.loads((folder / "sampled.json").read_text()) == dataclasses.asdict(found)
    assert 12_000 <= found.interactions == len(log) < 12_012
    lengths = log.group_by("user_id").len()["len"].to_numpy()
    assert lengths.max() == 12  # the teacher's window
    assert lengths.mean() == pytest.approx(np.minimum(markov_prepared.lengths, 12).mean(), rel=0.03)
    firsts = set(log.filter(pl.col("timestamp") == 0)["item_id"])
    known = markov_prepared.item_ids.to_pylist()
    assert firsts <= {known[markov_prepared.items(user, 1)[0] - 2] for user in range(len(markov_prepared))}
    assert set(log["item_id"]) <= set(known)
    shuffled = log.group_by("user_id").len().sort("user_id")["len"].to_numpy()
    assert abs(np.corrcoef(np.arange(len(shuffled)), shuffled)[0, 1]) < 0.1


def test_items_are_drawn_from_the_teachers_distribution(sampled, teacher, markov_prepared):
    """Second items after the most frequent first one, against the model's own probabilities."""
    _, log, _ = sampled
    pairs = log.sort("user_id", "timestamp").filter(pl.col("timestamp") < 2).group_by("user_id", maintain_order=True)
    items = [list(one["item_id"]) for _, one in pairs]
    place = {item: token + 2 for token, item in enumerate(markov_prepared.item_ids.to_pylist())}
    first = max({one[0] for one in items}, key=lambda item: sum(one[0] == item for one in items))
    seconds = np.bincount([place[one[1]] for one in items if one[0] == first], minlength=teacher.config.vocab_size)
    with torch.no_grad():
        scores = teacher(torch.tensor([[place[first]]])).logits[0, -1]
    scores[:2] = -torch.inf
    expected = scores.softmax(-1).numpy() * seconds.sum()
    assert seconds[:2].sum() == 0
    chi = ((seconds - expected)[2:] ** 2 / expected[2:]).sum()
    assert chi < 28 + 4 * np.sqrt(2 * 28)  # 30 items less one, and four standard deviations


@torch.no_grad()
def test_the_teachers_own_loss_is_the_floor_of_the_log(sampled, teacher, markov_prepared):
    """Every user's last item, one user at a time and without a cache."""
    found, log, _ = sampled
    place = {item: token + 2 for token, item in enumerate(markov_prepared.item_ids.to_pylist())}
    nats = []
    for _, one in log.sort("user_id", "timestamp").group_by("user_id"):
        tokens = [place[item] for item in one["item_id"]]
        scores = teacher(torch.tensor([tokens[:-1]])).logits[0, -1]
        scores[:2] = -torch.inf
        nats.append(-float(scores.log_softmax(-1)[tokens[-1]]))
    assert found.last_loss == pytest.approx(np.mean(nats), abs=1e-5)
    assert found.last_loss_error == pytest.approx(np.std(nats, ddof=1) / np.sqrt(len(nats)), rel=1e-4)
    assert found.loss == pytest.approx(found.last_loss, abs=6 * found.last_loss_error)


@torch.no_grad()
def test_users_too_short_for_a_test_target_do_not_count_for_the_floor(teacher, markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(markov_prepared, "lengths", np.where(np.arange(len(markov_prepared)) % 2, 2, 6))
    found = sample_log(teacher, markov_prepared, 900, tmp_path / "log", seed=3, say=lambda line: None)
    place = {item: token + 2 for token, item in enumerate(markov_prepared.item_ids.to_pylist())}
    nats = []
    for _, one in pl.read_parquet(tmp_path / "log" / LOG_FILE).sort("user_id", "timestamp").group_by("user_id"):
        tokens = [place[item] for item in one["item_id"]]
        scores = teacher(torch.tensor([tokens[:-1]])).logits[0, -1]
        scores[:2] = -torch.inf
        nats += [-float(scores.log_softmax(-1)[tokens[-1]])] if len(tokens) > 2 else []
    assert len(nats) < found.users
    assert found.last_loss == pytest.approx(np.mean(nats), abs=1e-5)
    monkeypatch.setattr(markov_prepared, "lengths", np.full(len(markov_prepared), 2))
    with pytest.raises(ValueError, match="no user of 3 interactions came out of the lengths"):
        sample_log(teacher, markov_prepared, 100, tmp_path / "short", say=lambda line: None)


@torch.no_grad()
@pytest.mark.parametrize(
    "blocks",
    [
        {"history": ["recency", "bigrams", "items"]},
        {"history": ["clock"]},
        {"history": list(HISTORY_PARTS), "attention_time": True, "time_unit": 2.0},
    ],
    ids=["counts", "clock", "all"],
)
def test_a_teacher_with_history_reads_the_whole_of_it_at_every_step(blocks, markov_prepared, tmp_path):
    """The loss that is stated is that of ranking: one user at a time, without a cache, by `ModelScorer`."""
    torch.manual_seed(1)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 12}
    config = LSRMConfig(vocab_size=markov_prepared.vocab_size, initializer_range=0.8, **shape, **blocks)
    teacher = LSRMForCausalLM(config).eval()
    for parameter in teacher.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    if "mix" in config.history:
        fill_mix(teacher, [2, 5])
    found = sample_log(teacher, markov_prepared, 600, tmp_path / "log", seed=3, say=lambda line: None)
    log = pl.read_parquet(tmp_path / "log" / LOG_FILE)
    place = {item: token + 2 for token, item in enumerate(markov_prepared.item_ids.to_pylist())}
    scorer, nats, lasts = ModelScorer(teacher), [], []
    for _, one in log.sort("user_id", "timestamp").group_by("user_id"):
        tokens = np.array([place[item] for item in one["item_id"]])
        for step in range(1, len(tokens)):
            times = [np.arange(step)] if config.needs_times else None
            scores = scorer.score([tokens[:step]], times=times)[0].log_softmax(-1)
            nats.append(-float(scores[tokens[step]]))
        lasts.append(nats[-1])
    assert found.loss == pytest.approx(np.mean(nats), abs=1e-4)
    assert found.last_loss == pytest.approx(np.mean(lasts), abs=1e-4)


def test_another_vocabulary_and_too_few_interactions_are_refused(teacher, markov_prepared, prepared, tmp_path):
    with pytest.raises(ValueError, match="the teacher has"):
        sample_log(teacher, prepared, 100, tmp_path / "x")
    with pytest.raises(ValueError, match="interactions is 1"):
        sample_log(teacher, markov_prepared, 1, tmp_path / "x")
