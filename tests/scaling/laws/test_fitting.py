import numpy as np
import pytest
from scipy.optimize import minimize
from test_forms import PARAMS

from sr_transformers.scaling.laws import fitting
from sr_transformers.scaling.laws.constraints import ConstrainedLaw, Constraints
from sr_transformers.scaling.laws.descent import DELTA, huber, minimum
from sr_transformers.scaling.laws.fitting import (
    BOUND_HIT,
    CONVERGED,
    DEGENERATE,
    NOT_CONVERGED,
    UNDER_DETERMINED,
    fit,
    grid_starts,
    random_starts,
)
from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.laws.points import points_from


def grid(sizes, data, epochs=(1,)):
    n, u, e = (values.ravel() for values in np.meshgrid(sizes, data, epochs, indexing="ij"))
    return {"N": n, "D": u * e, "unique": u}


GRIDS = {
    "n": grid(np.logspace(3.5, 7, 6), [1e6]),
    "d": grid([1e5], np.logspace(4, 7, 6)),
    "power": grid(np.logspace(3.5, 7, 6), [1e6]),
    "saturating": grid(np.logspace(3.5, 7, 6), [1e6]),
    "joint": grid(np.logspace(7, 10, 5), np.logspace(9, 11.5, 4)),
    "kaplan": grid(np.logspace(6, 9, 5), np.logspace(8, 11, 5)),
    "repeated": grid(np.logspace(6, 9, 5), np.logspace(8, 10, 3), (1, 3, 10, 40)),
}


def points_on(name, noise=0.0, seed=0, params=None, columns=None):
    columns = columns or GRIDS[name]
    values = LAWS[name].predict(params or PARAMS[name], columns)
    values = values * np.exp(noise * np.random.default_rng(seed).standard_normal(len(values)))
    return points_from({**columns, "metric" if name == "saturating" else "loss": values})


@pytest.mark.parametrize("name", LAWS)
def test_points_without_noise_give_the_law_back(name):
    found = fit(name, points_on(name), starts=6)
    assert found.status == CONVERGED
    assert found.params == pytest.approx(PARAMS[name], rel=1e-6)
    assert found.objective < 1e-20
    assert 1 <= found.starts_agreeing <= found.starts == 9


def test_the_minimum_is_the_one_of_another_optimizer():
    """Nelder-Mead on the formula as it stands in papers: no logarithms, no centring, no gradient."""
    points = points_on("n", noise=0.002, seed=3)
    log_n, log_loss = np.log(points.columns["N"]), np.log(points.columns["loss"])

    def plain(x):
        return huber(np.log(x[0] + np.exp(x[1] - x[2] * log_n)) - log_loss, DELTA).sum()

    start = [PARAMS["n"]["E"], np.log(PARAMS["n"]["A"]), PARAMS["n"]["alpha"]]
    options = {"xatol": 1e-12, "fatol": 1e-18, "maxiter": 20000, "maxfev": 20000}
    other = minimize(plain, start, method="Nelder-Mead", options=options)
    found = fit("n", points, starts=6)
    assert found.objective == pytest.approx(other.fun, rel=1e-6)
    assert found.objective <= other.fun * (1 + 1e-9)


def test_starts_end_at_the_same_minimum():
    """Nearly all: how a CPU rounds decides whether one of these starts slides to where a term has vanished."""
    points = points_on("joint", noise=0.01, seed=1)
    bound, log_loss = LAWS["joint"].bind(points.columns), np.log(points.columns["loss"])
    starts = random_starts(bound, log_loss, 20, np.random.default_rng(5))
    ends = [minimum(bound, log_loss, np.ones(len(log_loss)), start) for start in starts]
    values = np.array([value for _, value, _ in ends])
    assert np.isclose(values, values.min(), rtol=1e-6, atol=0).sum() >= len(starts) - 2
    assert all(settled for _, _, settled in ends)


def straight_line(seed):
    """Eight sizes, three runs each, whose loss is a straight line in log N: floor and exponent are all but free."""
    n = np.repeat(np.logspace(3.5, 6.5, 8), 3)
    noise = np.exp(0.004 * np.random.default_rng(seed).standard_normal(len(n)))
    return points_from({"N": n, "loss": (6.8 - 0.02 * np.log(n)) * noise})


