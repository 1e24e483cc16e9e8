from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from sr_transformers.training.phases import ADAM, SGD, TrainingPhases


def evaluate(phases, *values):
    """Feeds validation losses while training; returns the control after the last."""
    control = TrainerControl()
    phases.active = True
    for value in values:
        phases.on_evaluate(None, None, control, {"eval_loss": value})
    return control


def test_patience_counts_evaluations_without_improvement():
    phases = TrainingPhases("loss", False, patience=2, switch=True)
    evaluate(phases, 3.0, 2.0, 2.1, 1.9, 1.95)
    assert (phases.best, phases.stale, phases.wants_switch) == (1.9, 1, False)
    evaluate(phases, 1.9)  # equal is no improvement
    assert phases.wants_switch


def test_larger_can_be_better():
    phases = TrainingPhases("eval_ndcg@10", True, patience=1, switch=False)
    phases.active = True
    control = TrainerControl()
    for value in (0.1, 0.2):
        phases.on_evaluate(None, None, control, {"eval_ndcg@10": value})
    assert not control.should_training_stop
    phases.on_evaluate(None, None, control, {"eval_ndcg@10": 0.15})
    assert control.should_training_stop


def test_the_second_plateau_stops_training():
    phases = TrainingPhases("loss", False, patience=1, switch=True)
    assert not evaluate(phases, 2.0, 2.1).should_training_stop
    phases.switched(step=7)
    assert (phases.phase, phases.switched_at, phases.stale) == (SGD, 7, 0)
    assert not evaluate(phases, 1.9).should_training_stop
    assert evaluate(phases, 2.0).should_training_stop


def test_without_a_switch_the_first_plateau_stops_training():
    phases = TrainingPhases("loss", False, patience=1, switch=False)
    assert evaluate(phases, 2.0, 2.1).should_training_stop
    assert not phases.wants_switch


def test_other_evaluations_are_no_business_of_the_phases():
    phases = TrainingPhases("loss", False, patience=1, switch=True)
    phases.on_evaluate(None, None, TrainerControl(), {"eval_loss": 1.0})  # outside training
    phases.active = True
    phases.on_evaluate(None, None, TrainerControl(), {"test_loss": 1.0})
    assert phases.best is None


def saved(phases, path, step):
    """The TrainerState of a checkpoint, written and read."""
    TrainerState(stateful_callbacks=[phases], global_step=step).save_to_json(str(path))
    return TrainerState.load_from_json(str(path))


def test_the_state_travels_through_trainer_state(tmp_path):
    phases = TrainingPhases("loss", False, patience=3, switch=True)
    evaluate(phases, 2.0, 2.1)
    phases.switched(step=5)
    state = saved(phases, tmp_path / "state.json", step=6)
    fresh = TrainingPhases("loss", False, patience=3, switch=True)
    control = TrainerControl()
    fresh.on_train_begin(SimpleNamespace(), state, control)
    assert (fresh.phase, fresh.best, fresh.stale, fresh.switched_at) == (SGD, 2.0, 0, 5)
    assert not control.should_training_stop


def test_time_goes_on_where_the_checkpoint_was_saved(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("sr_transformers.training.phases.time.perf_counter", lambda: now)
    phases = TrainingPhases("loss", False, patience=3, switch=False)
    now = 107.0
    state = saved(phases, tmp_path / "state.json", step=6)
    now = 5000.0
    fresh = TrainingPhases("loss", False, patience=3, switch=False)
    fresh.restore(state)
    now = 5002.0
    assert fresh.seconds == 7.0 + 2.0
    again = TrainingPhases("loss", False, patience=3, switch=False)
    again.restore(saved(fresh, tmp_path / "state.json", step=8))
    assert again.seconds == 9.0
    fresh.on_train_begin(SimpleNamespace(), TrainerState(stateful_callbacks=[fresh]), TrainerControl())
    assert fresh.seconds == 0.0  # from the start: another run


def test_a_run_that_was_over_stays_over(tmp_path):
    phases = TrainingPhases("loss", False, patience=2, switch=False)
    assert evaluate(phases, 2.0, 2.1, 2.2).should_training_stop
    control = TrainerControl()
    phases.on_train_begin(SimpleNamespace(), saved(phases, tmp_path / "state.json", step=9), control)
    assert control.should_training_stop


def test_a_run_from_the_start_is_in_its_first_phase():
    phases = TrainingPhases("loss", False, patience=3, switch=True)
    phases.switched(step=5)
    phases.on_train_begin(SimpleNamespace(), TrainerState(stateful_callbacks=[phases]), TrainerControl())
    assert phases.phase == ADAM


@pytest.mark.parametrize("metric", ["loss", "eval_loss"])
def test_the_metric_may_be_written_with_or_without_its_prefix(metric):
    assert TrainingPhases(metric, False, 1, True).metric == "eval_loss"
