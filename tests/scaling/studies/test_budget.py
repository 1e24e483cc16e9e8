import pytest

from sr_transformers.scaling.studies.budget import _rows, _worth, choose
from sr_transformers.scaling.studies.cost import Cost
from sr_transformers.scaling.studies.study import PlannedRun, Size

SIZES = {name: Size(name, *shape) for name, shape in {"3k": (1, 16, 1), "98k": (2, 64, 2), "1.5m": (8, 128, 4)}.items()}


def run(size, seed=1, **more):
    return PlannedRun("main", SIZES[size], "users", 1.0, 1.0, seed, **more)


def costs(runs, seconds=None):
    prices = {"3k": 1.0, "98k": 5.0, "1.5m": 60.0}
    return {one.name: Cost(10**6, 1.0, 1.0, prices[one.size.name], 1) for one in runs}


def test_without_a_budget_everything_is_done_cheap_information_first():
    runs = [run("1.5m"), run("98k"), run("3k"), run("3k", 2)]
    order = choose(runs, costs(runs), None)
    assert sorted(one.name for one in order) == sorted(one.name for one in runs)
    assert order[0].size.name == "3k"
    assert order[-1].size.name == "1.5m"


def test_a_budget_is_kept():
    runs = [run(size, seed) for size in SIZES for seed in (1, 2)]
    for budget in (3.0, 12.0, 70.0):
        chosen = choose(runs, costs(runs), budget)
        assert 0 < sum(costs(runs)[one.name].seconds for one in chosen) <= budget


def test_another_size_is_worth_more_than_another_seed_at_the_same_price():
    same = {name: Cost(10**6, 1.0, 1.0, 1.0, 1) for name in ("3k-e1-s1", "3k-e1-s2", "98k-e1-s1", "1.5m-e1-s1")}
    runs = [run("3k"), run("3k", 2), run("98k"), run("1.5m")]
    assert {one.size.name for one in choose(runs, same, 3.0)} == {"3k", "98k", "1.5m"}


def test_what_must_be_done_comes_first_and_must_fit():
    runs = [run("3k"), run("1.5m", must=True)]
    assert choose(runs, costs(runs), 60.5)[0].size.name == "1.5m"
    with pytest.raises(ValueError, match=r"marked `must` take about 1\.0 minutes, the budget is 0\.8"):
        choose(runs, costs(runs), 50.0)


def test_runs_that_are_no_points_of_the_law_come_after_those_that_are():
    """Twice the epochs, say: as many targets again are no more data."""
    longer = PlannedRun("longer", SIZES["3k"], "users", 1.0, 20.0, 1, in_law=False)
    runs = [run("3k"), run("98k"), run("1.5m"), longer, run("3k", 2)]
    same = {one.name: Cost(round(10**6 * one.epochs), 1.0, 1.0, 1.0, 1) for one in runs}
    assert longer not in choose(runs, same, 4.0, finished=())[:3]
    plain = PlannedRun("main", SIZES["3k"], "users", 1.0, 20.0, 1)
    same[plain.name] = same[longer.name]
    worth = [_worth({}, one, _rows([one], same)[one.name]) for one in (run("3k"), plain)]
    assert worth[0] == worth[1]


def test_finished_runs_are_not_done_again_and_count_as_information():
    runs = [run("3k"), run("3k", 2), run("98k")]
    same = {one.name: Cost(10**6, 1.0, 1.0, 1.0, 1) for one in runs}
    assert [one.name for one in choose(runs, same, 1.0, finished=[runs[0]])] == ["98k-e1-s1"]