def test_the_bottom_of_a_flat_valley_does_not_depend_on_the_start():
    points = straight_line(1)
    bound, log_loss = LAWS["n"].bind(points.columns), np.log(points.columns["loss"])
    starts = random_starts(bound, log_loss, 20, np.random.default_rng(5))
    floors = [np.exp(minimum(bound, log_loss, np.ones(len(log_loss)), start)[0][0]) for start in starts]
    assert floors == pytest.approx([6.1000873] * 20, rel=1e-6)


def test_a_floor_on_its_way_to_nothing_ends_on_its_bound():
    found = fit("n", straight_line(4), starts=6)
    assert found.status == BOUND_HIT
    assert found.reason == "E at its bound: no floor is visible in these points."
    assert found.starts_agreeing == found.starts


def test_repeated_data_need_several_amounts_of_distinct_data():
    columns = grid(np.logspace(6, 9, 5), [1e8], (1, 2, 5, 10, 40))
    found = fit("repeated", points_on("repeated", 0.001, columns=columns), starts=2)
    assert found.status == UNDER_DETERMINED
    assert "unique has one distinct value (1e+08)" in found.reason


def test_outliers_hardly_move_it():
    clean = points_on("joint", noise=0.001)
    loss = clean.columns["loss"].copy()
    loss[7] *= 1.5
    found = fit("joint", points_from({**clean.columns, "loss": loss}), starts=4)
    assert found.params["alpha"] == pytest.approx(PARAMS["joint"]["alpha"], rel=0.05)


def test_as_many_points_as_parameters_are_under_determined():
    columns = {name: values[:3] for name, values in GRIDS["n"].items()}
    found = fit("n", points_on("n", columns=columns), starts=2)
    assert found.status == UNDER_DETERMINED
    assert "3 distinct points for 3 parameters" in found.reason
    copies = {name: np.tile(values, 4) for name, values in columns.items()}
    assert fit("n", points_on("n", columns=copies), starts=2).status == UNDER_DETERMINED


def test_two_sizes_are_under_determined_however_often_they_are_measured():
    columns = grid([1e4, 1e6], [1e6] * 5)
    found = fit("n", points_on("n", 0.01, columns=columns), starts=2)
    assert found.status == UNDER_DETERMINED
    assert "N has 2 distinct values" in found.reason
    assert fit("n", points_on("n", columns=grid([1e4, 1e5, 1e6], [1e6] * 2)), starts=2).status == UNDER_DETERMINED
    three = fit("n", points_on("n", 0.001, columns=grid([1e4, 1e5, 1e6], [1e6] * 2)), starts=2)
    assert three.status == CONVERGED


def test_no_floor_is_a_bound():
    found = fit("n", points_on("power", columns=GRIDS["n"]), starts=4)
    assert found.status == BOUND_HIT
    assert "no floor is visible" in found.reason
    assert found.params["alpha"] == pytest.approx(PARAMS["power"]["alpha"], rel=1e-2)


@pytest.mark.parametrize(("share", "status"), [(0.9e-4, DEGENERATE), (1.1e-4, CONVERGED)])
def test_a_power_below_a_ten_thousandth_of_the_loss_has_vanished(share, status):
    """Largest at the smallest size, where A / N^alpha is this share of E."""
    params = {"E": 5.0, "A": share * 5 * 1e4**0.5, "alpha": 0.5}
    found = fit("n", points_on("n", params=params, columns={"N": np.logspace(4, 7, 7)}), starts=2)
    assert found.status == status
    if status == DEGENERATE:
        assert found.reason == "the loss does not fall with N: the term A vanished."


def test_the_second_power_and_a_metric_vanish_too():
    params = {**PARAMS["joint"], "B": 1e-4}
    found = fit("joint", points_on("joint", params=params), starts=2)
    assert found.reason == "the loss does not fall with D: the term B vanished."
    params = {"M_inf": 0.4, "A": 1e-5, "alpha": 0.3}
    found = fit("saturating", points_on("saturating", params=params), starts=2)
    assert found.reason == "the metric does not rise with N: the term A vanished."


