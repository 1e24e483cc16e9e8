import math

import pytest

from sr_transformers.study.tuning import best_rate, rate_for, rate_law


def test_the_bottom_of_the_parabola_is_found():
    rates = [1e-3, 3e-3, 1e-2, 3e-2]
    losses = [(math.log(rate) - math.log(5e-3)) ** 2 + 6.0 for rate in rates]
    rate, at_end = best_rate(rates, losses)
    assert rate == pytest.approx(5e-3)
    assert not at_end


def test_a_best_rate_at_the_end_is_said_to_be_one():
    assert best_rate([1e-3, 1e-2], [5.0, 6.0]) == (pytest.approx(1e-3), True)


def test_diverged_runs_are_left_out():
    assert best_rate([1e-3, 1e-2, 1e-1], [5.0, 5.5, math.nan])[0] == pytest.approx(1e-3)
    with pytest.raises(ValueError, match=r"no run of the learning rates \[0.1, 1.0\] has a finite loss"):
        best_rate([0.1, 1.0], [math.nan, math.inf])


def test_rates_follow_a_power_law_of_size():
    found = {n: 2.0 * n**-0.4 for n in (3e3, 3e4, 3e5)}
    assert rate_law(found)[1] == pytest.approx(-0.4)
    assert rate_for(1e7, found) == pytest.approx(2.0 * 1e7**-0.4, rel=1e-2)


def test_larger_sizes_never_get_larger_rates():
    assert rate_law({1e4: 1e-3, 1e6: 1e-2})[1] == 0.0
    assert rate_for(1e8, {1e4: 4e-3}) == pytest.approx(4e-3)
