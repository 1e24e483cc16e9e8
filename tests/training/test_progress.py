import sys
from types import SimpleNamespace

import pytest

from sr_transformers import Recipe, train
from sr_transformers.training import progress as module
from sr_transformers.training.progress import TrainingLines, TrainingProgress

VALIDATION = {"eval_loss": 5.25, "eval_hr@10": 0.3, "eval_ndcg@10": 0.17, "eval_mrr": 0.1, "epoch": 2.0}
LINE = "epoch  2.00  validation: loss 5.2500, hr@10 0.3000, ndcg@10 0.1700; best ndcg@10 so far 0.1800 in epoch 1.00"


class Bar:
    """Stands in for tqdm and remembers."""

    def __init__(self):
        self.lines, self.postfix = [], None

    def write(self, text):
        self.lines.append(text)

    def set_postfix_str(self, text):
        self.postfix = text


def arguments(level=20):
    return SimpleNamespace(metric_for_best_model="ndcg@10", greater_is_better=True, get_process_log_level=lambda: level)


def state(step=30, main_process=True):
    history = [{"loss": 6.0, "epoch": 0.5}, {"eval_ndcg@10": 0.18, "epoch": 1.0}, VALIDATION]
    return SimpleNamespace(
        is_world_process_zero=main_process, epoch=2.0, global_step=step, max_steps=100, log_history=history
    )


def log(entry, main_process=True):
    progress = TrainingProgress()
    progress.training_bar = Bar()
    progress.on_log(arguments(), state(main_process=main_process), None, entry)
    return progress.training_bar


def test_a_validation_is_one_short_line():
    assert log(VALIDATION).lines == [LINE]


def test_the_best_loss_is_the_smallest():
    args = SimpleNamespace(metric_for_best_model="eval_loss", greater_is_better=False)
    history = [{"eval_loss": 5.5, "epoch": 1.0}, {"eval_loss": 5.3, "epoch": 2.0}, {"eval_loss": 5.4, "epoch": 3.0}]
    assert module._best(args, history) == "best loss so far 5.3000 in epoch 2.00"


def test_the_training_loss_stands_beside_the_bar():
    assert log({"loss": 4.2}).postfix == "loss 4.200"


def test_the_switch_is_told():
    assert log({"switched_to_sgd_at": 30.0}).lines == ["validation stopped improving: SGD from step 30 on"]


def test_other_processes_are_silent():
    bar = log({"loss": 4.2, **VALIDATION}, main_process=False)
    assert (bar.lines, bar.postfix) == ([], None)


def test_lines_say_where_training_stands(monkeypatch, capsys):
    now = iter([0.0, 10.0, 40.0, 50.0])  # the start of a resumed run, and the ends of three steps
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    lines = TrainingLines(targets_per_step=2000)
    lines.on_train_begin(arguments(), state(20), None)
    lines.on_log(arguments(), state(), None, {"loss": 4.25})
    for step in (25, 40, 45):  # too early, in time, too early again
        lines.on_step_end(arguments(), state(step), None)
    lines.on_log(arguments(), state(), None, VALIDATION)
    assert capsys.readouterr().err.splitlines() == [
        "epoch  2.00  step 40 of 100: loss 4.250, 1,000 targets/s, at most 2 min left",
        LINE,
    ]


@pytest.mark.parametrize("quiet", [{"level": 40}, {"main_process": False}])
def test_lines_can_be_silenced(quiet, monkeypatch, capsys):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    lines = TrainingLines(1.0)
    args, where = arguments(quiet.get("level", 20)), state(main_process=quiet.get("main_process", True))
    lines.on_train_begin(args, state(0), None)
    lines.on_step_end(args, where, None)
    lines.on_log(args, where, None, VALIDATION)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("terminal", "disable"), [(True, False), (True, True), (False, False)])
def test_a_terminal_gets_a_bar_and_anything_else_lines(
    terminal, disable, markov_prepared, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(module, "SECONDS", 0.0)
    model = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8}
    recipe = Recipe("tiny", model, {"max_steps": 3, "disable_tqdm": disable, "precision": "fp32"})
    train(recipe, markov_prepared, tmp_path / "run", with_baselines=False)
    said = capsys.readouterr()
    said = said.err + said.out
    assert ("step 2 of 3" in said) is (not terminal or disable)
    assert "validation: loss" in said