@pytest.mark.parametrize(("share", "status"), [(0.9e-4, BOUND_HIT), (1.1e-4, CONVERGED)])
def test_a_floor_below_a_ten_thousandth_of_the_loss_is_not_seen(share, status):
    """Its share is largest at the largest size."""
    params = {"E": share * 9 * 1e7**-0.05, "A": 9.0, "alpha": 0.05}
    found = fit("n", points_on("n", params=params, columns={"N": np.logspace(4, 7, 7)}), starts=2)
    assert found.status == status
    if status == BOUND_HIT:
        assert found.reason == "E at its bound: no floor is visible in these points."


@pytest.mark.parametrize(("exponent", "bound", "end"), [(8.0, "upper", 5.0), (0.0005, "lower", 0.001)])
def test_an_exponent_beyond_what_laws_have_ends_on_its_bound(exponent, bound, end):
    n = np.logspace(4, 4.5, 7)
    bare = fit("power", points_from({"N": n, "loss": 3 * (1e4 / n) ** exponent}), starts=2)
    assert (bare.status, bare.reason) == (BOUND_HIT, f"alpha at its {bound} bound.")
    assert bare.params["alpha"] == pytest.approx(end)
    floored = fit("n", points_from({"N": n, "loss": 3 + (1e4 / n) ** exponent}), starts=2)
    assert (floored.status, floored.reason) == (BOUND_HIT, f"alpha at its {bound} bound.")


def test_every_bound_that_was_hit_is_named():
    n = np.logspace(4, 4.5, 7)
    found = fit("n", points_from({"N": n, "loss": 3 * (1e4 / n) ** 8}), starts=2)
    assert found.reason == "E at its bound: no floor is visible in these points; alpha at its upper bound."


@pytest.mark.parametrize(("half", "status"), [(0.017, DEGENERATE), (0.034, CONVERGED)])
def test_parameters_are_told_apart_up_to_a_condition_of_a_million(half, status):
    """Sizes within a few per cent hardly bend: the condition of the derivatives by log E, log A and alpha, each of
    length 1, grows with the square of their closeness."""
    n = 1e6 * np.exp(np.linspace(-half, half, 8))
    found = fit("n", points_on("n", columns={"N": n}), starts=0)
    power = found.params["A"] / n ** found.params["alpha"]
    loss = found.params["E"] + power
    slopes = np.stack([found.params["E"] / loss, power / loss, -power / loss * np.log(n / 1e6)])
    condition = np.linalg.cond((slopes / np.linalg.norm(slopes, axis=1)[:, None]).T)
    assert found.status == status
    if status == DEGENERATE:
        assert 1e6 < condition < 3e6
        assert found.reason == (
            f"the parameters cannot be told apart (condition {condition:.1e}): alpha is too small for these points "
            "to bend."
        )
    else:
        assert 3e5 < condition < 1e6


def test_a_slope_that_is_left_is_said(monkeypatch):
    def stopped(*arguments):
        theta, value, _ = minimum(*arguments)
        return theta, value, False

    monkeypatch.setattr(fitting, "minimum", stopped)
    found = fit("power", points_on("power", 0.01), starts=2)
    assert found.status == NOT_CONVERGED
    assert found.reason == "the gradient does not vanish at the best point found; try more starts."
    assert not found.usable


def test_what_a_fit_says_of_itself():
    points = points_on("power", noise=0.01, seed=3)
    log_n, log_loss = np.log(points.columns["N"]), np.log(points.columns["loss"])
    found = fit("power", points, starts=4)
    assert (found.law, found.num_points, found.num_parameters, found.starts) == ("power", 6, 2, 7)
    assert found.starts_agreeing == 7
    assert found.reason == "the gradient vanishes and every parameter is visible in the points."
    residuals = np.log(found.params["A"]) - found.params["alpha"] * log_n - log_loss
    assert found.log_rmse == pytest.approx(np.sqrt((residuals**2).mean()))
    size = np.abs(residuals)
    assert found.objective == pytest.approx(np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)).sum())
    bound = LAWS["power"].bind(points.columns)
    assert bound.decode(found.theta) == found.params


