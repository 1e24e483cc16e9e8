import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_transformers.data import cuts, splits
from sr_transformers.data.cuts import blocks
from sr_transformers.data.splits import (
    LAST_BASKET,
    LEAKS,
    LEAVE_ONE_OUT,
    PAPER,
    SPLITS,
    TEMPORAL,
    Options,
    last_basket,
    leave_one_out,
    paper,
    temporal,
)


def test_leave_one_out_holds_out_the_last_two_of_users_with_three():
    split = leave_one_out(np.array([1, 2, 3, 5], np.uint32))
    assert split.train_length.tolist() == [1, 2, 1, 3]
    assert split.validation.tolist() == [[2, 1], [3, 3]]
    assert split.test.tolist() == [[2, 2], [3, 4]]
    assert split.notes == {"users_too_short_to_hold_out": 2}


def test_temporal_takes_the_first_target_of_each_user_in_each_period():
    histories = [
        [1, 2, 11, 12, 21, 22],  # all three periods
        [3, 4],  # training only
        [5, 23],  # no validation
        [13, 14, 24],  # nothing to predict 13 from
        [25],  # a first interaction is no target
        [26, 27],
    ]
    split = temporal(np.array([6, 2, 2, 3, 1, 2]), np.concatenate(histories), 10, 20)
    assert split.train_length.tolist() == [2, 2, 1, 0, 0, 0]
    assert split.validation.tolist() == [[0, 2], [3, 1]]
    assert split.test.tolist() == [[0, 4], [2, 1], [3, 2], [5, 1]]
    assert split.notes == {
        "validation_from": 10,
        "test_from": 20,
        "users_without_test_target": 2,
        "users_without_training_interactions": 3,
    }


def test_the_first_moment_of_a_period_belongs_to_it():
    split = temporal(np.array([5]), np.array([9, 10, 19, 20, 21]), 10, 20)
    assert (split.train_length.tolist(), split.validation.tolist(), split.test.tolist()) == ([1], [[0, 1]], [[0, 3]])


def test_a_period_in_which_nothing_happens_has_no_targets():
    split = temporal(np.array([3]), np.array([1, 2, 30]), 10, 20)
    assert split.notes["users_without_training_interactions"] == 0
    assert split.validation.shape == (0, 2)
    assert split.test.tolist() == [[0, 2]]
    assert temporal(np.array([3]), np.array([1, 2, 3]), 10, 20).test.shape == (0, 2)


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), min_size=1, max_size=8), st.data())
def test_temporal_trains_on_nothing_from_validation_on(histories, data):
    test_from = data.draw(st.integers(1, 31))
    validation_from = data.draw(st.integers(0, test_from - 1))
    histories = [np.sort(np.array(history)) for history in histories]
    arguments = np.array([len(history) for history in histories]), np.concatenate(histories)
    if min(arguments[1]) >= validation_from:
        with pytest.raises(ValueError, match=f"no interaction lies before {validation_from}"):
            temporal(*arguments, validation_from, test_from)
        return
    split = temporal(*arguments, validation_from, test_from)
    for history, length in zip(histories, split.train_length, strict=True):
        assert (history[:length] < validation_from).all()
        assert (history[length:] >= validation_from).all()
    for targets, first, end in ((split.validation, validation_from, test_from), (split.test, test_from, np.inf)):
        found = dict(targets.tolist())
        assert len(found) == len(targets)
        for user, history in enumerate(histories):
            able = [place for place, time in enumerate(history) if place and first <= time < end]
            assert found.get(user) == (able[0] if able else None)


def test_validation_must_begin_before_test():
    with pytest.raises(ValueError, match="validation begins at 20, not before test at 20"):
        temporal(np.array([2]), np.array([1, 30]), 20, 20)
    with pytest.raises(ValueError, match="validation begins at 7, not before test at 7"):
        Options(TEMPORAL).apply(np.array([3]), np.array([7, 7, 7]), pa.array(["a"]), None)


def test_something_must_be_left_to_train_on():
    with pytest.raises(ValueError, match="no interaction lies before 5, the first moment of validation"):
        temporal(np.array([2]), np.array([5, 30]), 5, 20)


def test_every_split_says_what_it_leaks():
    assert set(LEAKS) == set(SPLITS)


USERS = [f"u{n}" for n in range(400)]


def paper_split(lengths, min_trajectory_length: int = 15, unseen_share: float = 0.2, seed: int = 0):
    return paper(np.asarray(lengths), USERS[: len(lengths)], min_trajectory_length, unseen_share, seed)


