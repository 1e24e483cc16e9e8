import numpy as np
import pytest

from sr_transformers.scaling.laws.bootstrap import bootstrap
from sr_transformers.scaling.laws.fitting import fit
from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.laws.points import points_from
from sr_transformers.scaling.laws.prediction import (
    bottleneck,
    compute_optimal,
    epochs_worth,
    hold_out,
    hold_out_largest,
    training_flops,
    width_of,
)

JOINT = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
SIZE = {"E": 4.5, "A": 6.0, "alpha": 0.25}


def sizes(count=7, seeds=3, noise=0.002, draw=0):
    n = np.repeat(np.logspace(3.5, 7, count), seeds)
    loss = LAWS["n"].predict(SIZE, {"N": n}) * np.exp(noise * np.random.default_rng(draw).standard_normal(len(n)))
    return points_from({"N": n, "loss": loss})


def test_the_largest_sizes_are_predicted_from_the_others():
    held = hold_out_largest(sizes(), "n", draws=60)
    assert len(held.rows) == 6
    assert held.fitted.num_points == 15
    assert held.reach == pytest.approx(10 ** (2 * 3.5 / 6), rel=1e-6)
    for row in held.rows:
        assert row["relative_error"] == pytest.approx(row["predicted"] / row["measured"] - 1)
        assert row["inside"] == (row["low"] <= row["measured"] <= row["high"])
        assert abs(row["relative_error"]) < 0.05


def power(name="loss", law="power", params=(("A", 9.0), ("alpha", 0.05))):
    """Six sizes, seen 50 interactions for each parameter, twice each."""
    n = np.repeat(np.logspace(4, 6.5, 6), 2)
    scatter = 1 + 0.001 * np.random.default_rng(4).standard_normal(len(n))
    return points_from({"N": n, "D": 50 * n, name: LAWS[law].predict(dict(params), {"N": n}) * scatter})


@pytest.mark.parametrize("largest", [1, 3])
def test_what_is_held_out_is_what_the_others_say_of_it(largest):
    points = power()
    held = hold_out_largest(points, LAWS["power"], largest, draws=20, seed=3, level=0.8)
    order = np.argsort(points.columns["N"], kind="stable")
    rest, unseen = points.take(order[: -2 * largest]), points.take(order[-2 * largest :])
    fitted = fit("power", rest, seed=3)
    assert held.fitted.params == fitted.params
    assert held.reach == pytest.approx(10 ** (largest / 2))
    bounds = bootstrap(fitted, rest, 20, 3).of_new_run(unseen.columns, 0.8)
    for row, n, measured, (low, high) in zip(
        held.rows, unseen.columns["N"], unseen.columns["loss"], bounds, strict=True
    ):
        predicted = fitted.params["A"] / n ** fitted.params["alpha"]
        assert row == {
            "N": n,
            "D": pytest.approx(50 * n),
            "measured": measured,
            "predicted": pytest.approx(predicted),
            "relative_error": pytest.approx(predicted / measured - 1, abs=1e-12),
            "low": low,
            "high": high,
            "inside": low <= measured <= high,
        }


def test_by_default_two_sizes_are_held_out_at_95_percent_of_200_draws():
    points = power()
    held = hold_out_largest(points, "power")
    assert (held.refits.draws, held.refits.seed) == (200, 0)
    assert [row["N"] for row in held.rows] == pytest.approx([1e6, 1e6, 10**6.5, 10**6.5])
    bounds = held.refits.of_new_run({"N": np.array([row["N"] for row in held.rows])}, 0.95)
    assert [[row["low"], row["high"]] for row in held.rows] == bounds.tolist()


def test_any_points_can_be_held_out_by_the_name_of_a_law():
    points = power()
    small = points.columns["N"] < 1e6
    held = hold_out(points.take(~small), points.take(small), "power")
    assert (held.refits.draws, held.refits.seed) == (200, 0)
    assert held.rows == hold_out(points.take(~small), points.take(small), LAWS["power"], 200, 0, 0.95).rows
    assert [row["N"] for row in held.rows] == points.columns["N"][small].tolist()


def test_a_metric_is_held_out_like_a_loss():
    truth = (("M_inf", 0.4), ("A", 3.0), ("alpha", 0.3))
    held = hold_out_largest(power("metric", "saturating", truth), "saturating", 1, draws=10)
    for row in held.rows:
        assert row["measured"] == pytest.approx(row["predicted"], rel=0.01)
        assert row["measured"] == pytest.approx(0.4 - 3 / 10 ** (6.5 * 0.3), rel=0.01)
        assert row["low"] < row["high"]


@pytest.mark.slow
def test_most_held_out_runs_lie_in_their_intervals():
    held = [hold_out_largest(sizes(draw=draw), "n", draws=60) for draw in range(12)]
    assert np.mean([row["inside"] for one in held for row in one.rows]) >= 5 / 6


def test_where_the_law_breaks_the_interval_says_so():
    points = sizes()
    loss = points.columns["loss"].copy()
    loss[-3:] *= 1.3
    held = hold_out_largest(points_from({**points.columns, "loss": loss}), "n", draws=60)
    assert [row["inside"] for row in held.rows[-3:]] == [False] * 3


