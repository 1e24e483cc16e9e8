import dataclasses
import math
from types import SimpleNamespace

import pytest

from sr_transformers.scaling.studies.learning_rates import (
    Tuned,
    best_rate,
    descend,
    dropout_for,
    rate_for,
    rate_law,
    tune,
    walk,
)
from sr_transformers.scaling.studies.study import Tuning


def test_the_bottom_of_the_parabola_is_found():
    rates = [1e-3, 3e-3, 1e-2, 3e-2]
    losses = [(math.log(rate) - math.log(5e-3)) ** 2 + 6.0 for rate in rates]
    assert best_rate(rates, losses) == (pytest.approx(5e-3), 0)


def test_a_best_rate_at_the_end_is_said_to_be_one():
    assert best_rate([1e-2, 1e-3], [6.0, 5.0]) == (1e-3, -1)
    assert best_rate([1e-3, 1e-2], [6.0, 5.0]) == (1e-2, 1)


def test_a_walk_tries_no_more_than_it_needs():
    asked = []

    def losses(rungs):
        asked.append(rungs)
        return [abs(math.log2(rung) - 3) for rung in rungs]

    assert walk([1, 2, 4, 8, 16, 32], 4, losses) == {2: 2.0, 4: 1.0, 8: 0.0, 16: 1.0}
    assert asked == [[2, 4, 8], [16]]


def test_a_walk_ends_at_the_end_of_the_ladder_and_leaves_diverged_runs():
    assert walk([1, 2, 3], 2, lambda rungs: [float(rung) for rung in rungs]) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert walk([1, 2, 3, 4], 3, lambda rungs: [math.nan if rung > 2 else 5.0 for rung in rungs])[1] == 5.0


def test_dropout_follows_a_line_in_log_size_within_what_was_tried():
    found = {1e4: 0.0, 1e5: 0.1, 1e6: 0.2}
    assert dropout_for(math.sqrt(10) * 1e4, found, 0.3) == 0.05
    assert dropout_for(1e3, found, 0.3) == 0.0
    assert dropout_for(1e8, found, 0.3) == 0.3
    assert dropout_for(1e8, {1e4: 0.1}, 0.3) == 0.1


def test_sizes_get_both_rates_or_the_learning_rate_alone():
    assert Tuned({1e4: 4e-3}, {1e4: 0.1}, most_dropout=0.2).rates_for(1e6) == (pytest.approx(4e-3), 0.1)
    assert Tuned({1e4: 4e-3}).rates_for(1e6) == (pytest.approx(4e-3), None)


def test_beyond_a_diverged_run_there_is_nothing_to_find():
    assert best_rate([1e-3, 1e-2, 1e-1], [5.5, 5.0, math.nan]) == (1e-2, 0)
    assert best_rate([1e-3, 1e-2, 1e-1], [5.0, 5.5, math.nan]) == (1e-3, -1)
    with pytest.raises(ValueError, match=r"no run of the learning rates \[0.1, 1.0\] has a finite loss"):
        best_rate([0.1, 1.0], [math.nan, math.inf])


def test_rates_follow_a_power_law_of_size():
    found = {n: 2.0 * n**-0.4 for n in (3e3, 3e4, 3e5)}
    assert rate_law(found)[1] == pytest.approx(-0.4)
    assert rate_for(1e7, found) == pytest.approx(2.0 * 1e7**-0.4, rel=1e-2)


def test_larger_sizes_never_get_larger_rates():
    assert rate_law({1e4: 1e-3, 1e6: 1e-2})[1] == 0.0
    assert rate_for(1e8, {1e4: 4e-3}) == pytest.approx(4e-3)


def ladders(rates, dropouts):
    return Tuning(["s"], rates, dropouts, of="users", fraction=1.0, epochs={"s": 1.0}, seed=0)


def test_rates_are_walked_again_when_the_dropout_has_changed():
    """The valley is askew: the best rate at the first dropout is not the best one at the best dropout."""
    plan = ladders([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], [0.0, 0.1, 0.2])
    asked = []

    def losses(pairs):
        asked.extend(pairs)
        return [0.05 * abs(math.log2(rate) - (4 - 10 * dropout)) + dropout for rate, dropout in pairs]

    tried, dropout = descend(plan, 4.0, 0.1, losses)
    assert dropout == 0.0
    assert min(tried, key=tried.get) == 16.0
    assert set(tried) >= {8.0, 16.0, 32.0}
    assert (8.0, 0.1) in asked


def test_without_dropouts_rates_alone_are_walked():
    plan = ladders([1.0, 2.0, 4.0], [])
    tried, dropout = descend(plan, 2.0, None, lambda pairs: [rate for rate, _ in pairs])
    assert dropout is None
    assert list(tried) == [1.0, 2.0, 4.0]


def test_a_size_begins_where_the_study_says(tmp_path):
    plan = dataclasses.replace(ladders([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], [0.0, 0.1, 0.2]), start={"s": (16.0, 0.2)})
    asked = []

    class Study:
        name, tuning, sizes = "one", plan, {"s": SimpleNamespace(num_non_embedding_parameters=1000)}

        def tuning_run(self, size, rate, dropout):
            return SimpleNamespace(name=f"{rate}-{dropout}", pair=(rate, dropout))

    class Workers:
        study = Study()

        def train(self, runs):
            for run, _ in runs:
                asked.append(run.pair)
                rate, dropout = run.pair
                loss = abs(math.log2(rate) - 4) + abs(dropout - 0.2)
                yield run, SimpleNamespace(validation={"loss": loss}), 0.0

    found = tune(Workers(), tmp_path, lambda line: None)
    assert asked[0] == (8.0, 0.2)
    assert set(asked) == {(8.0, 0.2), (16.0, 0.2), (32.0, 0.2), (16.0, 0.1)}
    assert (found.rates, found.dropouts) == ({1000.0: pytest.approx(16.0)}, {1000.0: 0.2})