def test_starts_that_end_elsewhere_do_not_agree(monkeypatch):
    """Starts that end at 1.0000005 times the best objective agree with it, those at 1.000002 times do not."""
    points = points_on("power", noise=0.01, seed=3)
    ends = iter([1.0, 1 + 5e-7, 1 + 2e-6, 7.0, 1.0])
    theta = LAWS["power"].bind(points.columns).encode(PARAMS["power"])
    monkeypatch.setattr(fitting, "minimum", lambda *arguments: (theta, next(ends), True))
    found = fit("power", points, starts=2)
    assert (found.objective, found.starts, found.starts_agreeing) == (1.0, 5, 3)


def test_a_wide_huber_loss_is_least_squares():
    points = points_on("power", noise=0.01, seed=3)
    slope, level = np.polyfit(np.log(points.columns["N"]), np.log(points.columns["loss"]), 1)
    found = fit("power", points, starts=2, delta=1.0)
    assert found.params == pytest.approx({"A": np.exp(level), "alpha": -slope}, rel=1e-8)
    assert fit("power", points, starts=2).params != pytest.approx(found.params, rel=1e-3)


def test_a_seed_draws_the_random_starts(monkeypatch):
    tried = []

    def noted(bound, log_loss, weights, start, delta):
        tried.append(start)
        return start, 1.0, True

    monkeypatch.setattr(fitting, "minimum", noted)
    points = points_on("n")
    for law, seed in ((LAWS["n"], {"seed": 0}), ("n", {}), ("n", {"seed": 6})):
        fit(law, points, **seed)
    first, again, other = tried[:27], tried[27:54], tried[54:]
    assert len(other) == 27
    assert np.array_equal(first, again)
    assert np.array_equal(first[:3], other[:3])
    assert not np.isclose(first[3:], other[3:]).any()


def test_the_best_start_of_the_grid_is_the_law_whose_exponents_stand_in_it():
    params = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.3, "beta": 0.5}
    points = points_on("joint", params=params)
    bound, log_loss = LAWS["joint"].bind(points.columns), np.log(points.columns["loss"])
    starts = grid_starts(bound, log_loss)
    assert len(starts) == 3
    assert bound.decode(starts[0]) == pytest.approx(params, rel=1e-6)
    errors = [np.abs(bound.log_loss(start)[0] - log_loss).sum() for start in starts]
    assert errors == sorted(errors)
    assert errors[1] > 1e-4
    assert [start.tolist() for start in grid_starts(bound, log_loss, 1)] == [starts[0].tolist()]
    held = ConstrainedLaw(bound, Constraints({"alpha": 0.3}))
    assert [start.tolist() for start in grid_starts(held, log_loss, 2)] == [
        start[[0, 1, 2, 4]].tolist() for start in starts[:2]
    ]


@pytest.mark.parametrize("exponent", [0.03, 0.08, 0.15, 0.3, 0.5, 0.9, 1.5])
def test_the_grid_holds_exponents_from_shallow_to_steep(exponent):
    points = points_on("n", params={"E": 2.0, "A": 3 * 1e5**exponent, "alpha": exponent})
    bound = LAWS["n"].bind(points.columns)
    best = grid_starts(bound, np.log(points.columns["loss"]))[0]
    assert bound.decode(best)["alpha"] == pytest.approx(exponent)
    assert bound.decode(best)["E"] == pytest.approx(2.0)


def test_a_term_that_would_be_negative_starts_just_above_nothing():
    """A loss that rises with N: no power falls like that, so the grid leaves all to the floor."""
    n = np.logspace(4, 7, 7)
    points = points_from({"N": n, "loss": 4 + 0.1 * np.log10(n)})
    bound, log_loss = LAWS["n"].bind(points.columns), np.log(points.columns["loss"])
    for start in grid_starts(bound, log_loss):
        assert np.exp(start[1]) == pytest.approx(1e-4 * 4.4)
        assert np.exp(start[0]) == pytest.approx(4.55, abs=0.5)


