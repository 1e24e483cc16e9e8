import math
from pathlib import Path

import pytest

from sr_transformers.data.prepared import PreparedData
from sr_transformers.scaling.studies import advice_study as module
from sr_transformers.scaling.studies import advise as advise_module
from sr_transformers.scaling.studies.advice_study import FRACTIONS, advice_study, largest_part
from sr_transformers.scaling.studies.cost import Cost, Speed
from sr_transformers.scaling.studies.runner import run_study


def test_the_recipe_is_the_one_that_suits_the_log_or_the_one_given(markov_prepared, tmp_path):
    """The users of markov_prepared come back to items: regimes/repeats, of two layers of 64 and 10 epochs."""
    study = advice_study(markov_prepared)
    assert "mix" in study.recipe.model["history"]
    assert study.recipe.training["optimizer"] == "muon"
    assert study.recipe.training["decay_epochs"] == 4
    assert study.tuning.epochs == {"14k": round(10 * (64**2 / 24**2) ** 0.1), "187k": 9.0}
    (tmp_path / "r.yaml").write_text(
        "model: {num_hidden_layers: 2, hidden_size: 24}\n"
        "training: {max_grad_norm: 0.5, weight_decay: 0.5, num_train_epochs: 40}\n"
    )
    given = advice_study(markov_prepared, recipe=tmp_path / "r.yaml")
    assert (given.recipe.training["weight_decay"], given.recipe.training["decay_epochs"]) == (0.0, 16)
    assert given.recipe.training["max_grad_norm"] == 0.5
    assert given.tuning.epochs["14k"] == 40.0
    assert advice_study(markov_prepared, 7, tmp_path / "r.yaml").tuning.epochs["14k"] == 7.0


def test_a_law_of_size_has_intervals_and_dropout_is_tuned_or_no_answer_would_be_possible(markov_prepared):
    study = advice_study(markov_prepared, epochs=2)
    must = [run for run in study.runs if run.must and run.fraction == 1.0]
    assert len({run.size.name for run in must}) >= 5
    assert len(study.tuning.dropouts) > 2
    assert all(run.own_epochs and run.in_law for run in study.runs)


def test_smaller_parts_of_the_users_train_longer_and_are_left_out_where_few_remain(markov_prepared, monkeypatch):
    users = int((markov_prepared.train_lengths > 0).sum())
    monkeypatch.setattr(module, "_FEWEST_USERS", users * 0.1)
    study = advice_study(markov_prepared, epochs=10)
    epochs = {run.fraction: run.epochs for run in study.runs if run.size.name == "55k"}
    assert epochs[1.0] == round(10 * (64**2 / 48**2) ** 0.1)
    assert epochs[0.1] == round(epochs[1.0] * 0.1**-0.2)
    part = advice_study(markov_prepared, epochs=10, fraction=0.3)  # the largest part longer too
    assert part.tuning.epochs["14k"] == round(10 * (64**2 / 24**2) ** 0.1 * 0.3**-0.2)
    assert {run.epochs for run in part.runs if run.size.name == "55k" and run.fraction == 0.3} == {
        float(round(10 * (64**2 / 48**2) ** 0.1 * 0.3**-0.2))
    }
    assert study.tuning.part.fraction == pytest.approx(0.1)
    monkeypatch.setattr(module, "_FEWEST_USERS", users + 1)
    few = advice_study(markov_prepared, epochs=10)
    assert ({run.fraction for run in few.runs}, few.tuning.part) == ({1.0}, None)


def test_the_budget_says_on_how_many_users(markov_prepared, tmp_path, monkeypatch):
    """Every run costs 100 seconds on all users, and in proportion on fewer."""
    monkeypatch.setattr(module, "_FEWEST_USERS", 1)
    monkeypatch.setattr(module, "calibrate", lambda *_: Speed((1.0, 1.0, 1.0), {}, 10))
    monkeypatch.setattr(module, "estimate", lambda run, *_: Cost(0, 0, 0, 100.0 * run.fraction, 0))
    whole = advice_study(markov_prepared)
    needed = 100.0 * (2 * len(module.least_runs(whole, tmp_path)) + sum(run.must for run in whole.runs))
    parts = [largest_part(markov_prepared, tmp_path, 1.2 * needed * share) for share in (1.0, 0.3, 1e-6)]
    assert parts == [1.0, 0.3, FRACTIONS[-1]]
    monkeypatch.setattr(module, "_FEWEST_USERS", int((markov_prepared.train_lengths > 0).sum()) * 0.2)
    assert largest_part(markov_prepared, tmp_path, 1e-6) == 0.3  # fewer users say nothing
    # Trials wait for each other: sixteen jobs are not sixteen times as fast.
    assert largest_part(markov_prepared, tmp_path, 1.2 * needed / 16, jobs=16) < 1.0
    assert largest_part(markov_prepared, tmp_path, 1.2 * needed / 2, jobs=16) == 1.0


def test_a_study_in_which_something_was_trained_keeps_its_part_of_the_users(markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "calibrate", lambda *_: Speed((1e-9, 1e-9, 1e-9, 1e-9), {}, 10))
    output = tmp_path / "out"
    for trained in (False, True):
        study = advice_study(markov_prepared, fraction=0.3)
        run_study(study, output, markov_prepared, dry_run=True, say=lambda line: None)
        if trained:
            (output / "tuning" / "x").mkdir(parents=True)
            (output / "tuning" / "x" / "settings.json").write_text("{}")
        assert largest_part(markov_prepared, output, math.inf) == (0.3 if trained else 1.0)


@pytest.mark.parametrize("content", ["", "name: other\nblocks: {}\n", "[1, 2]"])
def test_a_folder_with_another_study_is_refused(markov_prepared, tmp_path, content):
    (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(FileExistsError, match=r"study\.yaml is no study of `advise`; choose another output folder"):
        largest_part(markov_prepared, tmp_path, math.inf)


def test_the_same_log_is_the_same_study_however_it_is_spelled(markov_prepared, monkeypatch):
    here = advice_study(markov_prepared).source
    monkeypatch.chdir(markov_prepared.path.parent)
    assert advice_study(PreparedData(Path(markov_prepared.path.name))).source == here


@pytest.mark.parametrize("epochs", [0.0, -1.0, math.nan, math.inf])
def test_epochs_must_be_a_number_above_0(markov_prepared, epochs):
    with pytest.raises(ValueError, match=r"epochs is .*; it must be a number above 0"):
        advice_study(markov_prepared, epochs)


def test_all_cores_are_used_unless_told_otherwise(markov_prepared, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(advise_module, "run_study", lambda *_, jobs: asked.append(jobs))
    monkeypatch.setattr(advise_module, "largest_part", lambda *arguments: asked.append(arguments[3]) or 1.0)
    monkeypatch.setattr(advise_module, "threads_of", lambda jobs: 6)
    monkeypatch.setattr(advise_module, "analyse", lambda *_: (_ for _ in ()).throw(InterruptedError))
    free = iter([64 << 30, 7 << 30])
    monkeypatch.setattr(advise_module, "free_memory", lambda: next(free))
    for jobs in (None, 2, None):
        with pytest.raises(InterruptedError):
            advise_module.advise(markov_prepared, tmp_path, 1.0, jobs=jobs)
    assert asked == [6, 6, 2, 2, 3, 3]
