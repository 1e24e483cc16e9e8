import math

import numpy as np
import polars as pl
import pytest

from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation import validation_choices
from sr_transformers.evaluation.log_counts import RecentCounts, popularity
from sr_transformers.evaluation.validation_choices import (
    best_half_life,
    best_window,
    maximise_likelihood,
    validation_targets,
)


def log_of(rows, path):
    return prepare(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), path / "data")


def test_em_finds_the_weights_of_a_known_mixture():
    rng = np.random.default_rng(0)
    experts = rng.dirichlet(np.ones(20), 3)  # three distributions over 20 items
    wanted = np.array([0.6, 0.3, 0.1])
    targets = rng.choice(20, 60_000, p=wanted @ experts)
    weights, loss = maximise_likelihood(experts[:, targets].T, np.ones((60_000, 3), bool))
    assert weights == pytest.approx(wanted, abs=0.02)
    entropy = -(wanted @ experts * np.log(wanted @ experts)).sum()
    assert loss == pytest.approx(entropy, abs=0.02)


def test_silent_experts_leave_their_share_to_the_others():
    """Half of the targets are seen by the first expert alone, which must not lower the weight of the second."""
    probabilities = np.array([[0.1, 0.0], [0.1, 0.4]] * 500)
    speaks = np.array([[True, False], [True, True]] * 500)
    weights, loss = maximise_likelihood(probabilities, speaks)
    grid = np.linspace(0.001, 0.999, 999)
    best = min(-0.5 * (math.log(0.1) + math.log(0.1 * (1 - w) + 0.4 * w)) for w in grid)
    assert loss == pytest.approx(best, abs=1e-2)
    assert weights[1] > 0.95


def test_every_expert_keeps_some_weight():
    weights, _ = maximise_likelihood(np.array([[0.5, 0.0]] * 99), np.ones((99, 2), bool))
    assert weights[1] == pytest.approx(0.5 / 100, rel=0.01)


def test_the_window_follows_what_is_popular_now(tmp_path):
    """Every user buys one item five times; the item is the fashion of the hundred users of that time."""
    rows = [(user, f"fashion {user // 100}", 10 * user + n) for user in range(800) for n in range(5)]
    data = log_of(rows, tmp_path)
    recent = RecentCounts(data)
    window = best_window(recent, popularity(data), validation_targets(data))
    assert window / recent.stretches < 1 / 8
    rng = np.random.default_rng(0)
    rows = [(user, int(rng.integers(8)), 10 * user + n) for user in range(800) for n in range(5)]
    steady = log_of(rows, tmp_path / "2")
    recent = RecentCounts(steady)
    assert best_window(recent, popularity(steady), validation_targets(steady)) / recent.stretches > 1 / 8


def test_the_half_life_is_short_where_only_the_last_items_come_back(tmp_path):
    rows, rng = [], np.random.default_rng(0)
    for user in range(100):
        phases = rng.permutation(30)[:6]
        rows += [(user, int(item), 20 * phase + n) for phase, item in enumerate(phases) for n in range(8)]
    data = log_of(rows, tmp_path)
    known = validation_targets(data)
    assert best_half_life((3.0, 100.0, math.inf), False, popularity(data), known) == 3.0
    rows = [(user, int(rng.choice([user % 7, 7 + user % 5])), n) for user in range(100) for n in range(40)]
    data = log_of(rows, tmp_path / "2")
    assert best_half_life((1.0, math.inf), False, popularity(data), validation_targets(data)) == math.inf


def test_of_many_targets_some_are_taken(markov_prepared, monkeypatch):
    monkeypatch.setattr(validation_choices, "AT_MOST", 100)
    monkeypatch.setattr(validation_choices, "rows_of_scores", lambda size: 30)
    parts = validation_targets(markov_prepared)
    assert [len(one.targets) for one in parts] == [30, 30, 30, 10]
    rows = markov_prepared.targets("validation")[np.linspace(0, 299, 100).astype(int)]
    for place, (user, position) in enumerate(rows.tolist()):
        one = parts[place // 30]
        assert np.array_equal(one.histories[place % 30], markov_prepared.items(user, position))
        assert np.array_equal(one.times[place % 30], markov_prepared.timestamps(user, position))
        assert one.targets[place % 30] == markov_prepared.items(user, position + 1)[position]


def test_targets_outside_the_vocabulary_teach_nothing(prepared):
    assert all(
        (one.targets > 1).all() and (np.concatenate(one.histories) > 1).all() for one in validation_targets(prepared)
    )
    unknown = prepared.manifest["counts"]["validation_targets_outside_vocabulary"]
    assert sum(len(one.targets) for one in validation_targets(prepared)) == prepared.num_targets("validation") - unknown
