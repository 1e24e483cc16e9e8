import numpy as np
import pytest

from sr_transformers.scaling.laws import LAWS
from sr_transformers.scaling.points import points_from
from sr_transformers.scaling.prediction import (
    bottleneck,
    compute_optimal,
    epochs_worth,
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
    with pytest.raises(ValueError, match="law d does not know N"):
        hold_out_largest(sizes(), "d")


def test_compute_optimal_is_the_closed_form_without_a_head():
    flops = 1e21
    a, b = JOINT["alpha"], JOINT["beta"]
    g = (a * JOINT["A"] / (b * JOINT["B"])) ** (1 / (a + b))
    found = compute_optimal(JOINT, flops)
    assert found["N"] == pytest.approx(g * (flops / 6) ** (b / (a + b)), rel=1e-4)
    assert 6 * found["N"] * found["D"] == pytest.approx(flops)
    assert found["head_share"] == pytest.approx(0, abs=1e-12)


def test_a_head_takes_its_share():
    found = compute_optimal(JOINT, 1e18, vocab_size=100_000)
    assert training_flops(found["N"], found["D"], 100_000) == pytest.approx(1e18)
    head = 100_000 * width_of(found["N"])
    assert found["head_share"] == pytest.approx(head / (head + found["N"]))
    for n in (found["N"] / 2, found["N"] * 2):
        d = 1e18 / training_flops(n, 1.0, 100_000)
        assert LAWS["joint"].predict(JOINT, {"N": np.array([n]), "D": np.array([d])})[0] > found["loss"]


def test_budgets_and_laws_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="the budget is 0 FLOPs"):
        compute_optimal(JOINT, 0)
    with pytest.raises(ValueError, match="need the joint law"):
        compute_optimal(SIZE, 1e18)
    with pytest.raises(ValueError, match="need the data-constrained law"):
        epochs_worth(JOINT, 1e6, 1e6)


def test_the_bottleneck_is_what_gains_more():
    small_model = bottleneck(JOINT, 1e6, 1e12)
    assert small_model["bottleneck"] == "size"
    assert small_model["gain_from_size"] == pytest.approx(480 * (1e6**-0.35 - 2e6**-0.35))
    little_data = bottleneck(JOINT, 1e11, 1e8)
    assert little_data["bottleneck"] == "data"
    assert little_data["data_left"] == pytest.approx(2100 * 1e8**-0.37)
    assert bottleneck(JOINT, 1e15, 1e16)["bottleneck"] == "neither"


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
