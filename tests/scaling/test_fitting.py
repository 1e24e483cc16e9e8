import numpy as np
import pytest
from scipy.optimize import minimize
from test_laws import PARAMS

from sr_transformers.scaling.descent import DELTA, huber, minimum
from sr_transformers.scaling.fitting import BOUND_HIT, CONVERGED, DEGENERATE, UNDER_DETERMINED, fit, random_starts
from sr_transformers.scaling.laws import LAWS
from sr_transformers.scaling.points import points_from


def grid(sizes, data, epochs=(1,)):
    n, u, e = (values.ravel() for values in np.meshgrid(sizes, data, epochs, indexing="ij"))
    return {"N": n, "D": u * e, "unique": u}


GRIDS = {
    "n": grid(np.logspace(3.5, 7, 6), [1e6]),
    "d": grid([1e5], np.logspace(4, 7, 6)),
    "power": grid(np.logspace(3.5, 7, 6), [1e6]),
    "saturating": grid(np.logspace(3.5, 7, 6), [1e6]),
    "joint": grid(np.logspace(7, 10, 5), np.logspace(9, 11.5, 4)),
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


def test_every_start_ends_at_the_same_minimum():
    points = points_on("joint", noise=0.01, seed=1)
    bound, log_loss = LAWS["joint"].bind(points.columns), np.log(points.columns["loss"])
    starts = random_starts(bound, log_loss, 20, np.random.default_rng(5))
    ends = [minimum(bound, log_loss, np.ones(len(log_loss)), start) for start in starts]
    values = np.array([value for _, value, _ in ends])
    assert values == pytest.approx(values.min(), rel=1e-6)
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


def test_no_floor_is_a_bound():
    found = fit("n", points_on("power", columns=GRIDS["n"]), starts=4)
    assert found.status == BOUND_HIT
    assert "no floor is visible" in found.reason
    assert found.params["alpha"] == pytest.approx(PARAMS["power"]["alpha"], rel=1e-2)


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


def test_points_that_cannot_be_fitted_are_refused():
    with pytest.raises(ValueError, match="one distinct value"):
        fit("n", points_from({"N": [1e4] * 5, "loss": [5.0, 5.1, 5.2, 5.3, 5.4]}))
    with pytest.raises(ValueError, match="law 'm' is not known"):
        fit("m", points_on("n"))
