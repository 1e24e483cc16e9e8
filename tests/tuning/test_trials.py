"""A trial is a training that is watched: pruned, cut by the time, failed, stopped and gone on with."""

import dataclasses
import time

import optuna
import pytest

from sr_transformers import PreparedData, train
from sr_transformers.training.trainer import LSRMTrainer
from sr_transformers.tuning import storage, trials
from sr_transformers.tuning.budget import Plan, Probe
from sr_transformers.tuning.space import recipe_of, suggest
from sr_transformers.tuning.trials import OF_SEARCH, Stopped, run_trial, work


def nothing():
    pass


def run_one(terms, tick=nothing, **values):
    """The first trial of a search, told how it ended."""
    study = storage.open_search(terms.folder, 0)
    trial = study.ask()
    counts = PreparedData(terms.data).manifest["counts"]
    recipe = recipe_of({**suggest(trial, counts, terms.fixed), **OF_SEARCH, **values}, terms.kind, terms.seed)
    trial.set_user_attr("expected", 1.0)
    run_trial(study, trial, recipe, terms.plan.data(PreparedData(terms.data)), terms, tick)
    return study.get_trials()[trial.number]


def test_a_trial_is_the_training_of_its_recipe_and_leaves_the_test_targets_alone(terms, tmp_path, monkeypatch):
    looked = []
    plain = LSRMTrainer.rank
    monkeypatch.setattr(LSRMTrainer, "rank", lambda self, data, *a: looked.append(data.split) or plain(self, data, *a))
    told = run_one(terms(), learning_rate=3e-3)
    assert set(looked) == {"validation"}
    monkeypatch.undo()
    settings = told.user_attrs["recipe"]
    record = train(recipe_of({**settings["model"], **settings["training"]}, "sparse", 0), terms().data, tmp_path / "x")
    assert told.value == record.validation["ndcg@10"]
    values = [entry["eval_ndcg@10"] for entry in record.history if "eval_ndcg@10" in entry]
    assert told.intermediate_values == dict(enumerate(values, 1))
    assert (told.user_attrs["ended"], told.user_attrs["epochs"]) == (storage.FULL, 2.0)
    assert [epoch for epoch, _ in told.user_attrs["losses"]] == [1.0, 2.0]


def test_a_trial_ends_at_its_plateau(terms):
    told = run_one(terms(num_train_epochs=9), learning_rate=1e-9, warmup_steps=0, patience=1)
    assert (told.user_attrs["ended"], told.user_attrs["epochs"]) == (storage.PLATEAU, 2.0)


def test_a_trial_is_pruned_when_optuna_says_so(terms, monkeypatch):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: True)
    told = run_one(terms(num_train_epochs=9))
    assert told.state == storage.State.PRUNED
    assert (told.user_attrs["ended"], list(told.intermediate_values)) == (storage.PRUNED, [1])


def test_worse_trials_are_pruned_by_the_median(tmp_path):
    study = storage.open_search(tmp_path, 0)
    for value in (0.5, 0.6, 0.7):
        trial = study.ask()
        for epoch in range(1, 6):
            trial.report(value, epoch)
        study.tell(trial, value)
    for value, pruned in ((0.55, True), (0.65, False)):
        trial = study.ask()
        said = []
        for epoch in range(1, 6):
            trial.report(value, epoch)
            said.append(trial.should_prune())
        assert any(said) == pruned
        assert not any(said[:2])  # what is slow to begin with has a chance
        study.tell(trial, state=storage.State.PRUNED)


def test_the_time_ends_a_trial_after_a_validation(terms):
    told = run_one(terms(seconds=0.0, num_train_epochs=9))
    assert told.state == storage.State.COMPLETE
    assert told.user_attrs["ended"] == storage.TIME
    assert 0 < told.user_attrs["epochs"] < 1  # one step
    assert list(told.intermediate_values.values()) == [told.value]


def test_a_setting_that_cannot_be_trained_fails_and_says_why(terms):
    told = run_one(terms(), num_negatives=10_000)
    assert (told.state, told.user_attrs["ended"]) == (storage.State.FAIL, storage.FAILED)
    assert "num_negatives is 10000" in told.user_attrs["error"]


def test_a_trial_that_was_stopped_goes_on_from_its_checkpoint_and_comes_out_the_same(terms, monkeypatch):
    told, steps, before, after = terms(num_train_epochs=3), [], [], []

    def stop():
        before.append(1)
        if len(before) == 8:
            raise Stopped("now")

    elsewhere = dataclasses.replace(told, folder=told.folder / "whole")
    elsewhere.folder.mkdir()
    whole = run_one(elsewhere, lambda: steps.append(1))
    with pytest.raises(Stopped):
        run_one(told, stop)
    assert storage.go_on(storage.open_search(told.folder, 0), told.folder) == ["0000"]
    now = time.time()
    monkeypatch.setattr(trials.time, "time", lambda: now)  # so that what counts is the training, its first part too
    again = run_one(told, lambda: after.append(1))
    assert again.user_attrs["seconds"] > 0
    assert (len(steps), len(after)) == (15, 10)  # five an epoch; the first epoch was saved
    assert (again.params, again.value) == (whole.params, whole.value)
    assert again.intermediate_values == whole.intermediate_values


