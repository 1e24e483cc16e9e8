import numpy as np
import pytest
from made_studies import INTERACTIONS, SHAPES, TRUTH

from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.studies.comparisons import best_sizes, means, per_doubling, seed_spread


def test_means_are_of_the_runs_of_one_size_amount_and_length(found):
    rows = means(found.runs, 3.0)
    assert len(rows) == 7 * 3  # neither the shape, nor the variant, nor the longer run
    assert {row["runs"] for row in rows} == {2}
    one = next(row for row in rows if (row["fraction"], row["N"]) == (0.1, 3072))
    losses = [
        run.loss
        for run in found.runs
        if (run.plan["size"], run.plan["fraction"], run.plan["block"]) == ("3k", 0.1, "main")
    ]
    assert one["loss"] == pytest.approx(np.mean(losses))
    assert one["loss_standard_deviation"] == pytest.approx(np.std(losses, ddof=1))
    assert one["D"] == INTERACTIONS / 10
    assert means(found.runs, 10.0)[0]["N"] == 49_152


def test_the_best_size_is_that_of_the_lowest_loss(found):
    assert [(row["fraction"], row["N"], row["sizes"]) for row in best_sizes(means(found.runs, 3.0))] == [
        (1.0, 1_572_864, 7),
        (0.3, 1_572_864, 7),
        (0.1, 1_572_864, 7),
    ]


def test_gains_per_doubling_are_those_of_the_law(found):
    gains = per_doubling(means(found.runs, 3.0))
    layers, width = SHAPES["1.5m"]
    n, d = np.array([3072.0, 12.0 * layers * width**2]), np.array([INTERACTIONS / 10, INTERACTIONS])
    by_size = LAWS["joint"].predict(TRUTH, {"N": n, "D": d[[1, 1]]})
    by_data = LAWS["joint"].predict(TRUTH, {"N": n[[1, 1]], "D": d})
    for what, losses, ratio in (("size", by_size, n[1] / n[0]), ("data", by_data, 10)):
        expected = -np.diff(losses)[0] / np.log2(ratio)
        assert gains[what]["nats"] == pytest.approx(expected, abs=4 * gains[what]["standard_error"])
        assert gains[what]["standard_error"] < 0.01


def test_one_size_on_one_amount_has_no_gains():
    row = {"fraction": 1.0, "N": 10, "D": 5.0, "runs": 1, "loss": 2.0, "loss_standard_deviation": None}
    assert per_doubling([row]) == {"data": None, "size": None}
    assert best_sizes([row]) == []
    assert seed_spread([row]) is None


def test_the_spread_of_seeds_weighs_by_repetitions():
    rows = [{"runs": 2, "loss_standard_deviation": 3.0}, {"runs": 4, "loss_standard_deviation": 1.0}]
    rows.append({"runs": 1, "loss_standard_deviation": None})
    assert seed_spread(rows) == pytest.approx(np.sqrt((9 + 3 * 1) / 4))