def test_four_sizes_give_a_prediction_without_interval():
    held = hold_out_largest(sizes(count=6, seeds=1), "n", draws=20)
    assert held.rows[0]["low"] is None
    assert held.rows[0]["inside"] is None
    assert "leave 1 to spare" in held.refits.reason


def test_what_cannot_be_held_out_is_refused():
    with pytest.raises(ValueError, match="cannot hold out 7 of 7 sizes"):
        hold_out_largest(sizes(), "n", 7)
    with pytest.raises(ValueError, match=r"cannot hold out 0 of 7 sizes; choose 1\.\.6"):
        hold_out_largest(sizes(), "n", 0)
    with pytest.raises(ValueError, match="N has one distinct value"):
        hold_out_largest(sizes(), "n", 6)
    with pytest.raises(ValueError, match="law d does not know N"):
        hold_out_largest(sizes(), "d")


def test_compute_optimal_is_the_closed_form_without_a_head():
    flops = 1e21
    a, b = JOINT["alpha"], JOINT["beta"]
    g = (a * JOINT["A"] / (b * JOINT["B"])) ** (1 / (a + b))
    found = compute_optimal(JOINT, flops)
    assert found["N"] == pytest.approx(g * (flops / 6) ** (b / (a + b)), rel=1e-6)
    assert 6 * found["N"] * found["D"] == pytest.approx(flops)
    assert found["head_share"] == pytest.approx(0, abs=1e-12)


def independent_loss(log_n, flops, vocab_size, width_per_layer=25.0):
    """Loss of a budget spent on a size; its data are what is left. N = 12 L d^2 and d = 25 L give d^3 = 25 N / 12."""
    n = np.exp(log_n)
    width = np.cbrt(width_per_layer * n / 12)
    d = flops / (6 * n + 6 * vocab_size * width)
    return JOINT["E"] + JOINT["A"] / n ** JOINT["alpha"] + JOINT["B"] / d ** JOINT["beta"], d


@pytest.mark.parametrize("vocab_size", [0, 2_000, 100_000, 3_000_000])
@pytest.mark.parametrize("width_per_layer", [25.0, 16.0])
def test_compute_optimal_is_the_lowest_point_of_the_loss_over_all_sizes(vocab_size, width_per_layer):
    flops = 1e18
    log_n = np.linspace(0, np.log(flops / 6), 400_001)
    loss, data = independent_loss(log_n, flops, vocab_size, width_per_layer)
    best = int(np.argmin(loss))
    found = compute_optimal(JOINT, flops, vocab_size, width_per_layer)
    assert np.log(found["N"]) == pytest.approx(log_n[best], abs=2 * log_n[1])
    assert found["D"] == pytest.approx(data[best], rel=3e-4)
    assert found["loss"] == pytest.approx(loss[best], rel=1e-9)
    assert found["head_share"] == pytest.approx(1 - 6 * found["N"] * found["D"] / flops, abs=1e-9)


def test_all_of_a_budget_may_go_into_size_or_into_data():
    """Where one of the two powers is all but nothing: one parameter at least, and one interaction at least."""
    size = compute_optimal({**JOINT, "B": 1e-12}, 6e12)
    assert (size["N"], size["D"]) == (pytest.approx(1e12, rel=1e-4), pytest.approx(1, rel=1e-4))
    data = compute_optimal({**JOINT, "A": 1e-12}, 6e12)
    assert (data["N"], data["D"]) == (pytest.approx(1, rel=1e-4), pytest.approx(1e12, rel=1e-4))


def test_a_head_takes_its_share():
    found = compute_optimal(JOINT, 1e18, vocab_size=100_000)
    head = 100_000 * width_of(found["N"])
    assert found["head_share"] == pytest.approx(head / (head + found["N"]))
    assert found["head_share"] > 0.2
    # It costs data and loss, and the best size is another one than without it.
    bare = compute_optimal(JOINT, 1e18)
    assert found["loss"] > bare["loss"] + 1e-4
    assert found["N"] > 1.05 * bare["N"]


def test_flops_are_six_for_each_parameter_and_interaction_the_heads_too():
    assert training_flops(1e6, 1e7) == 6e13
    # 12 L d^2 with d = 300, L = 12 are 12,960,000 parameters; the head has 1,000 x 300.
    assert width_of(12_960_000) == pytest.approx(300)
    assert training_flops(12_960_000, 10, 1_000) == pytest.approx(60 * (12_960_000 + 300_000))
    assert training_flops(12_960_000, 10, 1) == pytest.approx(60 * (12_960_000 + 300))
    # d / L = 16: d = 192, L = 12.
    assert width_of(12 * 12 * 192**2, 16.0) == pytest.approx(192)
    assert training_flops(12 * 12 * 192**2, 1, 100, 16.0) == pytest.approx(6 * (12 * 12 * 192**2 + 19_200))