def test_a_worker_tries_until_the_time_is_up_and_keeps_the_best(terms, monkeypatch):
    told = terms(seconds=600)
    study = storage.open_search(told.folder, 0)
    storage.begin_with(study, {name: {"learning_rate": rate} for name, rate in (("a", 3e-4), ("b", 1e-2), ("c", 1e-3))})
    over = []
    monkeypatch.setattr(trials, "_time_for_one", lambda terms, study: len(over) < 3)
    work(told, 0, nothing, lambda: over.append([one.user_attrs["name"] for one in storage.ended(study)]))
    assert over == [["a"], ["a", "b"], ["a", "b", "c"]]
    best = storage.best(study)
    assert best.user_attrs["name"] == "b"
    assert [path.name for path in (told.folder / storage.TRIALS).iterdir()] == ["0001"]


def test_on_a_part_of_the_users_no_training_is_kept(terms, monkeypatch):
    told = terms(seconds=600, plan=Plan(0.5, 100, 5.0))
    over = []
    monkeypatch.setattr(trials, "_time_for_one", lambda terms, study: not over)
    work(told, 0, nothing, lambda: over.append(1))
    assert list((told.folder / storage.TRIALS).iterdir()) == []


def test_what_would_take_too_long_is_not_begun(terms, monkeypatch):
    slow = dataclasses.replace(terms(seconds=60), probe=Probe(10.0, 10, 1.0, 0.1, 0.5, 1e4, 2.0))
    study = storage.open_search(slow.folder, 0)
    monkeypatch.setattr(trials, "_DRAWS", 3)
    monkeypatch.setattr(trials, "_slowness", lambda study: 1.0)  # the probe is right
    work(slow, 0, nothing)
    ends = [one.user_attrs["ended"] for one in storage.ended(study)]
    assert ends == [storage.FULL, *[storage.TOO_LONG] * 3]  # the first one is always tried
    assert {one.state for one in storage.ended(study)[1:]} == {storage.State.PRUNED}


def test_a_trial_that_has_begun_goes_on_though_it_would_be_too_long_to_begin(terms, monkeypatch):
    slow = dataclasses.replace(terms(seconds=60), probe=Probe(10.0, 10, 1.0, 0.1, 0.5, 1e4, 2.0))
    study = storage.open_search(slow.folder, 0)
    monkeypatch.setattr(trials, "_slowness", lambda study: 1.0)
    recipe = recipe_of({}, slow.kind, slow.seed)
    done = study.ask()
    done.set_user_attr("ended", storage.FULL)
    study.tell(done, 0.1)
    trial = study.ask()
    assert not trials._fits(recipe, 100, trial, study, slow)
    monkeypatch.setattr(trials, "last_complete_checkpoint", lambda folder: folder / "checkpoint-5")
    assert trials._fits(recipe, 100, trial, study, slow)


def test_a_search_in_which_everything_fails_says_what_failed(terms):
    broken = terms(num_negatives=10_000)
    with pytest.raises(ValueError, match="the first 3 trials all failed, the last one with: num_negatives is 10000"):
        work(broken, 0, nothing)


def told_of(study, seconds, value=0.5, ended=storage.FULL, expected=1.0):
    trial = study.ask()
    for name, one in {"ended": ended, "seconds": seconds, "expected": expected}.items():
        trial.set_user_attr(name, one)
    study.tell(trial, value)


def test_time_is_kept_back_for_the_end_and_for_a_training_in_full(terms):
    told = terms(seconds=100)
    study = storage.open_search(told.folder, 0)
    assert told.left(study) == pytest.approx(99.5, abs=1)
    part = dataclasses.replace(told, plan=Plan(0.25, 300, 20.0))
    assert part.left(study) == pytest.approx(79.5, abs=1)  # as the probe foretold
    told_of(study, seconds=10.0)
    assert part.left(study) == pytest.approx(99.5 - 1.15 * 40.0, abs=1)  # as its trial measured
    assert told.left(study) == pytest.approx(99.5, abs=1)


def test_no_trial_is_begun_without_time_for_a_third_of_a_usual_one(terms):
    told = terms(seconds=100)
    study = storage.open_search(told.folder, 0)
    assert trials._time_for_one(told, study)
    for _ in range(3):
        told_of(study, seconds=40.0)
    assert trials._time_for_one(dataclasses.replace(told, until=time.time() + 14.0), study)
    assert not trials._time_for_one(dataclasses.replace(told, until=time.time() + 11.0), study)


def test_a_slow_machine_is_noticed(terms):
    study = storage.open_search(terms().folder, 0)
    assert trials._slowness(study) == 1.0
    for seconds, ended in ((4.0, storage.FULL), (2.0, storage.FULL), (9.0, storage.PLATEAU), (3.0, storage.FULL)):
        told_of(study, seconds, ended=ended)
    assert trials._slowness(study) == 3.0