def test_repeated_data_start_in_the_middle_of_the_grid_and_anywhere_at_random():
    points = points_on("repeated")
    bound, log_loss = LAWS["repeated"].bind(points.columns), np.log(points.columns["loss"])
    assert all(start[5:].tolist() == [2.0, 2.0] for start in grid_starts(bound, log_loss))
    starts = np.array(random_starts(bound, log_loss, 300, np.random.default_rng(0)))
    assert (starts[:, 5] == starts[:, 6]).all()
    assert 0 <= starts[:, 5].min() < 0.1
    assert 3.9 < starts[:, 5].max() <= 4


@pytest.mark.parametrize("name", ["n", "joint", "power"])
def test_random_starts_are_all_over_the_place(name):
    points = points_on(name)
    bound, log_loss = LAWS[name].bind(points.columns), np.log(points.columns["loss"])
    starts = np.array(random_starts(bound, log_loss, 1000, np.random.default_rng(0)))
    assert starts.shape == (1000, LAWS[name].num_parameters)
    terms = starts[:, : bound.first + bound.num_powers] - log_loss.mean()
    exponents = starts[:, bound.first + bound.num_powers :]
    assert (terms.min(0) >= -3).all()
    assert terms.min(0) == pytest.approx(-3, abs=0.05)
    assert terms.max(0) == pytest.approx(0, abs=0.05)
    assert (terms.max(0) <= 0).all()
    assert exponents.min(0) == pytest.approx(0.02, rel=0.05)
    assert exponents.max(0) == pytest.approx(2, rel=0.05)
    assert np.median(exponents, axis=0) == pytest.approx(0.2, rel=0.2)  # evenly in the logarithm
    correlations = np.corrcoef(starts.T)[np.triu_indices(starts.shape[1], 1)]
    assert np.abs(correlations).max() < 0.15


def test_two_sizes_suffice_where_repeats_tell_the_rest():
    columns = grid([1e6, 1e9], np.logspace(8, 10, 3), (1, 3, 10, 40))
    found = fit("repeated", points_on("repeated", columns=columns), starts=2)
    assert found.status == CONVERGED
    assert found.params == pytest.approx(PARAMS["repeated"], rel=1e-6)


def test_one_point_more_than_parameters_is_enough():
    columns = {name: values[:4] for name, values in GRIDS["n"].items()}
    assert fit("n", points_on("n", columns=columns), starts=2).status == CONVERGED


def test_a_loss_that_does_not_fall_is_degenerate():
    columns = {"N": np.logspace(3, 7, 8), "loss": np.full(8, 5.0) * (1 + 1e-4 * (-1.0) ** np.arange(8))}
    found = fit("n", points_from(columns), starts=4)
    assert found.status in (DEGENERATE, BOUND_HIT)
    assert not found.usable


def test_size_and_data_that_move_together_are_not_told_apart():
    n = np.logspace(6, 9, 12)
    columns = {"N": n, "D": 20 * n}
    params = {**PARAMS["joint"], "beta": PARAMS["joint"]["alpha"]}
    found = fit("joint", points_on("joint", 1e-3, params=params, columns=columns), starts=6)
    assert not found.usable
    clean = fit("joint", points_on("joint", params=PARAMS["joint"], columns=columns), starts=2)
    assert clean.status == DEGENERATE
    assert clean.reason.endswith("): N and D move together, or alpha and beta are too small for these points to bend.")


def test_points_that_cannot_be_fitted_are_refused():
    with pytest.raises(ValueError, match="one distinct value"):
        fit("n", points_from({"N": [1e4] * 5, "loss": [5.0, 5.1, 5.2, 5.3, 5.4]}))
    with pytest.raises(ValueError, match="law 'm' is not known"):
        fit("m", points_on("n"))


