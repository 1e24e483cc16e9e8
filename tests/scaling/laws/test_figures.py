import numpy as np
import pytest

from sr_transformers.scaling.laws import figures
from sr_transformers.scaling.laws.bootstrap import bootstrap
from sr_transformers.scaling.laws.fitting import fit
from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.laws.points import points_from
from sr_transformers.scaling.laws.prediction import hold_out_largest

pytest.importorskip("matplotlib", reason="figures need the extra `figures`")
pytestmark = pytest.mark.usefixtures("drawn")
TRUTH = {"E": 4.5, "A": 6.0, "alpha": 0.25}


@pytest.fixture(scope="module")
def points():
    n = np.repeat(np.logspace(3.5, 7, 7), 2)
    loss = LAWS["n"].predict(TRUTH, {"N": n}) * np.exp(0.002 * np.random.default_rng(0).standard_normal(len(n)))
    return points_from({"N": n, "loss": loss})


def drawn(axes, label):
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return line.get_xydata()


def test_the_points_and_the_curve_are_what_is_drawn(points):
    fitted = fit("n", points, starts=2)
    axes = figures.law_figure(points, fitted, bootstrap(fitted, points, 20), "t").axes[0]
    measured = drawn(axes, "measured")
    assert measured[:, 0].tolist() == points.columns["N"].tolist()
    assert measured[:, 1].tolist() == points.columns["loss"].tolist()
    curve = drawn(axes, f"L = {fitted.params['E']:.3g} + {fitted.params['A']:.3g} / N^{fitted.params['alpha']:.3g}")
    assert curve[:, 1] == pytest.approx(LAWS["n"].predict(fitted.params, {"N": curve[:, 0]}))
    assert axes.get_xlabel() == "N, parameters in the blocks"
    assert len(axes.collections) == 1  # the interval


def test_what_the_fit_did_not_see_is_hollow(points):
    held = hold_out_largest(points, "n", draws=20)
    axes = figures.law_figure(points, held.fitted, held.refits, "t", held).axes[0]
    (hollow,) = [line for line in axes.get_lines() if line.get_label() == "measured, held out"]
    assert hollow.get_markerfacecolor() == "white"
    assert len(hollow.get_xydata()) == 4
    assert len(drawn(axes, "measured, fitted to")) == 10


def test_no_interval_draws_no_band(points):
    few = points.take(np.array([0, 4, 8, 12]))
    fitted = fit("n", few, starts=2)
    axes = figures.law_figure(few, fitted, bootstrap(fitted, few, 20), "t").axes[0]
    assert len(axes.collections) == 0


def test_a_fit_that_is_no_law_says_so():
    rng = np.random.default_rng(0)
    columns = {"N": np.logspace(3.5, 7, 8), "D": np.logspace(5, 7, 8), "loss": 6 + 0.01 * rng.standard_normal(8)}
    flat = points_from(columns)
    fitted = fit("n", flat, starts=2)
    assert fitted.status == "degenerate"
    axes = figures.law_figure(flat, fitted, bootstrap(fitted, flat, 5), "t").axes[0]
    (line,) = [line for line in axes.get_lines() if line.get_label() == "no law (degenerate)"]
    assert line.get_linestyle() == "--"
    joint = fit("joint", flat, starts=2)
    axes = figures.joint_figure(flat, joint, "t").axes[0]
    assert axes.get_title().split("\n")[1].startswith("lines: no law (")


def test_series_differ_in_colour_and_marker():
    sizes = np.logspace(3, 6, 9)
    columns = {"N": np.repeat(sizes, 2), "D": np.tile([1e5, 1e6], 9), "loss": np.tile([7.0, 6.0], 9)}
    points = points_from(columns)
    axes = figures.data_figure(points, fit("joint", points, starts=2), "t").axes[0]
    series = {(line.get_color(), line.get_marker()) for line in axes.get_lines() if line.get_marker() != "None"}
    assert len(series) == 9


@pytest.mark.parametrize(("value", "text"), [(98_304, "98.3k"), (1.57e6, "1.57m"), (2e9, "2b"), (12, "12")])
def test_numbers_are_short(value, text):
    assert figures.short(value) == text


def test_shapes_of_one_size_are_one_series():
    rows = [{"layers": 8, "width": 32, "n": 98304, "loss": 6.0}, {"layers": 1, "width": 90, "n": 97200, "loss": 6.1}]
    axes = figures.shape_figure(rows, "t").axes[0]
    (line,) = axes.get_lines()
    assert line.get_xydata().tolist() == [[4.0, 6.0], [90.0, 6.1]]


def test_repetition_is_drawn_against_epochs():
    columns = {"N": [1e5] * 3, "D": [1e5, 3e5, 1e6], "unique": [1e5] * 3, "loss": [6.5, 6.2, 6.0]}
    axes = figures.repetition_figure(points_from(columns), "t").axes[0]
    assert drawn(axes, "N = 100k").tolist() == [[1.0, 6.5], [3.0, 6.2], [10.0, 6.0]]
