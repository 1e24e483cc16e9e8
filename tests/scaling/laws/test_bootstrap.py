import numpy as np
import pytest

from sr_transformers.scaling.laws import bootstrap as module
from sr_transformers.scaling.laws.bootstrap import bootstrap
from sr_transformers.scaling.laws.fitting import fit
from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.laws.points import points_from

TRUTH = {"E": 4.5, "A": 6.0, "alpha": 0.25}
SIZES = np.repeat(np.logspace(3.5, 7, 8), 3)


def noisy(rng, sizes=SIZES, noise=0.005):
    loss = LAWS["n"].predict(TRUTH, {"N": sizes}) * np.exp(noise * rng.standard_normal(len(sizes)))
    return points_from({"N": sizes, "loss": loss})


@pytest.fixture(scope="module")
def refits():
    points = noisy(np.random.default_rng(0))
    return bootstrap(fit("n", points, starts=4), points, draws=100)


def coverage(draws, refits):
    """Share of the draws whose 95 % interval holds the truth, by parameter; and for a new run at ten times the size."""
    rng = np.random.default_rng(7)
    held, beyond = [], []
    for _ in range(draws):
        points = noisy(rng)
        one = bootstrap(fit("n", points, starts=0), points, refits)
        # A fit that does not converge gives no interval; `fit` says so, and it covers nothing.
        held.append(
            [bounds is not None and bounds[0] <= TRUTH[k] <= bounds[1] for k, bounds in one.intervals().items()]
        )
        place = {"N": np.array([1e8])}
        low, high = one.of_new_run(place)[0]
        beyond.append(low <= LAWS["n"].predict(TRUTH, place)[0] * np.exp(0.005 * rng.standard_normal()) <= high)
    return dict(zip(TRUTH, np.mean(held, axis=0), strict=True)), float(np.mean(beyond))


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """40 draws of 50 refits; benchmarks/README.md gives the figures of many more (benchmarks/scaling_coverage.py)."""
    held, beyond = coverage(40, 50)
    assert all(share >= 0.85 for share in held.values()), held
    assert beyond >= 0.85


def test_intervals_lie_around_the_fit(refits):
    for name, (low, high) in refits.intervals().items():
        assert low < TRUTH[name] < high
    wide, narrow = refits.intervals(0.99)["alpha"], refits.intervals(0.5)["alpha"]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_new_run_scatters_more_than_the_law(refits):
    place = {"N": np.array([1e5, 1e8])}
    law, run = refits.of_law(place), refits.of_new_run(place)
    assert law.shape == (2, 2)
    assert ((run[:, 1] - run[:, 0]) > (law[:, 1] - law[:, 0])).all()
    assert law[1, 1] - law[1, 0] > 0


def test_one_seed_gives_the_same_intervals(refits):
    points = noisy(np.random.default_rng(0))
    again = bootstrap(fit("n", points, starts=4), points, draws=100)
    assert again.intervals() == refits.intervals()


def test_every_refit_weighs_every_run_and_no_two_weigh_alike():
    """Four sizes, one run each: counts of drawing with replacement come in 35 kinds, of which some lose an end; of
    exponential weights all differ."""
    n = np.logspace(4, 7, 4)
    loss = 9 * n**-0.05 * np.exp([0.01, -0.012, 0.004, -0.002])
    points = points_from({"N": n, "loss": loss})
    one = bootstrap(fit("power", points, starts=2), points, draws=150, delta=1.0)
    assert len(np.unique(np.round(one.params["alpha"], 9))) == 150
    # The Bayesian bootstrap of least squares, from weights of this test's own: uniform on the simplex.
    weights = np.random.default_rng(123).dirichlet(np.ones(4), 4000)
    slopes = [-np.polyfit(np.log(n), np.log(loss), 1, w=np.sqrt(weight))[0] for weight in weights]
    found = np.quantile(one.params["alpha"], [0.1, 0.5, 0.9])
    expected = np.quantile(slopes, [0.1, 0.5, 0.9])
    assert found == pytest.approx(expected, abs=0.15 * (expected[2] - expected[0]))


def test_the_weights_of_a_refit_add_up_to_the_number_of_runs(monkeypatch):
    seen = []

    def noted(bound, log_loss, weights, start, delta):
        seen.append(weights.copy())
        return start, 1.0, True

    points = noisy(np.random.default_rng(0))
    fitted = fit("n", points, starts=0)
    monkeypatch.setattr(module, "minimum", noted)
    bootstrap(fitted, points, draws=400)
    weights = np.array(seen)
    assert weights.sum(1) == pytest.approx(len(points))
    assert (weights > 0).all()
    assert weights.std() == pytest.approx(1, rel=0.1)  # exponential: as wide as its mean
    assert np.median(weights) == pytest.approx(np.log(2), rel=0.1)


@pytest.mark.parametrize(
    ("count", "reason"), [(4, "4 distinct points for 3 parameters leave 1 to spare"), (3, "leave 0")]
)
def test_too_few_points_give_no_interval_and_say_why(count, reason):
    points = noisy(np.random.default_rng(0), np.logspace(3.5, 7, count))
    one = bootstrap(fit("n", points, starts=4), points)
    assert one.intervals() == {"E": None, "A": None, "alpha": None}
    assert reason in one.reason
    assert np.isnan(one.of_law({"N": np.array([1e5])})).all()
    assert np.isnan(one.of_new_run({"N": np.array([1e5])})).all()


def test_a_fit_that_did_not_converge_gives_no_interval():
    loss = LAWS["power"].predict({"A": 9.0, "alpha": 0.05}, {"N": SIZES})
    points = points_from({"N": SIZES * np.linspace(1, 1.01, len(SIZES)), "loss": loss})
    fitted = fit("n", points, starts=4)
    assert not fitted.usable
    assert bootstrap(fitted, points).reason.startswith("the fit is ")


def test_none_can_be_asked_for():
    points = noisy(np.random.default_rng(0))
    fitted = fit("n", points, starts=0)
    assert bootstrap(fitted, points, 0).reason == "no bootstrap was asked for."
    with pytest.raises(ValueError, match="bootstrap is -1"):
        bootstrap(fitted, points, -1)


def test_a_metric_has_intervals_too():
    rng = np.random.default_rng(1)
    truth = {"M_inf": 0.4, "A": 3.0, "alpha": 0.3}
    metric = LAWS["saturating"].predict(truth, {"N": SIZES}) + 0.002 * rng.standard_normal(len(SIZES))
    points = points_from({"N": SIZES, "metric": metric})
    one = bootstrap(fit("saturating", points, starts=4), points, draws=60)
    low, high = one.intervals()["M_inf"]
    assert low < 0.4 < high
    bounds = one.of_new_run({"N": np.array([1e7])})[0]
    assert bounds[0] < LAWS["saturating"].predict(truth, {"N": np.array([1e7])})[0] < bounds[1]
