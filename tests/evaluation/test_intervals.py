import numpy as np
import pytest

from sr_transformers.evaluation import intervals
from sr_transformers.evaluation.intervals import Estimate, bootstrap, over_seeds, user_weights

USERS = np.arange(400)
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(3, 2, len(USERS))


def estimate(values, users=USERS, draws=2000, seed=0) -> Estimate:
    points, drawn = bootstrap(np.asarray(values, float)[:, None], users, draws, seed)
    return Estimate(points[0], drawn[:, 0])


def test_the_interval_of_a_mean_is_the_textbooks():
    found = estimate(NORMAL)
    error = NORMAL.std() / np.sqrt(len(NORMAL))
    assert found.point == pytest.approx(NORMAL.mean())
    assert found.interval(0.95) == pytest.approx((found.point - 1.96 * error, found.point + 1.96 * error), abs=0.02)
    assert found.interval(0.5) == pytest.approx((found.point - 0.674 * error, found.point + 0.674 * error), abs=0.02)


def test_intervals_cover_the_truth_as_often_as_they_say():
    covered = []
    for trial in range(200):
        low, high = estimate(np.random.default_rng(trial).random(80) < 0.3, np.arange(80), 100, trial).interval(0.9)
        covered.append(low <= 0.3 <= high)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.06)


def test_each_draw_has_as_many_users_as_there_are():
    weights = np.concatenate(list(user_weights(USERS, 30, 0)))
    assert weights.shape == (30, len(USERS))
    assert (weights.sum(1) == len(USERS)).all()


def test_the_same_users_are_drawn_together_and_others_apart(monkeypatch):
    same, again, other = (next(user_weights(users, 5, 0)) for users in (USERS, USERS.copy(), USERS + 1))
    assert np.array_equal(same, again)
    assert not np.array_equal(same, other)
    assert not np.array_equal(same, next(user_weights(USERS, 5, 1)))
    monkeypatch.setattr(intervals, "_WEIGHTS", 2 * len(USERS))
    assert np.array_equal(np.concatenate(list(user_weights(USERS, 5, 0))), same)


def test_pairs_narrow_a_difference():
    better = NORMAL + 0.1  # for every user by as much
    low, high = (estimate(better) - estimate(NORMAL)).interval(0.95)
    assert (low, high) == pytest.approx((0.1, 0.1))
    strangers = estimate(better) - estimate(NORMAL, USERS + 1000)
    assert np.ptp(strangers.draws) > 0.5


def test_relative_numbers_by_hand():
    base, found = Estimate(0.2, np.array([0.1, 0.2, 0.4])), Estimate(0.3, np.array([0.2, 0.3, 0.4]))
    gain = found.relative_to(base)
    assert gain.point == pytest.approx(0.5)
    assert gain.draws == pytest.approx([1.0, 0.5, 0.0])


def test_a_ratio_to_nothing_has_no_interval():
    gain = Estimate(0.3, np.array([0.2, 0.3])).relative_to(Estimate(0.1, np.array([0.0, 0.1])))
    assert gain.interval(0.95) is None
    assert gain.summary(0.95) == {"value": pytest.approx(2.0), "low": None, "high": None}
    assert gain.p_value() is None
    nothing = Estimate(0.0, np.zeros(2)).relative_to(Estimate(0.0, np.zeros(2)))
    assert nothing.summary(0.95) == {"value": None, "low": None, "high": None}


def test_p_by_hand():
    assert Estimate(1.0, np.array([1.0, 2.0, 3.0, -1.0])).p_value() == pytest.approx(2 * (1 + 1) / 5)
    assert Estimate(1.0, np.full(999, 1.0)).p_value() == pytest.approx(2 / 1000)
    assert Estimate(0.0, np.zeros(9)).p_value() == 1.0


def test_p_is_uniform_where_nothing_differs():
    values = []
    for trial in range(200):
        rng = np.random.default_rng(trial)
        values.append(estimate(rng.normal(size=60), np.arange(60), 100, trial).p_value())
    assert np.mean(np.array(values) < 0.1) == pytest.approx(0.1, abs=0.06)


def test_users_without_a_value_take_no_part():
    values = np.stack([NORMAL, NORMAL], axis=1)
    values[::2, 1] = np.nan
    points, draws = bootstrap(values, USERS, 500, 0)
    assert points == pytest.approx([NORMAL.mean(), NORMAL[1::2].mean()])
    weights = np.concatenate(list(user_weights(USERS, 500, 0)))[:, 1::2]
    assert draws[:, 1] == pytest.approx(weights @ NORMAL[1::2] / weights.sum(1))
    assert draws[:, 0].std() < draws[:, 1].std()


def test_seeds_are_drawn_too():
    draws = np.stack([np.full(4000, value) for value in (1.0, 2.0, 6.0)])  # no uncertainty over users
    found = over_seeds([1.0, 2.0, 6.0], draws, [0, 1])
    assert found.point == pytest.approx(3.0)
    assert found.draws.mean() == pytest.approx(3.0, abs=0.1)
    assert found.draws.std() == pytest.approx(np.std([1, 2, 6]) / np.sqrt(3), rel=0.05)
    assert np.array_equal(over_seeds([5.0], draws[:1], [0]).draws, draws[0])
    assert np.array_equal(found.draws, over_seeds([1.0, 2.0, 6.0], draws, [0, 1]).draws)
