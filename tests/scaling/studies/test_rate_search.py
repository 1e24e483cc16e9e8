"""The search for rates: what is tried, in which order, and what is chosen."""

import math
from types import SimpleNamespace

import pytest

from sr_transformers.scaling.studies.rate_search import descend, tune, walk
from sr_transformers.scaling.studies.tuning_section import Tuning, TuningPart


def drive(search, losses):
    """What a search finds that is told these losses."""
    asked = next(search)
    while True:
        try:
            asked = search.send(losses(asked))
        except StopIteration as end:
            return end.value


def test_a_walk_tries_no_more_than_it_needs():
    asked = []

    def losses(rungs):
        asked.append(rungs)
        return [abs(math.log2(rung) - 3) for rung in rungs]

    assert drive(walk([1, 2, 4, 8, 16, 32], 4), losses) == {2: 2.0, 4: 1.0, 8: 0.0, 16: 1.0}
    assert asked == [[2, 4, 8], [16]]


def test_a_walk_ends_at_the_end_of_the_ladder_and_leaves_diverged_runs():
    assert drive(walk([1, 2, 3], 2), lambda rungs: [float(rung) for rung in rungs]) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert drive(walk([1, 2, 3, 4], 3), lambda rungs: [math.nan if rung > 2 else 5.0 for rung in rungs])[1] == 5.0


def ladders(rates, dropouts):
    return Tuning(["s"], rates, dropouts, of="users", fraction=1.0, epochs={"s": 1.0}, seed=0)


def test_rates_are_walked_again_when_the_dropout_has_changed():
    """The valley is askew: the best rate at the first dropout is not the best one at the best dropout."""
    plan = ladders([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], [0.0, 0.1, 0.2])
    asked = []

    def losses(pairs):
        asked.extend(pairs)
        return [0.05 * abs(math.log2(rate) - (4 - 10 * dropout)) + dropout for rate, dropout in pairs]

    tried, dropout = drive(descend(plan, 4.0, 0.1), losses)
    assert dropout == 0.0
    assert min(tried, key=tried.get) == 16.0
    assert set(tried) >= {8.0, 16.0, 32.0}
    assert (8.0, 0.1) in asked


def test_without_dropouts_rates_alone_are_walked():
    plan = ladders([1.0, 2.0, 4.0], [])
    tried, dropout = drive(descend(plan, 2.0, None), lambda pairs: [rate for rate, _ in pairs])
    assert dropout is None
    assert list(tried) == [1.0, 2.0, 4.0]


class Study:
    """A study whose runs of a size have a valley at a rate and a dropout."""

    name = "one"

    def __init__(self, sizes, valleys, start, part=None, dropout_there=0.0):
        self.sizes = {size: SimpleNamespace(name=size, num_non_embedding_parameters=n) for size, n in sizes.items()}
        self.valleys = valleys
        ladder = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
        self.tuning = Tuning(list(sizes), ladder, [0.0, 0.1, 0.2, 0.3], "users", 1.0, {}, 0, start, part)
        self.dropout_there = dropout_there

    def tuning_run(self, size, rate, dropout, part=False):
        best_rate, best_dropout = self.valleys[size]
        best_dropout = self.dropout_there if part else best_dropout
        loss = math.log2(rate / best_rate) ** 2 + abs(dropout - best_dropout)
        name = f"{size}-{rate:g}-{dropout:g}" + "-part" * part
        return SimpleNamespace(name=name, size=self.sizes[size], loss=loss)


class Workers:
    """Trains as many runs at a time as there are jobs; of those under way the last ends first."""

    def __init__(self, study, jobs):
        self.study, self.jobs, self.asked, self.busy = study, jobs, [], []

    def train(self, runs):
        waiting = []
        while True:
            while len(waiting) < self.jobs and (item := next(runs, None)) is not None:
                waiting.append(item[0])
                self.asked.append(item[0].name)
            if not waiting:
                return
            self.busy.append(len(waiting))
            run = waiting.pop()
            yield run, SimpleNamespace(validation={"loss": run.loss}), 0.0


def test_a_size_begins_where_the_study_says(tmp_path):
    workers = Workers(Study({"s": 1000}, {"s": (16.0, 0.2)}, {"s": (16.0, 0.2)}), jobs=1)
    found = tune(workers, tmp_path, lambda line: None)
    assert workers.asked == ["s-8-0.2", "s-16-0.2", "s-32-0.2", "s-16-0.1", "s-16-0.3"]  # none twice
    assert (found.rates, found.dropouts) == ({1000.0: pytest.approx(16.0)}, {1000.0: 0.2})


def test_a_size_without_a_beginning_begins_where_the_smaller_ones_ended(tmp_path):
    workers = Workers(Study({"s": 1000, "m": 4000}, {"s": (16.0, 0.2), "m": (16.0, 0.2)}, {"s": (16.0, 0.2)}), jobs=3)
    tune(workers, tmp_path, lambda line: None)
    assert workers.asked[5:8] == ["m-8-0.2", "m-16-0.2", "m-32-0.2"]


