import copy

import pytest
from made_studies import INTERACTIONS

from sr_transformers.scaling.studies.sentences import parameter, sentences


@pytest.mark.parametrize(
    ("value", "bounds", "said"),
    [
        (3.16859, [7.3e-07, 6.581], "3.2 [0.0, 6.6]"),
        (0.121, [0.1195, 0.1228], "0.1210 [0.1195, 0.1228]"),
        (482.01, [300.0, 1200.4], "482 [300, 1,200]"),
        (2.0, [2.0, 2.0], "2.000000 [2.000000, 2.000000]"),
        (0.5, None, "0.5 (no interval)"),
    ],
)
def test_a_parameter_has_the_digits_its_interval_allows(value, bounds, said):
    assert parameter({"params": {"E": value}, "intervals": {"E": bounds}}, "E") == said


def changed(found, **intervals):
    document = copy.deepcopy(found.document)
    document["laws"]["n"]["intervals"].update(intervals)
    return "\n".join(sentences(document))


def test_the_papers_exponent_is_compared_with_intervals_that_say_something(found):
    assert "The paper's alpha on ML-20M, 0.121, lies inside" in changed(found, alpha=[0.05, 0.2])
    assert "The paper's alpha on ML-20M, 0.121, lies outside" in changed(found, alpha=[0.2, 0.5])
    assert "neither supports nor contradicts the paper's alpha" in changed(found, alpha=[0.001, 0.5])


def test_what_compute_would_buy_has_intervals_and_says_how_far_it_reaches(found):
    document = copy.deepcopy(found.document)
    best = document["compute_optimal"][-1]
    assert best["N_interval"][0] <= best["N"] <= best["N_interval"][1]
    assert best["times_measured_D"] == pytest.approx(best["D"] / INTERACTIONS)
    said = "\n".join(sentences(document))
    assert "A hundred times the compute of the costliest run" in said
    assert "times the data measured, a far extrapolation." in said
    best["times_measured_D"], best["N_interval"] = 1.0, None
    said = "\n".join(sentences(document))
    assert "(no interval)" in said
    assert "extrapolation" not in said


def test_a_bottleneck_says_how_many_refits_agree(found):
    assert "% of the refits agree)." in "\n".join(sentences(found.document))


def test_an_interval_that_holds_everything_says_so(found):
    document = copy.deepcopy(found.document)
    one = copy.deepcopy(document["laws"]["joint"])
    one["params"] |= {"R_D": 3.0, "R_N": 5.0}
    one["intervals"] |= {"R_N": [4.0, 6.0]}
    document["epochs_worth"] = [{"epochs": 4.0}]
    worth = (
        "the second epoch over the same data is worth 85% [79% to 91%] as much as new data, the tenth 6% [1% to 18%]"
    )
    for bounds, said in (
        ([2.0, 5.0], "R_D 3.0 [2.0, 5.0]"),
        ([2.0, 5.0], worth),
        ([0.05, 10_000.0], "holds everything from worthless"),
    ):
        one["intervals"] |= {"R_D": bounds}
        document["laws"]["repeated"] = one
        assert said in "\n".join(sentences(document))


@pytest.mark.parametrize(
    ("epochs", "said"), [((4.0, 4.0), "from epoch 4 on."), ((2.0, 9.0), "from epoch 2 to 9 on, by size.")]
)
def test_when_more_epochs_stop_paying(found, epochs, said):
    document = copy.deepcopy(found.document)
    one = copy.deepcopy(document["laws"]["joint"])
    one["params"] |= {"R_D": 3.0, "R_N": 5.0}
    one["intervals"] |= {"R_N": [4.0, 6.0]}
    one["intervals"] |= {"R_D": [2.0, 5.0]}
    document["laws"]["repeated"] = one
    document["epochs_worth"] = [{"epochs": number} for number in epochs]
    assert said in "\n".join(sentences(document))


def test_a_degenerate_law_predicts_nothing(found):
    """Which of the laws that fit alike comes out, and so what it predicts, depends on the machine."""
    document = copy.deepcopy(found.document)
    said = next(line for line in sentences(document) if "Loss of the two largest sizes, predicted from the" in line)
    assert "off by" in said
    for one in document["held_out"].values():
        one |= {"status": "degenerate", "reason": "a term vanished."}
    said = [line for line in sentences(document) if "predicted from the " in line]
    assert said
    assert all(line.endswith("no prediction, as the fit is degenerate: a term vanished.") for line in said)