def test_budgets_and_laws_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="the budget is 0 FLOPs"):
        compute_optimal(JOINT, 0)
    for budget in (-1e18, float("nan")):
        with pytest.raises(ValueError, match="it must be above 0"):
            compute_optimal(JOINT, budget)
    for missing in ("A", "B", "alpha", "beta"):
        with pytest.raises(ValueError, match="need a law of size and data"):
            compute_optimal({name: value for name, value in JOINT.items() if name != missing}, 1e18)
    for law in ("n", "joint"):
        with pytest.raises(ValueError, match="need a law of size and data"):
            compute_optimal(SIZE, 1e18, law=law)
    with pytest.raises(ValueError, match="need the data-constrained law"):
        epochs_worth(JOINT, 1e6, 1e6)


def test_the_bottleneck_is_what_gains_more():
    small_model = bottleneck(JOINT, 1e6, 1e12)
    assert small_model["bottleneck"] == "size"
    assert small_model["loss"] == pytest.approx(1.8 + 480 * 1e6**-0.35 + 2100 * 1e12**-0.37)
    assert small_model["gain_from_size"] == pytest.approx(480 * (1e6**-0.35 - 2e6**-0.35))
    assert small_model["gain_from_data"] == pytest.approx(2100 * (1e12**-0.37 - 2e12**-0.37))
    assert small_model["size_left"] == pytest.approx(480 * 1e6**-0.35)
    little_data = bottleneck(JOINT, 1e11, 1e8)
    assert little_data["bottleneck"] == "data"
    assert little_data["data_left"] == pytest.approx(2100 * 1e8**-0.37)
    assert bottleneck(JOINT, 1e15, 1e16)["bottleneck"] == "neither"
    tenfold = bottleneck(JOINT, 1e6, 1e12, factor=10)
    assert tenfold["gain_from_size"] == pytest.approx(480 * (1e6**-0.35 - 1e7**-0.35))


@pytest.mark.parametrize(("gain", "name"), [(0.00201, "size"), (0.00199, "neither"), (0.0101, "size")])
def test_less_than_two_thousandths_of_a_nat_are_not_worth_naming(gain, name):
    # Twice the size takes away half of A / N.
    law = {"E": 2.0, "A": 2 * gain * 1e6, "B": gain * 1e6, "alpha": 1.0, "beta": 1.0}
    found = bottleneck(law, 1e6, 1e6)
    assert found["gain_from_size"] == pytest.approx(gain)
    assert found["gain_from_data"] == pytest.approx(gain / 2)
    assert found["bottleneck"] == name
    swapped = {**law, "A": law["B"], "B": law["A"]}
    assert bottleneck(swapped, 1e6, 1e6)["bottleneck"] == name.replace("size", "data")


def test_epochs_stop_paying_where_doubling_gains_less_than_asked():
    params = {**JOINT, "R_D": 15.0, "R_N": 5.0}
    found = epochs_worth(params, 1e6, 1e8, worth=0.01)

    def loss(epochs):
        columns = {"N": np.array([1e6]), "D": np.array([1e8 * epochs]), "unique": np.array([1e8])}
        return LAWS["repeated"].predict(params, columns)[0]

    epochs = found["epochs"]
    assert loss(epochs) - loss(2 * epochs) < 0.01 <= loss(epochs - 1) - loss(2 * (epochs - 1))
    assert found["loss_limit"] < found["loss"] < found["loss_once"]
    assert epochs_worth(params, 1e6, 1e8, worth=0.0001)["epochs"] > epochs


def test_epochs_are_worth_what_the_data_constrained_law_says():
    """A model that the data can feed: only R_D matters, and D' = U + U R_D (1 - exp(-(epochs - 1) / R_D))."""
    params = {**JOINT, "R_D": 15.0, "R_N": 5.0}
    size, unique = 1e5, 1e9

    def loss(epochs):
        effective = unique * (1 + 15 * (1 - np.exp(-(epochs - 1) / 15)))
        return 1.8 + 480 * size**-0.35 + 2100 * effective**-0.37

    gains = [loss(epochs) - loss(2 * epochs) for epochs in range(1, 40)]
    worth = (gains[11] + gains[12]) / 2  # the 13th epoch is the first that gains less
    found = epochs_worth(params, size, unique, worth)
    assert found == {
        "epochs": 13.0,
        "loss": pytest.approx(loss(13)),
        "loss_once": pytest.approx(loss(1)),
        "loss_limit": pytest.approx(1.8 + 480 * size**-0.35 + 2100 * (16 * unique) ** -0.37),
    }
    assert epochs_worth(params, size, unique, gains[0] * 1.01)["epochs"] == 1
    never = epochs_worth(params, size, unique, worth, most=10)
    assert (never["epochs"], never["loss"]) == (10.0, pytest.approx(loss(10)))
    assert epochs_worth(params, size, unique, worth, most=12)["epochs"] == 12
    assert epochs_worth(params, size, unique, worth=0.0)["epochs"] == 1000
    assert epochs_worth(params, 1e6, 1e8) == epochs_worth(params, 1e6, 1e8, worth=0.01)
