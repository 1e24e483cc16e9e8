import numpy as np
import pytest

from sr_transformers.scaling.laws.fitting import fit
from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.laws.model_selection import compare
from sr_transformers.scaling.laws.points import points_from

SIZES = np.repeat(np.logspace(3, 7, 7), 2)


def measured(name, params, noise=0.001):
    loss = LAWS[name].predict(params, {"N": SIZES})
    loss = loss * np.exp(noise * np.random.default_rng(0).standard_normal(len(SIZES)))
    return points_from({"N": SIZES, "loss": loss}, groups=[f"{n:.0f}" for n in SIZES])


@pytest.mark.slow
def test_the_form_that_made_the_points_is_ahead():
    with_floor = compare(measured("n", {"E": 5.0, "A": 30.0, "alpha": 0.4}), ["n", "power"])
    assert [one.law for one in with_floor] == ["n", "power"]
    assert with_floor[1].aicc - with_floor[0].aicc > 10
    assert with_floor[0].largest_error < with_floor[1].largest_error
    assert with_floor[0].left_out_error < with_floor[1].left_out_error
    without = compare(measured("power", {"A": 9.0, "alpha": 0.05}), ["n", "power"])
    assert without[0].law == "power"


def test_aicc_is_its_formula():
    points = measured("n", {"E": 5.0, "A": 30.0, "alpha": 0.4})
    (one,) = compare(points, ["n"])
    found = fit("n", points, starts=4)
    residuals = np.log(LAWS["n"].predict(found.params, points.columns)) - np.log(points.columns["loss"])
    expected = 2 * 4 + 2 * 14 * np.log(np.abs(residuals).mean()) + 2 * 4 * 5 / (14 - 5)
    assert one.aicc == pytest.approx(expected, rel=1e-6)


def test_a_form_that_cannot_be_fitted_says_why():
    points = measured("n", {"E": 5.0, "A": 30.0, "alpha": 0.4})
    rows = compare(points, ["n", "joint"])
    assert rows[-1].law == "joint"
    assert rows[-1].status == "refused"
    assert "needs the column D" in rows[-1].note


def test_too_few_points_have_no_aicc():
    points = measured("n", {"E": 5.0, "A": 30.0, "alpha": 0.4}).take(np.array([0, 2, 4, 6]))
    (one,) = compare(points, ["n"])
    assert np.isnan(one.aicc)
    assert "4 points are too few for AICc" in one.note
    # Without one of four sizes three are left, which three parameters fit whatever they are.
    assert np.isfinite(one.left_out_error)
    (fewer,) = compare(points.take(np.array([0, 1, 2])), ["n"])
    assert np.isnan(fewer.left_out_error)
    assert "without some groups" in fewer.note
