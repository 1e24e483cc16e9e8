import numpy as np
import pytest
from made_studies import record

from sr_transformers.scaling.studies.analysis import StudyRun
from sr_transformers.scaling.studies.curve_figures import compute_figure, curve_of, envelope, learning_curves_figure

pytest.importorskip("matplotlib", reason="figures need the extra `figures`")
pytestmark = pytest.mark.usefixtures("drawn")


def run(size, losses, seed=1):
    history = [{"step": 25 * (place + 1), "eval_loss": loss} for place, loss in enumerate(losses)]
    return StudyRun(f"{size}-s{seed}", {"seed": seed}, record(size, epochs=4.0, seed=seed, history=history))


RUNS = [run("98k", [6.0, 5.6, 5.4, 5.3]), run("3k", [6.2, 5.9, 5.8, 5.75]), run("3k", [9.0, 9.0, 9.0, 9.0], seed=2)]


def test_a_curve_is_in_epochs_and_flops():
    curve = curve_of(RUNS[1])
    whole = RUNS[1].record.training_flops + RUNS[1].record.head_flops
    assert curve[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert curve[:, 1] == pytest.approx(whole * np.array([0.25, 0.5, 0.75, 1.0]))
    assert curve[:, 2].tolist() == [6.2, 5.9, 5.8, 5.75]
    assert curve_of(run("3k", [])).shape == (0, 3)


def test_the_envelope_is_the_best_so_far_over_all_runs():
    small, large = np.array([[1, 1e3, 5.0], [2, 2e3, 4.0]]), np.array([[1, 1.5e3, 4.5], [2, 3e3, 4.2], [3, 9e3, 3.0]])
    assert envelope([small, large]).tolist() == [[1e3, 5.0], [1.5e3, 4.5], [2e3, 4.0], [9e3, 3.0]]


@pytest.mark.parametrize("figure", [learning_curves_figure, compute_figure])
def test_every_size_is_drawn_once_by_its_first_seed(figure):
    lines = [line for line in figure(RUNS, "t").axes[0].get_lines() if line.get_label().startswith("N = ")]
    assert [line.get_label() for line in lines] == ["N = 3.07k", "N = 98.3k"]
    assert lines[0].get_ydata().tolist() == [6.2, 5.9, 5.8, 5.75]
    assert lines[0].get_linestyle(), lines[0].get_marker() != (lines[1].get_linestyle(), lines[1].get_marker())