def test_sizes_that_say_where_they_begin_are_searched_side_by_side(tmp_path):
    sizes = {"s": 1000, "m": 4000, "l": 16000}
    valleys = {"s": (16.0, 0.0), "m": (4.0, 0.1), "l": (2.0, 0.3)}
    start = {"s": (8.0, 0.0), "l": (4.0, 0.2)}
    said, found, asked = [], [], []
    for jobs in (1, 4):
        workers = Workers(Study(sizes, valleys, start), jobs)
        found.append(tune(workers, tmp_path, said.append))
        asked.append(set(workers.asked))
    assert found[0] == found[1]  # whichever run ends first
    assert asked[0] == asked[1]
    assert min(workers.busy[:6]) == 4  # nobody waits while there is a size to search
    assert found[0].dropouts == {1000.0: 0.0, 4000.0: 0.1, 16000.0: 0.3}
    assert found[0].at_edge == {"learning_rate": [], "dropout": ["l"]}
    assert list(found[0].rates.values()) == pytest.approx([16.0, 4.0, 2.0])
    assert "l: learning rate 2, dropout 0.3 (an end of the ladder)" in said


def test_the_dropout_is_tuned_on_a_part_of_the_data_too(tmp_path):
    said = []
    part = TuningPart("users", 0.1, {"s": 1.0, "m": 1.0}, {"m": 0.2})
    sizes, valleys = {"s": 1000, "m": 4000}, {"s": (16.0, 0.0), "m": (16.0, 0.1)}
    start = {"s": (16.0, 0.0), "m": (16.0, 0.1)}
    workers = Workers(Study(sizes, valleys, start, part, dropout_there=0.3), jobs=1)
    found = tune(workers, tmp_path, said.append)
    there = [name for name in workers.asked if name.endswith("-part")]
    assert workers.asked.index(there[0]) > workers.asked.index("s-32-0")  # at the rate that was found for the size
    assert all(name.split("-")[1] == "16" for name in there)
    assert there[:2] == ["s-16-0-part", "s-16-0.1-part"]  # on from the best of all data
    assert "m-16-0.2-part" in there
    assert (found.part, found.dropouts_of_part) == (0.1, {1000.0: 0.3, 4000.0: 0.3})
    assert found.at_edge["dropout on a part of the data"] == ["s", "m"]
    assert "s: learning rate 16, dropout 0, on 10% of the data dropout 0.3 (an end of the ladder)" in said
    assert found.describe()["dropouts_of_part"] == {"1000": 0.3, "4000": 0.3}


def test_a_part_on_which_every_run_diverges_is_named(tmp_path):
    part = TuningPart("users", 0.1, {"s": 1.0})
    study = Study({"s": 1000}, {"s": (16.0, 0.0)}, {"s": (16.0, 0.0)}, part, dropout_there=math.nan)
    with pytest.raises(ValueError, match=r"s on 0\.1 of the data: no dropout of .* has a finite loss"):
        tune(Workers(study, jobs=1), tmp_path, lambda line: None)


def late_after(count):
    """Says that it is late from the run after so many on."""
    asked = []
    return lambda: asked.append(1) or len(asked) > count


def test_a_search_that_the_budget_ends_takes_the_best_of_what_it_tried(tmp_path):
    said = []
    part = TuningPart("users", 0.1, {"s": 1.0})
    study = Study({"s": 1000}, {"s": (2.0, 0.2)}, {"s": (16.0, 0.2)}, part, dropout_there=0.3)
    workers = Workers(study, jobs=1)
    found = tune(workers, tmp_path, said.append, late_after(3))
    assert workers.asked == ["s-8-0.2", "s-16-0.2", "s-32-0.2"]
    assert (found.rates, found.dropouts, found.cut_short) == ({1000.0: 8.0}, {1000.0: 0.2}, ["s"])
    assert found.dropouts_of_part == {1000.0: 0.2}  # nothing was tried there
    assert said.count("s: the budget ends its tuning; the best of what was tried is taken.") == 1
    whole = tune(Workers(study, jobs=1), tmp_path, lambda line: None, late_after(99))
    assert whole.cut_short == []
    assert whole.rates == {1000.0: pytest.approx(2.0)}


def test_a_budget_that_ends_before_the_first_run_of_a_size_is_an_error(tmp_path):
    study = Study({"s": 1000, "m": 4000}, {"s": (16.0, 0.2), "m": (16.0, 0.2)}, {"s": (16.0, 0.2)})
    with pytest.raises(ValueError, match="the budget ended tuning before a run of m had; raise --budget"):
        tune(Workers(study, jobs=1), tmp_path, lambda line: None, late_after(5))
