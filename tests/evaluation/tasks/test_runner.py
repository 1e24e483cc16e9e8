import json

import numpy as np
import pytest

from sr_transformers.evaluation.baselines import Markov, Popularity
from sr_transformers.evaluation.evaluator import evaluate
from sr_transformers.evaluation.tasks import ranking_pass
from sr_transformers.evaluation.tasks.runner import TASKS, Contestant, baseline_contestants, run_tasks
from sr_transformers.evaluation.tasks.task import TaskOptions

OPTIONS = TaskOptions(draws=20)


@pytest.fixture(scope="module")
def paper_log(log_of, letters):
    domains = {letter: "first" if letter < "N" else "second" for letter in letters}
    histories = {f"user {n}": (letters * 4)[n % 26 : n % 26 + 14 + n % 50] for n in range(60)}
    return log_of(histories, domains, split="paper", unseen_share=0.3)


def test_every_task_runs_where_the_log_allows_it(paper_log):
    options = TaskOptions(draws=20, cold_user_lengths=(20, 5))
    contestants = baseline_contestants(paper_log, options)
    report = run_tasks(contestants, paper_log, options=options)
    assert list(report["tasks"]) == list(TASKS)
    assert [name for name, task in report["tasks"].items() if "not_run" in task] == ["time_drift"]
    for name, task in report["tasks"].items():
        if "not_run" not in task:
            filled = [one["name"] for one in task["groups"] if one["num_users"]]
            assert len(task["results"]) == len(filled) * len(contestants), name
            assert task["seconds"] > 0
    again = json.loads(json.dumps(report, allow_nan=False))
    assert again["protocol"]["cold_user_lengths"] == [20, 5]


def test_two_runs_give_the_same_numbers(paper_log):
    tasks = ["long_tail", "robustness", "trajectory"]
    runs = [run_tasks(baseline_contestants(paper_log, OPTIONS), paper_log, tasks, OPTIONS) for _ in range(2)]
    for report in runs:
        for task in report["tasks"].values():
            task.pop("seconds", None)
    assert runs[0] == runs[1]


def test_one_pass_serves_all_cuts_of_the_test_targets(markov_prepared, monkeypatch):
    class Counting(Popularity):
        shown = 0

        def score(self, histories):
            Counting.shown += len(histories)
            return super().score(histories)

    one = Contestant("counting", [lambda: Counting(markov_prepared)])
    run_tasks([one], markov_prepared, ["overall", "long_tail", "cold_items"], OPTIONS)
    assert Counting.shown == markov_prepared.num_targets("test")
    run_tasks([one], markov_prepared, ["overall", "robustness"], OPTIONS)
    assert Counting.shown == 4 * markov_prepared.num_targets("test")


def test_overall_is_what_evaluate_says(markov_prepared):
    expected = evaluate(Markov(markov_prepared), markov_prepared)
    report = run_tasks([Contestant("markov", [lambda: Markov(markov_prepared)])], markov_prepared, ["overall"], OPTIONS)
    row = report["tasks"]["overall"]["results"][0]
    for metric in ("hr@10", "ndcg@20", "mrr"):
        assert row["metrics"][metric]["value"] == pytest.approx(expected["metrics"][metric])
    assert row["exposure"]["coverage"] == pytest.approx(expected["metrics"]["coverage@10"])
    assert report["protocol"]["filter_seen"] == expected["protocol"]["filter_seen"]


def test_checkpoints_are_opened_one_after_the_other_and_averaged(markov_prepared):
    opened = []

    def open_one(kind):
        opened.append(kind)
        return kind(markov_prepared)

    one = Contestant("two seeds", [lambda: open_one(Popularity), lambda: open_one(Markov)], {"size": 3})
    assert opened == []
    report = run_tasks([one], markov_prepared, ["overall"], OPTIONS)
    assert opened == [Popularity, Markov]
    parts = [evaluate(kind(markov_prepared), markov_prepared)["metrics"]["hr@10"] for kind in opened]
    value = report["tasks"]["overall"]["results"][0]["metrics"]["hr@10"]["value"]
    assert value == pytest.approx(np.mean(parts))
    assert report["models"] == [{"name": "two seeds", "num_checkpoints": 2, "size": 3}]


def test_outcomes_stand_in_the_order_of_the_targets(markov_prepared):
    rows = markov_prepared.targets("test")
    shuffled = rows[np.random.default_rng(0).permutation(len(rows))]
    options = TaskOptions(draws=1)
    ordered, mixed = (
        ranking_pass.ranking_pass("x", markov_prepared, part, options).run(Markov(markov_prepared))["x"]
        for part in (rows, shuffled)
    )
    back = np.argsort(mixed.users)
    assert np.array_equal(mixed.users[back], ordered.users)
    assert np.array_equal(mixed.ranks[back], ordered.ranks)
    assert np.array_equal(mixed.top[back], ordered.top)


def test_user_frequency_stands_beside_where_seen_items_stay(markov_prepared):
    names = {
        seen: [one.name for one in baseline_contestants(markov_prepared, TaskOptions(filter_seen=seen))]
        for seen in (True, False)
    }
    assert names == {True: ["popularity", "markov", "mix"], False: ["popularity", "markov", "user frequency", "mix"]}


def test_what_is_refused(markov_prepared):
    one = Contestant("one", [lambda: Popularity(markov_prepared)])
    with pytest.raises(ValueError, match="task 'lng_tail' is not known; choose from overall, long_tail"):
        run_tasks([one], markov_prepared, ["lng_tail"])
    with pytest.raises(ValueError, match="each a name of its own"):
        run_tasks([one, one], markov_prepared)
    with pytest.raises(ValueError, match="at least one"):
        run_tasks([], markov_prepared)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tail_groups": 0}, "tail_groups is 0"),
        ({"list_length": 0}, "list_length is 0"),
        ({"horizon": 0}, "horizon is 0"),
        ({"domain_history": 0}, "domain_history is 0"),
        ({"draws": 0}, "draws is 0"),
        ({"month": -1}, "month is -1"),
        ({"ks": ()}, "ks are"),
        ({"ks": (0, 10)}, "ks are"),
        ({"perturbation_rate": 1.5}, "is a probability"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"cold_item_edges": (5, 5)}, "ascending counts"),
        ({"cold_item_edges": ()}, "ascending counts"),
        ({"cold_user_lengths": (5, 10)}, "descending lengths"),
        ({"cold_user_lengths": (5, 0)}, "descending lengths"),
    ],
)
def test_options_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TaskOptions(**settings)


def test_headlines_follow_the_cut_offs():
    assert TaskOptions().headlines == ("hr@10", "ndcg@10")
    assert TaskOptions(ks=(3, 7)).headlines == ("hr@3", "ndcg@3")


def test_what_is_held_per_user_is_small(paper_log):
    options = TaskOptions(draws=1, horizon=4)
    sizes = {}
    for name, plan in TASKS.items():
        task = plan(paper_log, options)
        for one in getattr(task, "passes", ()):
            for key, outcome in one.run(Markov(paper_log)).items():
                held = [outcome.top, outcome.ranks, *outcome.values.values()]
                sizes[name, key] = sum(part.itemsize * part[0].size for part in held if part is not None)
    assert max(sizes.values()) <= 4 * (10 + 3)  # bytes: a list of ten, a rank, a loss, its popularity
