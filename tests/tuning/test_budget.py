"""What a budget buys: in full, on a part of the users, or nothing."""

import math
import re

import pytest
from made_searches import SMALL

from sr_transformers import FractionOfData
from sr_transformers.tuning.budget import (
    FEWEST_TARGETS,
    FULL_TRIALS,
    Plan,
    Probe,
    check_targets,
    flops_of,
    in_words,
    plan,
    probe,
)
from sr_transformers.tuning.space import recipe_of

# One training of 20 epochs takes 2 + 20 * (30 * 0.1 + 1) = 82 seconds.
PROBE = Probe(step=0.1, steps=30, validation=1.0, start=2.0, end=18.0, flops=1e6, epochs=20.0)


def test_a_training_of_the_probe_is_what_its_steps_say():
    assert PROBE.full == pytest.approx(82.0)


def test_a_long_budget_trains_in_full():
    enough = FULL_TRIALS * 82.0 + 18.0
    assert plan(enough, 1, PROBE, 500) == Plan(1.0, 500, 0.0)
    assert plan(enough - 1, 1, PROBE, 500).fraction < 1
    # Two at a time need half of the time of the trials, and all of that of the end.
    assert plan(FULL_TRIALS * 82.0 / 2 + 18.0, 2, PROBE, 500) == Plan(1.0, 500, 0.0)


def test_a_shorter_one_keeps_back_the_training_in_full():
    found = plan(200.0, 1, PROBE, 500)
    assert found.final == pytest.approx(1.15 * 82.0)
    # Six trials on this part of the users and that training fill what the end leaves.
    assert 6 * found.fraction * 82.0 + found.final + 18.0 == pytest.approx(200.0, abs=0.5)


def test_too_short_a_one_says_what_the_smallest_is_and_that_one_is_enough():
    with pytest.raises(
        ValueError, match=r"the budget of 60s is too short.*takes about 82s.*the evaluation.*18s"
    ) as error:
        plan(60.0, 1, PROBE, 500)
    minutes = int(re.search(r"smallest sensible budget is about (\d+)m", str(error.value))[1])
    assert plan(60.0 * minutes, 1, PROBE, 500).fraction > 0
    with pytest.raises(ValueError, match="too short"):
        plan(60.0 * (minutes - 1), 1, PROBE, 500)


def test_other_settings_take_time_in_proportion():
    values = {**SMALL, "num_train_epochs": 20}
    small, large = (recipe_of({**values, "hidden_size": width}, "sparse", 0) for width in (16, 64))
    known = Probe(0.1, 30, 1.0, 2.0, 18.0, flops_of(small, 1000), 20.0)
    assert known.seconds(small, 1000) == pytest.approx(82.0)
    times = flops_of(large, 1000) / flops_of(small, 1000)
    assert times > 4
    assert known.seconds(large, 1000) == pytest.approx(2 + 20 * (0.5 + 0.5 * times) * 4)
    assert known.seconds(small, 1000, fraction=0.5) == pytest.approx(2 + 20 * (1.5 + 1.0))


def test_a_sampled_softmax_costs_what_it_scores():
    whole, sampled = (recipe_of({**SMALL, "num_negatives": n}, "sparse", 0) for n in (0, 100))
    assert flops_of(whole, 1000) - flops_of(sampled, 1000) == 6 * 900 * 16


def test_a_probe_measures_and_leaves_nothing(markov_prepared, tmp_path):
    recipe = recipe_of(SMALL, "sparse", 0)
    found = probe(recipe, markov_prepared, 200, tmp_path / "probe")
    assert list(tmp_path.iterdir()) == []
    assert min(found.step, found.validation, found.start, found.end) > 0
    pairs = int((markov_prepared.train_lengths - 1).clip(0).sum())
    assert found.steps >= math.ceil(pairs / (32 * 20))  # rows of 20 places, 32 a step
    assert (found.flops, found.epochs) == (flops_of(recipe, markov_prepared.vocab_size), 2.0)
    assert found.end == pytest.approx(8 * found.validation * 300 / 200 + 8)
    assert recipe.training["eval_strategy"] == "epoch"  # the recipe stays as it was


def test_trials_and_the_final_training_rank_the_same_targets(markov_prepared):
    part = Plan(0.5, 120, 1.0)
    few, all_users = part.data(markov_prepared), part.whole(markov_prepared)
    assert few.num_train_interactions < all_users.num_train_interactions == markov_prepared.num_train_interactions
    assert (few.targets("validation") == all_users.targets("validation")).all()
    assert len(few.targets("validation")) == 120
    assert isinstance(few, FractionOfData)
    assert Plan(1.0, 300, 0.0).data(markov_prepared) is markov_prepared


def test_a_log_of_too_few_targets_is_refused(markov_prepared, prepared):
    assert check_targets(markov_prepared) == 300
    with pytest.raises(
        ValueError, match=f"has 12 validation targets.*below {FEWEST_TARGETS} chance decides.*train auto"
    ):
        check_targets(prepared)


def test_many_targets_are_a_sample(tmp_path, markov_prepared, monkeypatch):
    monkeypatch.setattr("sr_transformers.tuning.budget.MOST_TARGETS", 250)
    assert check_targets(markov_prepared) == 250


@pytest.mark.parametrize(("seconds", "words"), [(89, "89s"), (90, "2m"), (3600, "1h"), (3660, "1h1m"), (60, "60s")])
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words
