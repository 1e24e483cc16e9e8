import dataclasses

import numpy as np
import pytest

from sr_transformers.data.past_inputs import Past
from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID
from sr_transformers.evaluation import ranking
from sr_transformers.evaluation.tasks import robustness
from sr_transformers.evaluation.tasks.robustness import perturb
from sr_transformers.evaluation.tasks.runner import Contestant, run_tasks

LONG = np.arange(2, 100_002, dtype=np.int32)
TIMES = 3 * np.arange(len(LONG))
PAST = Past(LONG, TIMES)


def test_nothing_happens_at_rate_0():
    for padded in (True, False):
        assert np.array_equal(perturb(0, PAST, 0.0, len(LONG) + 2, 0, padded).items, LONG)


def test_half_of_the_hit_items_are_replaced_and_half_deleted():
    padded = perturb(0, PAST, 0.3, len(LONG) + 2, 0, padded=True).items
    deleted = padded == PAD_ID
    replaced = (padded != LONG) & ~deleted
    assert deleted.mean() == pytest.approx(0.15, abs=0.005)
    assert replaced.mean() == pytest.approx(0.15, abs=0.005)
    strangers = padded[replaced]
    assert strangers.min() >= NUM_SPECIAL
    assert strangers.mean() == pytest.approx(LONG.mean(), rel=0.02)  # uniform over the vocabulary
    assert padded.dtype == np.int32


def test_both_ways_to_delete_hit_the_same_items():
    padded = perturb(3, PAST, 0.3, len(LONG) + 2, 1, padded=True)
    left = padded.items != PAD_ID
    deleted = perturb(3, PAST, 0.3, len(LONG) + 2, 1, padded=False)
    assert np.array_equal(deleted.items, padded.items[left])
    assert np.array_equal(padded.times, TIMES)
    assert np.array_equal(deleted.times, TIMES[left])  # what stays keeps its moment


def test_users_and_seeds_differ():
    def items(user, seed):
        return perturb(user, PAST, 0.3, 200, seed, padded=True).items

    first = items(0, 0)
    assert np.array_equal(first, items(0, 0))
    assert not np.array_equal(first, items(1, 0))
    assert not np.array_equal(first, items(0, 1))


def test_every_model_reads_the_same_whatever_the_batch(markov_prepared, successor, options, monkeypatch):
    scorers = [successor(markov_prepared, [f"{n}" for n in range(30)]) for _ in range(2)]
    passes = robustness.plan(markov_prepared, options).passes
    for scorer, held in zip(scorers, (1 << 24, 32 * 7), strict=True):
        monkeypatch.setattr(ranking, "_SCORES", held)
        for one in passes:
            one.run(scorer)
    assert scorers[0].shown == scorers[1].shown


def test_degradation_by_hand(log_of, lookup, options, means_of):
    # Everything is hit. After B comes A for sure; after anything else, or nothing, B is as likely as A.
    log = log_of({f"user {n}": "BABABABA"[: 4 + 2 * (n % 3)] for n in range(60)})
    certain = {"A": 1.0, "B": 1e-9}
    scorer = lookup(log, {"": {"A": 0.5, "B": 0.5}, "B": certain})
    options = dataclasses.replace(options, perturbation_rate=1.0, filter_seen=False)
    report = run_tasks([Contestant("lookup", [lambda: scorer])], log, ["robustness"], options)
    means = means_of(report, "robustness", "hr@1")
    vocabulary = log.tokenizer.get_vocab()
    expected = {}
    for padded, name in ((False, "deleted"), (True, "padded")):
        shown = [
            perturb(user, Past(log.items(user, position)), 1.0, log.vocab_size, 0, padded).items
            for user, position in log.targets("test").tolist()
        ]
        expected[name] = np.mean([len(one) > 0 and one[-1] == vocabulary["B"] for one in shown])
    assert means == pytest.approx({"clean": 1.0, **expected})
    assert 0 < expected["padded"] < expected["deleted"] < 1
    changes = {
        row["group"]: row["relative_change"]["hr@1"]["value"]
        for row in report["tasks"]["robustness"]["results"]
        if "relative_change" in row
    }
    assert changes == pytest.approx({name: share - 1 for name, share in expected.items()})
