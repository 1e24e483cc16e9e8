"""The mix against one that is written out for one user at a time with dense vectors, from its definition."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
import torch

from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.evaluator import evaluate
from sr_transformers.evaluation.experts import HALF_LIVES
from sr_transformers.evaluation.mix import LAGS, Mix


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """80 users who buy baskets of up to 4 of 12 items, again and again."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(80):
        liked = rng.permutation(12)[:5]
        for visit in range(int(rng.integers(2, 9))):
            time = int(rng.integers(0, 40)) + 40 * visit
            for _ in range(int(rng.integers(1, 5))):
                rows.append((user, int(rng.choice(liked) if rng.random() < 0.7 else rng.integers(12)), time))
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare(frame, tmp_path_factory.mktemp("shop") / "data")


def by_hand(mix, data, items, times, unseen_only):
    """`(V,)` probabilities."""
    size, length = data.vocab_size, len(items)
    popularity = data.item_counts / data.item_counts.sum()
    users = [
        (data.items(user, int(n)), data.timestamps(user, int(n))) for user, n in enumerate(data.train_lengths.tolist())
    ]
    basket = {int(item) for item, time in zip(items, times, strict=True) if time == times[-1]}
    experts = {}
    for kind in ("own", "own outside the basket"):
        for life in HALF_LIVES:
            mass = np.zeros(size)
            for place, item in enumerate(items):
                if kind == "own" or int(item) not in basket:
                    mass[item] += 1.0 if math.isinf(life) else 0.5 ** ((length - 1 - place) / life)
            experts[f"{kind}, half-life {life:g}"] = mass
    experts["own successors"] = np.zeros(size)
    for before, after in itertools.pairwise(items):
        experts["own successors"][after] += before == items[-1]
    for lag in range(1, LAGS + 1):
        mass = experts[f"markov, lag {lag}"] = np.zeros(size)
        for history, _ in users:
            for before, after in zip(history[:-lag], history[lag:], strict=True):
                mass[after] += length >= lag and before == items[-lag]
    # Recent popularity: stretches end at every so many-th training interaction.
    moments = np.sort(np.concatenate([time for _, time in users]))
    ends = np.unique(moments[np.arange(1, 257) * len(moments) // 256 - 1])
    until = int((ends <= times[-1]).sum())
    mass = experts["recent popularity"] = np.zeros(size)
    if until:
        begin = ends[until - mix.window - 1] if until > mix.window else -1
        for history, time in users:
            for item, moment in zip(history, time, strict=True):
                mass[item] += begin < moment <= ends[until - 1]
    experts["popularity"] = popularity.copy()
    if unseen_only:
        for name in [name for name in experts if name.startswith("own")]:
            del experts[name]
        for mass in experts.values():
            mass[items] = 0
        experts["popularity, seen items too"] = popularity
    assert list(experts) == mix.experts
    spoken = [(weight, experts[name]) for name, weight in mix.fitted["weights"].items() if experts[name].sum() > 0]
    total = sum(weight for weight, _ in spoken)
    return sum(weight / total * mass / mass.sum() for weight, mass in spoken)


@pytest.mark.parametrize("unseen_only", [False, True])
def test_it_is_its_definition(shop, unseen_only):
    mix = Mix(shop, unseen_only)
    histories, times, expected = [], [], []
    for user in range(0, 80, 3):
        length = int(shop.lengths[user]) - 1
        histories.append(shop.items(user, length))
        times.append(shop.timestamps(user, length))
        expected.append(by_hand(mix, shop, histories[-1], times[-1], unseen_only))
    found = mix.score(histories, times)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.exp().numpy(), np.stack(expected), rtol=2e-5, atol=1e-9)
    assert torch.isneginf(found[:, :NUM_SPECIAL]).all()
    assert found.logsumexp(1).numpy() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("unseen_only", [False, True])
def test_its_validation_loss_is_that_of_its_scores_and_no_other_weights_have_a_smaller_one(shop, unseen_only):
    mix = Mix(shop, unseen_only)
    report = evaluate(mix, shop, "validation", filter_seen=unseen_only)
    assert report["metrics"]["loss"] == pytest.approx(mix.fitted["validation_loss"], abs=2e-3)
    assert report["fitted"]["validation_targets"] == report["num_targets"]
    rng = np.random.default_rng(0)
    kept, best = mix.weights.copy(), report["metrics"]["loss"]
    for _ in range(20):
        mix.weights = rng.dirichlet(50 * kept + 0.05) + 1e-9
        other = evaluate(mix, shop, "validation", filter_seen=unseen_only)["metrics"]["loss"]
        assert other > best - 0.015  # one target more, that all experts explain alike, keeps weights off 0


def test_weights_know_nothing_of_test_targets(shop, tmp_path):
    """The same log with other last items has the same weights."""
    rows = [
        (user, int(item), int(time))
        for user in range(len(shop))
        for item, time in zip(
            shop.item_ids.take(np.asarray(shop.items(user, int(shop.lengths[user]))) - NUM_SPECIAL).to_pylist(),
            shop.timestamps(user, int(shop.lengths[user])),
            strict=True,
        )
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    last = pl.int_range(pl.len()).over("user_id") == pl.len().over("user_id") - 1
    other = prepare(frame.with_columns(item_id=pl.when(last).then(0).otherwise("item_id")), tmp_path / "data")
    assert evaluate(Mix(shop), shop)["metrics"] != evaluate(Mix(other), other)["metrics"]
    assert Mix(other).weights == pytest.approx(Mix(shop).weights)


def test_without_repeats_it_is_markov_and_popularity(markov_prepared):
    mix = Mix(markov_prepared, filter_seen=True)
    assert not any("own" in name for name in mix.experts)
    assert sum(mix.fitted["weights"].values()) == pytest.approx(1)
    assert np.isfinite(evaluate(mix, markov_prepared, filter_seen=True)["metrics"]["loss"])


def test_newcomers_and_unreadable_histories_get_popularity(shop):
    nobody = np.zeros(0, np.int32)
    padding = np.zeros(2, np.int32)
    for unseen_only in (False, True):
        mix = Mix(shop, unseen_only)
        scores = mix.score([nobody, padding], [nobody.astype(np.int64), np.array([5, 6])])
        assert torch.isfinite(scores[:, NUM_SPECIAL:]).all()
        assert scores.exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_who_has_seen_everything_can_still_be_ranked(shop):
    mix = Mix(shop, filter_seen=True)
    everything = np.arange(NUM_SPECIAL, shop.vocab_size, dtype=np.int32)
    scores = mix.score([everything], [np.zeros(len(everything), np.int64)])
    popularity = shop.item_counts[NUM_SPECIAL:] / shop.item_counts.sum()
    assert scores[0, NUM_SPECIAL:].exp().numpy() == pytest.approx(popularity, rel=1e-5)


def test_a_basket_longer_than_every_half_life_leaves_old_items_without_mass_and_no_nan(shop):
    mix = Mix(shop)
    history = np.full(9_000, 3, np.int32)
    history[0] = 2
    times = np.full(9_000, 50)
    times[0] = 1
    scores = mix.score([history], [times])
    assert scores[0].exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_a_log_without_validation_targets_gives_all_experts_the_same_weight(tmp_path):
    rows = [(0, "A", 1), (0, "B", 2), (1, "B", 30), (1, "A", 31)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(frame, tmp_path / "data", split="temporal", validation_from=10, test_from=20)
    mix = Mix(data)
    assert set(mix.weights.tolist()) == {1 / len(mix.experts)}
    assert mix.fitted["validation_loss"] is None
    assert evaluate(mix, data)["num_targets"] == 1


def test_batches_do_not_matter(shop):
    mix = Mix(shop)
    pasts = [(shop.items(user, 4), shop.timestamps(user, 4)) for user in range(80) if shop.lengths[user] > 4]
    together = mix.score(*(list(column) for column in zip(*pasts, strict=True)))
    for row, (items, times) in enumerate(pasts):
        assert torch.allclose(together[row], mix.score([items], [times])[0], rtol=1e-5)