def test_what_is_fixed_needs_no_points():
    exponent = Constraints({"alpha": PARAMS["n"]["alpha"]})
    two = {name: values[[0, 0, 5, 5]] for name, values in GRIDS["n"].items()}
    assert "N has 2 distinct values" in fit("n", points_on("n", 0.001, columns=two), starts=1).reason
    found = fit("n", points_on("n", 0.001, columns=two), starts=1, constraints=exponent)
    assert (found.status, found.num_parameters, found.constraints) == (CONVERGED, 2, exponent)
    assert fit("n", points_on("n"), starts=1).constraints == Constraints()
    three = {name: values[:3] for name, values in GRIDS["n"].items()}
    assert fit("n", points_on("n", columns=three), starts=1).status == UNDER_DETERMINED
    assert fit("n", points_on("n", columns=three), starts=1, constraints=exponent).status == CONVERGED
    floor = Constraints({"E": PARAMS["n"]["E"]})
    assert "N has 2 distinct values" in fit("n", points_on("n", 0.001, columns=two), 1, constraints=floor).reason
    amounts = points_on("joint", columns=grid(np.logspace(7, 10, 5), [1e9, 1e11]))
    known = fit("joint", amounts, starts=1, constraints=Constraints({"beta": PARAMS["joint"]["beta"]}))
    assert (known.status, known.params) == (CONVERGED, pytest.approx(PARAMS["joint"], rel=1e-6))
    other = fit("joint", amounts, starts=1, constraints=Constraints({"alpha": PARAMS["joint"]["alpha"]}))
    assert other.reason == "D has 2 distinct values: no curve can be told from a line; measure a third."
    two_points = {name: values[[0, 5]] for name, values in GRIDS["power"].items()}
    one = fit("power", points_on("power", columns=two_points), 1, constraints=Constraints({"alpha": 0.05}))
    assert one.params == pytest.approx(PARAMS["power"], rel=1e-6)


def test_one_amount_of_distinct_data_will_do_where_the_power_of_data_is_known():
    columns = grid(np.logspace(6, 9, 5), [1e8], (1, 2, 5, 10, 40))
    points = points_on("repeated", columns=columns)
    truth = PARAMS["repeated"]
    both = fit("repeated", points, starts=1, constraints=Constraints({"B": truth["B"], "beta": truth["beta"]}))
    assert both.status == CONVERGED
    assert both.params == pytest.approx(truth, rel=1e-4)
    for name in ("B", "beta"):
        one = fit("repeated", points, starts=1, constraints=Constraints({name: truth[name]}))
        assert "unique has one distinct value" in one.reason


def test_a_fixed_floor_is_not_said_to_be_at_its_bound():
    points = points_on("power", columns=GRIDS["n"])
    assert "E at its bound" in fit("n", points, starts=2).reason
    held = fit("n", points, starts=2, constraints=Constraints({"E": 1e-9}))
    assert held.status == CONVERGED
    assert held.params == pytest.approx({"E": 1e-9, **PARAMS["power"]}, rel=1e-6)


def test_what_to_do_is_said_where_repeats_are_worth_more_than_the_law_allows():
    """D repeats, yet all of it is worth as much as fresh data: R_D runs to its upper bound."""
    columns = GRIDS["repeated"]
    loss = LAWS["joint"].predict(PARAMS["joint"], columns)
    points = points_from({**columns, "loss": loss})
    at_bound = ["R_D at its upper bound; R_N at its upper bound.", "R_D at its upper bound."]
    found = fit("repeated", points, starts=1)
    assert found.status == BOUND_HIT
    said, advice = found.reason.split(" Fit ", 1)
    assert said in at_bound
    assert advice == (
        "E, A, B, alpha, beta to the runs that see their data once (--law joint), then this law with --fix "
        "E=E's value A=A's value B=B's value alpha=alpha's value beta=beta's value; or fix the one at its bound."
    )
    held = fit("repeated", points, starts=1, constraints=Constraints(PARAMS["joint"]))
    assert held.reason in at_bound
    part = fit("repeated", points, 1, constraints=Constraints({"E": 1.8, "A": 480.0, "alpha": 0.35}))
    assert part.reason.split(" Fit ")[1].startswith("B, beta to the runs")
