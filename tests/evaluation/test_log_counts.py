import numpy as np
import polars as pl
import pytest

from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation import log_counts
from sr_transformers.evaluation.log_counts import RecentCounts, last_items, popularity, transition_counts

A, B, C = 2, 3, 4


def log_of(histories, path):
    rows = [(user, item, time) for user, items in enumerate(histories) for time, item in items]
    return prepare(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), path / "data")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Trained on: A B A C and A B, at the times 0, 1, 2, 3 and 10, 11; two interactions more of each are held out."""
    first = list(enumerate("ABACCC"))
    return log_of([first, [(10 + n, item) for n, item in enumerate("ABCC")]], tmp_path_factory.mktemp("counts"))


def test_transitions_by_lag(log):
    one, two, three = (counts.toarray() for counts in transition_counts(log, 3))
    wanted = np.zeros((3, 5, 5))
    wanted[0, A, B], wanted[0, B, A], wanted[0, A, C] = 2, 1, 1
    wanted[1, A, A], wanted[1, B, C] = 1, 1
    wanted[2, A, C] = 1
    assert np.array_equal(np.stack([one, two, three]), wanted)


def test_blocks_add_up(markov_prepared, monkeypatch):
    whole = transition_counts(markov_prepared, 2)
    recent = RecentCounts(markov_prepared)
    monkeypatch.setattr(log_counts, "_BLOCK", 50)
    for one, other in zip(whole, transition_counts(markov_prepared, 2), strict=True):
        assert np.array_equal(one.toarray(), other.toarray())
    assert np.array_equal(recent._before, RecentCounts(markov_prepared)._before)


def test_popularity_is_the_share_and_nothing_is_impossible(log, monkeypatch):
    assert popularity(log) == pytest.approx([0, 0, 3 / 6, 2 / 6, 1 / 6])
    monkeypatch.setitem(log.__dict__, "item_counts", np.array([0, 0, 3, 2, 0]))
    assert popularity(log) == pytest.approx([0, 0, 3 / 6, 2 / 6, 1 / 6])


def test_recent_counts_are_of_the_stretches_that_had_ended(log):
    recent = RecentCounts(log)
    assert recent.stretches == 6  # an interaction each
    assert recent.ended(np.array([-1, 0, 2, 9, 10, 99])).tolist() == [0, 1, 3, 4, 5, 6]
    ended = recent.ended(np.array([-1, 2, 10]))
    assert recent.table(ended, 2)[:, A:].tolist() == [[0, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert recent.table(ended, 6)[:, A:].tolist() == [[0, 0, 0], [2, 1, 0], [3, 1, 1]]
    for window in (1, 2, 6):
        table = recent.table(ended, window)
        assert recent.totals(ended, window).tolist() == table.sum(1).tolist()
        assert recent.at(ended, window, np.array([A, B, C])).tolist() == table[[0, 1, 2], [A, B, C]].tolist()


def test_nothing_later_than_a_moment_is_counted(markov_prepared):
    """Whatever the moment, counts of all that had ended are at most the interactions until then, and near them."""
    recent, data = RecentCounts(markov_prepared), markov_prepared
    times = np.concatenate([data.timestamps(user, int(n)) for user, n in enumerate(data.train_lengths.tolist())])
    for moment in np.quantile(times, [0.1, 0.5, 0.9]):
        counted = int(recent.totals(recent.ended(np.array([moment])), recent.stretches)[0])
        until = int((times <= moment).sum())
        assert until - 2 * len(times) / recent.stretches - (times == moment).sum() <= counted <= until


def test_a_large_vocabulary_has_fewer_stretches(tmp_path, monkeypatch):
    log = log_of([[(n, item) for n, item in enumerate("ABC" * 40)]], tmp_path)
    assert RecentCounts(log).stretches == 118  # an interaction each
    monkeypatch.setattr(log_counts, "_TABLE", 5 * 20)
    assert RecentCounts(log).stretches == 20


def test_last_items():
    histories = [np.array([5, 6]), np.array([7]), np.zeros(0, np.int32)]
    assert last_items(histories, 1).tolist() == [6, 7, 0]
    assert last_items(histories, 2).tolist() == [5, 0, 0]
