import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_transformers.data.splits import LEAKS, SPLITS, leave_one_out, temporal


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


def test_moments_are_by_default_those_at_which_90_and_95_percent_have_passed():
    split = temporal(np.array([100]), np.arange(100) * 10)
    assert (split.notes["validation_from"], split.notes["test_from"]) == (900, 950)
    assert split.train_length.tolist() == [90]


def test_a_period_in_which_nothing_happens_has_no_targets():
    split = temporal(np.array([3]), np.array([1, 2, 30]), 10, 20)
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
        temporal(np.array([3]), np.array([7, 7, 7]))


def test_something_must_be_left_to_train_on():
    with pytest.raises(ValueError, match="no interaction lies before 5, the first moment of validation"):
        temporal(np.array([2]), np.array([5, 30]), 5, 20)


def test_every_split_says_what_it_leaks():
    assert set(LEAKS) == set(SPLITS)
