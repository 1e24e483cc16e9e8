from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from sr_transformers.training.phases import ADAM, SGD, TrainingPhases


def evaluate(phases, *values):
    """Feeds validation losses; returns the control after the last."""
    control = TrainerControl()
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
    phases.on_evaluate(None, None, TrainerControl(), {"test_loss": 1.0})
    assert phases.best is None


def test_the_state_travels_through_trainer_state(tmp_path):
    phases = TrainingPhases("loss", False, patience=3, switch=True)
    evaluate(phases, 2.0, 2.1)
    phases.switched(step=5)
    state = TrainerState(stateful_callbacks=[phases], global_step=6)
    state.save_to_json(str(tmp_path / "trainer_state.json"))
    loaded = TrainerState.load_from_json(str(tmp_path / "trainer_state.json"))
    assert TrainingPhases.phase_in(loaded) == SGD
    fresh = TrainingPhases("loss", False, patience=3, switch=True)
    fresh.on_train_begin(SimpleNamespace(), loaded, TrainerControl())
    assert (fresh.phase, fresh.best, fresh.stale, fresh.switched_at) == (SGD, 2.0, 0, 5)


def test_a_run_from_the_start_is_in_its_first_phase():
    phases = TrainingPhases("loss", False, patience=3, switch=True)
    phases.switched(step=5)
    state = TrainerState(stateful_callbacks=[phases])
    assert TrainingPhases.phase_in(state) == ADAM
    phases.on_train_begin(SimpleNamespace(), state, TrainerControl())
    assert phases.phase == ADAM


@pytest.mark.parametrize("metric", ["loss", "eval_loss"])
def test_the_metric_may_be_written_with_or_without_its_prefix(metric):
    assert TrainingPhases(metric, False, 1, True).metric == "eval_loss"
