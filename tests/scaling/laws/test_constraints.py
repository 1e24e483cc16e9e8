import numpy as np
import pytest
from test_fitting import points_on
from test_forms import PARAMS

from sr_transformers.scaling.laws.bootstrap import bootstrap
from sr_transformers.scaling.laws.constraints import ConstrainedLaw, Constraints
from sr_transformers.scaling.laws.fitting import BOUND_HIT, CONVERGED, fit
from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.laws.points import points_from

JOINT = PARAMS["joint"]


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints({"E": JOINT["E"]}),
        Constraints({"alpha": JOINT["alpha"]}),
        Constraints({"A": JOINT["A"]}),
        Constraints({"A": JOINT["A"], "alpha": JOINT["alpha"], "E": JOINT["E"]}),
        Constraints({"B": JOINT["B"], "alpha": JOINT["alpha"]}),
    ],
)
def test_what_is_true_may_be_fixed_and_the_rest_comes_out(constraints):
    found = fit("joint", points_on("joint"), starts=4, constraints=constraints)
    assert found.status == CONVERGED
    assert found.params == pytest.approx(JOINT, rel=1e-5)
    assert found.num_parameters == 5 - len(constraints.fixed)
    for name, value in constraints.fixed.items():
        assert found.params[name] == pytest.approx(value, rel=1e-12)


def test_what_is_not_true_is_kept_all_the_same_at_a_higher_objective():
    points = points_on("joint", noise=0.003, seed=1)
    free = fit("joint", points, starts=4)
    held = fit("joint", points, starts=4, constraints=Constraints({"alpha": 0.5}))
    assert held.params["alpha"] == 0.5
    assert held.objective > free.objective
    # The best of a grid of the other four by brute force is no better.
    rest = {name: held.params[name] for name in ("E", "A", "B", "beta")}
    log_loss = np.log(points.columns["loss"])
    for name in rest:
        for factor in (0.999, 1.001):
            moved = {**held.params, name: held.params[name] * factor}
            residuals = np.abs(np.log(LAWS["joint"].predict(moved, points.columns)) - log_loss)
            small = np.minimum(residuals, 1e-3)
            assert (small * (residuals - small / 2)).sum() > held.objective


def test_tied_exponents_are_equal():
    params = {**JOINT, "alpha": 0.3, "beta": 0.3}
    found = fit(
        "joint", points_on("joint", params=params), starts=4, constraints=Constraints(tied=(("alpha", "beta"),))
    )
    assert found.params == pytest.approx(params, rel=1e-5)
    assert found.num_parameters == 4
    unequal = fit("joint", points_on("joint"), starts=4, constraints=Constraints(tied=(("alpha", "beta"),)))
    assert unequal.params["alpha"] == unequal.params["beta"]


def test_repeated_data_in_two_steps():
    truth = PARAMS["repeated"]
    once = {name: truth[name] for name in ("E", "A", "B", "alpha", "beta")}
    found = fit("repeated", points_on("repeated"), starts=4, constraints=Constraints(once))
    assert found.params == pytest.approx(truth, rel=1e-4)
    assert found.num_parameters == 2
    refits = bootstrap(found, points_on("repeated", noise=0.002), draws=10)
    assert refits.params["alpha"] == pytest.approx(np.full(10, truth["alpha"]))
    assert np.ptp(refits.params["R_D"]) > 0


def test_a_free_fit_of_repeats_that_says_nothing_names_what_to_fix():
    """As with published runs: parameters beyond what the data feed lose next to nothing, so R_N has no upper end."""
    truth = {**PARAMS["repeated"], "R_N": 1e7}
    found = fit("repeated", points_on("repeated", params=truth), starts=4)
    assert found.status == BOUND_HIT
    assert "R_N at its upper bound" in found.reason
    assert "--law joint" in found.reason
    assert "--fix E=E's value" in found.reason


def test_the_jacobian_is_the_derivative():
    points = points_on("joint", noise=0.01)
    law = ConstrainedLaw(LAWS["joint"].bind(points.columns), Constraints({"A": 400.0}, (("alpha", "beta"),)))
    u = law.encode({**JOINT, "beta": JOINT["alpha"]})
    jacobian = law.log_loss(u)[1]
    for place in range(len(u)):
        step = np.zeros(len(u))
        step[place] = 1e-6
        slope = (law.log_loss(u + step)[0] - law.log_loss(u - step)[0]) / 2e-6
        assert jacobian[:, place] == pytest.approx(slope, abs=1e-8)
    assert law.decode(u)["A"] == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints({"gamma": 1.0}), "has no parameter 'gamma'; its parameters are E, A, B, alpha, beta"),
        (Constraints({"alpha": -1.0}), "alpha is fixed at -1.0"),
        (Constraints({"E": float("nan")}), "E is fixed at nan"),
        (Constraints(tied=(("alpha", "A"),)), "alpha and A cannot be tied"),
        (Constraints(tied=(("A", "B"),)), "A and B cannot be tied"),
        (Constraints(tied=(("alpha", "alpha"),)), "cannot be tied"),
        (Constraints({"alpha": 0.3}, (("alpha", "beta"),)), "are tied, so fixing one"),
        (Constraints(dict.fromkeys(JOINT, 0.5)), "nothing is left to fit"),
    ],
)
def test_what_cannot_be_kept_is_refused(constraints, message):
    with pytest.raises(ValueError, match=message):
        fit("joint", points_on("joint"), constraints=constraints)


@pytest.mark.parametrize(
    ("law", "params", "floor"),
    [
        ("n", {"E": 4.0, "A": 6.0, "alpha": 0.25}, {"E": 99.0}),
        ("saturating", {"M_inf": 0.4, "A": 2.0, "alpha": 0.25}, {"M_inf": 1e-3}),
    ],
)
def test_a_fixed_floor_that_leaves_nothing_is_refused(law, params, floor):
    """Else it would be said that the loss does not fall with N."""
    n = np.geomspace(1e4, 1e7, 6)
    column = "metric" if law == "saturating" else "loss"
    points = points_from({"N": n, column: LAWS[law].predict(params, {"N": n})})
    with pytest.raises(ValueError, match="which no point lies beyond"):
        fit(law, points, starts=1, constraints=Constraints(floor))
