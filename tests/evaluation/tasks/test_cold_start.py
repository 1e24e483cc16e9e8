import dataclasses

import pytest

from sr_transformers.evaluation.tasks import cold_start
from sr_transformers.evaluation.tasks.runner import Contestant, run_tasks
from sr_transformers.evaluation.tasks.task import NotRun


@pytest.fixture(scope="module")
def log(log_of, letters):
    """User n has the first n letters, n = 3 .. 24; about half of them are never trained on."""
    return log_of({f"user {n}": letters[:n] for n in range(3, 25)}, split="paper", unseen_share=0.5)


@pytest.fixture
def options(options):
    return dataclasses.replace(options, cold_user_lengths=(6, 4, 2))


def test_users_are_fixed_by_the_longest_length_and_shown_the_most_recent_items(log, successor, letters, options):
    scorer = successor(log, letters)
    one = cold_start._pass(log, log.unseen_users, 4, options)
    one.run(scorer)
    histories = [log.items(int(user), int(log.lengths[user])).tolist() for user in log.unseen_users]
    assert sorted(scorer.shown) == sorted([token for token in items[:-1] if token != 1][-4:] for items in histories)


def test_metrics_by_hand(log, successor, letters, options, means_of):
    scorer = successor(log, letters, needs=3)  # right if it is shown 3 items or more, else at the last rank
    report = run_tasks([Contestant("successor", [lambda: scorer])], log, ["cold_start"], options)
    lengths = log.lengths[log.unseen_users]
    task = report["tasks"]["cold_start"]
    users = {one["name"]: one["num_users"] for one in task["groups"]}
    fixed = int((lengths > 6).sum())
    assert 0 < fixed < (lengths > 4).sum() < (lengths > 2).sum()
    assert users == {
        **{f"last {n}": fixed for n in (6, 4, 2)},
        **{f"last {n}, own users": int((lengths > n).sum()) for n in (6, 4, 2)},
    }
    # The vocabulary ends where the histories that were trained on end: later letters count as missed.
    known = {letter for letter in letters if letter in log.tokenizer.get_vocab()}
    right = [letters[int(length) - 1] in known for length in lengths if length > 6]
    means = means_of(report, "cold_start", "hr@1")
    assert means["last 6"] == means["last 4"] == pytest.approx(sum(right) / fixed)
    assert means["last 2"] == 0
    assert means["last 6, own users"] == means["last 6"]
    assert task["facts"] == {"users_outside_training": len(lengths), "users_fixed": fixed}


def test_removed_items_are_the_same_at_every_length(log, lookup, letters, options):
    options = dataclasses.replace(options, filter_seen=True, list_length=30)
    user = log.unseen_users[[log.lengths[log.unseen_users].argmax()]]
    history = log.items(int(user[0]), int(log.lengths[user[0]]) - 1)
    scorer = lookup(log, {"": {letter: 1 for letter in letters if letter in log.tokenizer.get_vocab()}})
    for length in (2, 6):
        outcome = cold_start._pass(log, user, length, options).run(scorer)[f"cold_start/{length}"]
        assert not set(outcome.top[0].tolist()) & set(history.tolist())


def test_why_it_is_not_run(log, prepared, options):
    found = cold_start.plan(prepared, options)
    assert isinstance(found, NotRun)
    assert "leave_one_out trains on every user" in found.reason
    found = cold_start.plan(log, dataclasses.replace(options, cold_user_lengths=(500, 5)))
    assert isinstance(found, NotRun)
    assert "has 500 known items before the last interaction" in found.reason