def test_paper_holds_out_a_trajectory_of_ten_then_test_then_validation():
    split = paper_split([16, 15, 3, 2, 1, 40, 12] * 50)
    held = {user: (test, split.train_length[user]) for user, test in split.test.tolist()}
    assert {user % 7 for user in held} == {0, 1, 2, 5, 6}
    for user, (test, trained) in held.items():
        assert (trained, test) == {0: (4, 5), 1: (13, 14), 2: (1, 2), 5: (28, 29), 6: (10, 11)}[user % 7]
    assert (split.validation[:, 0] == split.test[:, 0]).all()
    assert (split.validation[:, 1] == split.test[:, 1] - 1).all()
    pool = split.train_length == 0
    assert not pool[list(held)].any()
    assert split.train_length[[3, 4]].tolist() == [2, 1]  # too short to hold out: training only, and seen
    assert split.notes == {
        "users_unseen": int(pool.sum()),
        "users_with_trajectory": sum(user % 7 in (0, 5) for user in held),
        "users_too_short_to_hold_out": int((~pool & (np.arange(350) % 7 // 3 == 1) & (np.arange(350) % 7 < 5)).sum()),
    }


@given(st.lists(st.integers(1, 30), min_size=20, max_size=60), st.integers(12, 20), st.integers(0, 9))
def test_training_validation_test_and_trajectory_partition_every_history(lengths, longest, seed):
    by_paper = paper_split(lengths, longest, unseen_share=0.9, seed=seed)
    for split, trajectory in ((leave_one_out(np.array(lengths)), 0), (by_paper, 10)):
        validation, test = dict(split.validation.tolist()), dict(split.test.tolist())
        assert validation.keys() == test.keys()
        for user, (length, trained) in enumerate(zip(lengths, split.train_length.tolist(), strict=True)):
            if user in test:
                assert 1 <= trained == validation[user] == test[user] - 1
                assert test[user] + 1 == length - (trajectory if length > longest else 0)
            else:
                assert trained in (0, length)


def test_amazon_trajectories_begin_at_21_interactions():
    split = paper_split([20, 21] * 50, min_trajectory_length=20)
    assert {(user % 2, position) for user, position in split.test.tolist()} == {(0, 19), (1, 10)}


def test_the_unseen_users_depend_on_id_and_seed_alone():
    pool = np.flatnonzero(paper_split([5] * 400).train_length == 0)
    assert 50 < len(pool) < 110  # 80 in expectation, standard deviation 8
    assert np.flatnonzero(paper_split([17] * 300).train_length == 0).tolist() == pool[pool < 300].tolist()
    assert np.flatnonzero(paper_split([5] * 400, seed=1).train_length == 0).tolist() != pool.tolist()
    assert set(pool) < set(np.flatnonzero(paper_split([5] * 400, unseen_share=0.4).train_length == 0))
    numbers = paper(np.full(50, 5), list(range(50)), 15, 0.2, 0)
    texts = paper(np.full(50, 5), [str(n) for n in range(50)], 15, 0.2, 0)
    assert numbers.train_length.tolist() == texts.train_length.tolist()


def test_the_papers_split_refuses_what_leaves_nothing():
    with pytest.raises(ValueError, match="min_trajectory_length 11 must be at least 12"):
        paper_split([20] * 9, min_trajectory_length=11)
    for share in (0, 1):
        with pytest.raises(ValueError, match=f"unseen_share {share} must lie between 0 and 1"):
            paper_split([20] * 9, unseen_share=share)
    with pytest.raises(ValueError, match=r"none of the 1 users is unseen at unseen_share 1e-06, seed 0"):
        paper_split([20], unseen_share=1e-6)


def test_users_of_a_second_block_are_split_like_those_of_the_first(monkeypatch):
    monkeypatch.setattr("sr_transformers.data.cuts.blocks", lambda lengths: blocks(lengths, rows=4))
    lengths, times = np.array([3, 2, 4, 1]), np.array([1, 11, 21, 2, 22, 3, 4, 12, 23, 25])
    split = temporal(lengths, times, 10, 20)
    assert split.train_length.tolist() == [1, 1, 2, 0]
    assert split.validation.tolist() == [[0, 1], [2, 2]]
    assert split.test.tolist() == [[0, 2], [1, 1], [2, 3]]


def test_options_belong_to_one_split():
    with pytest.raises(ValueError, match="split 'random' is not known; choose from leave_one_out, temporal, paper"):
        Options("random")
    for name in cuts.MEASURES:
        for split in (LEAVE_ONE_OUT, PAPER):
            with pytest.raises(ValueError, match=f"not for split '{split}', but for 'temporal': {name}"):
                Options(split, **{name: 5})
    for name, value in (("min_trajectory_length", 15), ("unseen_share", 0.2), ("seed", 0)):
        for split in (LEAVE_ONE_OUT, TEMPORAL):
            with pytest.raises(ValueError, match="min_trajectory_length, unseen_share and split_seed belong to"):
                Options(split, **{name: value})


def test_a_period_begins_one_way_only():
    for one, other in (("test_from", "test_days"), ("validation_share", "validation_days")):
        with pytest.raises(ValueError, match=f"{one} and {other} both say where {one.split('_')[0]} begins"):
            Options(TEMPORAL, **{one: 1, other: 1})


def test_a_split_knows_its_parameters_and_what_it_leaks():
    assert Options().described() == {"split": LEAVE_ONE_OUT, "leaks": LEAKS[LEAVE_ONE_OUT]}
    assert Options(TEMPORAL).described() == {"split": TEMPORAL, "leaks": LEAKS[TEMPORAL]}
    assert Options(TEMPORAL, test_from="2020-01-01").described() == {
        "split": TEMPORAL,
        "split_parameters": {"test_from": "2020-01-01"},
        "leaks": LEAKS[TEMPORAL],
    }
    assert Options(TEMPORAL, 5, 9).parameters() == {"validation_from": 5, "test_from": 9}
    assert Options(PAPER).parameters() == {"min_trajectory_length": 15, "unseen_share": 0.2, "seed": 0}
    assert Options(PAPER, seed=7, min_trajectory_length=20).described() == {
        "split": PAPER,
        "split_parameters": {"min_trajectory_length": 20, "unseen_share": 0.2, "seed": 7},
        "leaks": LEAKS[PAPER],
    }


def assert_same_split(one, other):
    assert one.notes == other.notes
    for name in ("train_length", "validation", "test"):
        assert getattr(one, name).dtype == np.int64
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


def test_options_split_as_they_say():
    lengths = np.array([20, 3, 17, 1, 30] * 12)
    times = np.concatenate([np.sort(np.random.default_rng(n).integers(0, 90, n)) for n in lengths]) * 1000
    users = [f"u{n}" for n in range(60)]

    def split(options, unit="ms", millionths=False):
        return options.apply(lengths, times, pa.array(users), unit, millionths)

    assert_same_split(split(Options()), leave_one_out(lengths))
    assert_same_split(split(Options(TEMPORAL)), temporal(lengths, times, *cuts.moments(times, {}, None)))
    assert_same_split(split(Options(TEMPORAL, 30_000, 60_000)), temporal(lengths, times, 30_000, 60_000))
    assert_same_split(
        Options(TEMPORAL, 30_000, 60_000).apply(lengths, times, pa.array(users), None),
        temporal(lengths, times, 30_000, 60_000),
    )
    assert_same_split(
        split(Options(TEMPORAL, "1970-01-01T00:00:30", "1970-01-01T00:01:00")), temporal(lengths, times, 30_000, 60_000)
    )
    assert_same_split(
        split(Options(TEMPORAL, "0.03", "0.06"), "us", millionths=True), temporal(lengths, times, 30_000, 60_000)
    )
    with pytest.raises(ValueError, match="test_from 'soon' is neither a number nor ISO 8601"):
        split(Options(TEMPORAL, 30_000, "soon"))
    assert_same_split(split(Options(PAPER)), paper(lengths, users, 15, 0.2, 0))
    assert_same_split(
        split(Options(PAPER, min_trajectory_length=18, unseen_share=0.4, seed=3)), paper(lengths, users, 18, 0.4, 3)
    )
    assert_same_split(split(Options(LAST_BASKET)), last_basket(lengths, times))


def test_the_smallest_trajectory_length_and_its_neighbour():
    """13 interactions at a least length of 12: 10 of the trajectory, test, validation, 1 to train on."""
    split = paper_split([13, 12] * 40, min_trajectory_length=12)
    for user, position in split.test.tolist():
        assert (position, split.train_length[user]) == ((2, 1), (11, 10))[user % 2]
    assert split.notes["users_with_trajectory"] == sum(user % 2 == 0 for user, _ in split.test.tolist())


def test_who_is_unseen_does_not_change_from_release_to_release():
    """The hash of "seed id" by BLAKE2b, read as a fraction: a log that grows, or is prepared again, keeps its pool."""
    for seed in (0, 5):
        split = paper_split([5] * 60, seed=seed)
        for user, length in enumerate(split.train_length):
            digest = hashlib.blake2b(f"{seed} u{user}".encode(), digest_size=8).hexdigest()
            assert (length == 0) == (int(digest, 16) / 16**16 < 0.2)


def test_the_last_basket_is_held_out_whole():
    lengths = np.array([6, 1, 4, 3])
    times = np.array([1, 1, 5, 5, 8, 8, 3, 2, 2, 2, 2, 1, 2, 3])
    split = last_basket(lengths, times)
    assert split.train_length.tolist() == [2, 1, 4, 1]
    assert split.validation.tolist() == [[0, 2], [3, 1]]
    assert split.test.tolist() == [[0, 4], [3, 2]]
    assert split.notes == {"users_too_short_to_hold_out": 2}


@given(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=9), min_size=1, max_size=6), st.integers(1, 12))
def test_last_baskets_are_those_of_every_user_whatever_the_block(users, rows):
    histories = [np.sort(np.array(one, np.int64)) for one in users]
    lengths = np.array([len(one) for one in histories])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "blocks", lambda lengths: blocks(lengths, rows))
        split = last_basket(lengths, np.concatenate(histories))
    test, validation = dict(split.test.tolist()), dict(split.validation.tolist())
    for user, times in enumerate(histories):
        moments = np.unique(times)
        if len(moments) < 3:
            assert user not in test
            assert split.train_length[user] == len(times)
            continue
        assert test[user] == np.searchsorted(times, moments[-1])
        assert validation[user] == split.train_length[user] == np.searchsorted(times, moments[-2])
