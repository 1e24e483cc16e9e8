"""After a cut in time nothing knows what came later: whatever the future is changed to, training data, vocabulary,
counts and all that baselines learn stay what they were."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation.baselines import Markov, Popularity, RecentPopularity
from sr_transformers.evaluation.log_counts import RecentCounts, transition_counts
from sr_transformers.evaluation.mix import Mix

VALIDATION, TEST = 100, 200
ROW = st.tuples(st.sampled_from("abcdef"), st.sampled_from("ABCDEFGH"))


@st.composite
def periods(draw):
    """Rows of training, and two sets of rows of what came later; each user's first row is a training row."""
    past = [(user, item, time) for time, (user, item) in enumerate(draw(st.lists(ROW, min_size=12, max_size=40)))]
    futures = []
    for _ in range(2):
        validation = [(*row, VALIDATION + n) for n, row in enumerate(draw(st.lists(ROW, max_size=8)))]
        test = [(*row, TEST + n) for n, row in enumerate(draw(st.lists(ROW, min_size=1, max_size=8)))]
        # Somebody with a past comes back, or there would be no test target; a stranger brings a new item.
        futures.append([*validation, *test, (past[0][0], "Z", TEST + 50), ("stranger", "Y", VALIDATION)])
    return past, futures


def prepared(rows, folder, **options):
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare(frame, folder, split="temporal", validation_from=VALIDATION, test_from=TEST, **options)


def training(data):
    """All that training reads, by user."""
    users = data.histories.data.table["user_id"].to_pylist()
    lengths = data.train_lengths.tolist()
    return {
        user: (data.train_items(row, length).tolist(), data.train_times(row, length).tolist())
        for row, (user, length) in enumerate(zip(users, lengths, strict=True))
        if length
    }


@pytest.mark.slow
@settings(max_examples=15)
@given(rows=periods())
def test_nothing_after_the_cut_changes_anything_in_training(rows, tmp_path_factory):
    past, futures = rows
    folder = tmp_path_factory.mktemp("leak")
    one, other = (prepared([*past, *future], folder / str(n)) for n, future in enumerate(futures))
    assert one.item_ids.to_pylist() == other.item_ids.to_pylist()
    assert set(one.item_ids.to_pylist()) == {item for _, item, _ in past}
    assert one.item_counts.tolist() == other.item_counts.tolist()
    assert one.items_fingerprint == other.items_fingerprint
    assert training(one) == training(other)
    assert sum(len(items) for items, _ in training(one).values()) == len(past)
    nobody = [np.zeros(0, np.int32)]
    for kind in (Popularity, Markov):
        assert kind(one).score(nobody).tolist() == kind(other).score(nobody).tolist()
    for before, after in zip(transition_counts(one, 3), transition_counts(other, 3), strict=True):
        assert (before != after).nnz == 0
    recent = [RecentCounts(data) for data in (one, other)]
    now = np.array([TEST])
    assert recent[0].stretches == recent[1].stretches
    for window in (1, recent[0].stretches):
        tables = [counts.table(counts.ended(now), window).tolist() for counts in recent]
        assert tables[0] == tables[1]


@settings(max_examples=10)
@given(rows=periods(), test=st.lists(ROW, min_size=1, max_size=8))
def test_nothing_of_the_test_period_changes_what_validation_chose(rows, test, tmp_path_factory):
    past, (future, _) = rows
    folder = tmp_path_factory.mktemp("leak")
    kept = [row for row in future if row[2] < TEST]
    others = [(*row, TEST + n) for n, row in enumerate(test)]
    come_back = (past[0][0], "Z", TEST + 50)
    data = [prepared([*past, *rest], folder / str(n)) for n, rest in enumerate((future, [*kept, *others, come_back]))]
    for filter_seen in (False, True):
        one, other = (Mix(log, filter_seen) for log in data)
        assert one.fitted == other.fitted
    assert RecentPopularity(data[0]).fitted == RecentPopularity(data[1]).fitted


def test_targets_that_are_new_to_the_log_are_counted_and_missed(tmp_path):
    rows = [(user, item, time) for user in "ab" for time, item in enumerate("ABC")]
    rows += [("a", "V", VALIDATION), ("a", "V", TEST), ("b", "T", TEST)]
    data = prepared(rows, tmp_path / "data")
    counts = data.manifest["counts"]
    assert counts["validation_targets_outside_vocabulary"] == 1
    assert counts["test_targets_outside_vocabulary"] == counts["test_targets"] == 2  # V was seen, but not trained on


def test_a_core_knows_the_future_and_the_split_says_so(tmp_path):
    rows = [("a", item, time) for time, item in enumerate("AABB")]
    rows += [("a", "C", 5), ("a", "C", TEST), ("a", "A", TEST + 1)]
    data = prepared(rows, tmp_path / "data", min_interactions=2)
    assert "C" in data.item_ids.to_pylist()  # its second row lies in the test period
    assert "a k-core counts rows of all times" in data.manifest["leaks"]


@pytest.mark.parametrize("last", [3, 90])
def test_after_a_cut_recent_popularity_is_the_same_for_everybody(last, tmp_path):
    """Whoever was last seen long ago is ranked after the cut all the same: what is popular then counts."""
    rows = [("old", "A", 1), ("old", "B", last), ("old", "D", TEST)]
    rows += [(f"u{n}", "A", n) for n in range(40)]
    rows += [(f"v{n}", "C", 60 + n) for n in range(20)] + [(f"v{n}", "C", VALIDATION + n) for n in range(9)]
    data = prepared(rows, tmp_path / "data", time_unit="s")
    scorer = RecentPopularity(data)
    history, position = next(row for row in data.targets("test").tolist())
    scores = scorer.score([data.items(history, position)], [data.timestamps(history, position)])[0]
    names = data.tokenizer.convert_tokens_to_ids(["A", "C"])
    assert scores[names[1]] > scores[names[0]]
    assert 0 < scorer.fitted["days"] < 100 / 86_400
