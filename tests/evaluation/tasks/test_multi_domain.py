import dataclasses

import pytest

from sr_transformers.evaluation.tasks import multi_domain
from sr_transformers.evaluation.tasks.runner import Contestant, run_tasks
from sr_transformers.evaluation.tasks.task import NotRun

# A B are food, C D are home, z is home and nobody trained on it.
DOMAINS = {"A": "food", "B": "food", "C": "home", "D": "home", "z": "home"}
HISTORIES = {
    "anna": "CDABA",  # the last two before the target: A B; food: mix
    "ben": "CABAC",  # B A; home: diff
    "cleo": "ABCAD",  # C A; home: mix
    "dan": "ADCDzD",  # D z, of which z cannot be read: C D; home: mix
    "eve": "BCDAzC",  # A z: D A; home: mix
    "finn": "DABzC",  # B z: A B; home: diff
}


@pytest.fixture(scope="module")
def log(log_of):
    return log_of(HISTORIES, DOMAINS)


@pytest.fixture
def options(options):
    return dataclasses.replace(options, domain_history=2)


def test_groups_by_hand(log, options):
    groups = {one.name: one.rows.tolist() for one in multi_domain.plan(log, options).groups}
    assert groups == {
        "mix": [0, 2, 3, 4],
        "diff": [1, 5],
        "mix, food": [0],
        "diff, food": [],
        "mix, home": [2, 3, 4],
        "diff, home": [1, 5],
    }


def test_metrics_by_hand_and_the_history_that_is_shown(log, lookup, options, means_of):
    scorer = lookup(log, {"": {"C": 0.6, "A": 0.2, "D": 0.1, "B": 0.1}})
    report = run_tasks([Contestant("lookup", [lambda: scorer])], log, ["multi_domain"], options)
    # Ranks of mix: A 2, D 4 (ties with B, which stands above), D 4, C 1; of diff: C 1, C 1.
    assert means_of(report, "multi_domain", "hr@2")["mix"] == pytest.approx(2 / 4)
    assert means_of(report, "multi_domain", "mrr")["mix"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 4 + 1) / 4)
    assert means_of(report, "multi_domain", "mrr")["diff"] == 1
    assert report["tasks"]["multi_domain"]["facts"] == {"domains": ["food", "home"]}
    assert {len(shown) for shown in scorer.shown} == {2}
    vocabulary = log.tokenizer.get_vocab()
    assert [vocabulary["D"], vocabulary["A"]] in scorer.shown


def test_a_longer_history_holds_more_domains(log, options):
    groups = multi_domain.plan(log, dataclasses.replace(options, domain_history=50)).groups
    assert [len(one.rows) for one in groups[:2]] == [6, 0]


def test_many_domains_are_not_shown_one_by_one(log_of, letters, options):
    log = log_of({"anna": "ABCDEFG", "ben": "GFEDCBA"}, {letter: letter.lower() for letter in letters})
    assert [one.name for one in multi_domain.plan(log, options).groups] == ["mix", "diff"]


def test_why_it_is_not_run(log_of, prepared, options):
    found = multi_domain.plan(prepared, options)
    assert isinstance(found, NotRun)
    assert "no domains" in found.reason
    found = multi_domain.plan(log_of({"anna": "ABAB"}, {"A": "food", "B": "food"}), options)
    assert isinstance(found, NotRun)
    assert "one domain only (food)" in found.reason
