import math

import pytest

from sr_transformers.scaling.studies.learning_rates import Tuned, best_rate, dropout_for, rate_for, slope_of_rates


def test_the_bottom_of_the_parabola_is_found():
    rates = [1e-3, 3e-3, 1e-2, 3e-2]
    losses = [(math.log(rate) - math.log(5e-3)) ** 2 + 6.0 for rate in rates]
    assert best_rate(rates, losses) == (pytest.approx(5e-3), 0)


def test_the_parabola_looks_two_rates_far_and_stays_beside_the_best():
    """One noisy neighbour decides little, and a far rate nothing."""
    flat = {2.5e-4: 5.263, 5e-4: 5.142, 1e-3: 5.149, 2e-3: 5.153}
    rate, end = best_rate(list(flat), list(flat.values()))
    assert (rate, end) == (pytest.approx(1e-3), 0)  # three rates alone would say 7e-4
    assert best_rate([*flat, 64e-3], [*flat.values(), 9.0])[0] == pytest.approx(rate)
    assert best_rate([1e-4, 2e-4, 4e-4, 8e-4], [9.0, 5.0, 5.01, 5.02]) == (pytest.approx(4e-4), 0)


def test_a_best_rate_at_the_end_is_said_to_be_one():
    assert best_rate([1e-2, 1e-3], [6.0, 5.0]) == (1e-3, -1)
    assert best_rate([1e-3, 1e-2], [6.0, 5.0]) == (1e-2, 1)


def test_dropout_follows_a_line_in_log_size_within_what_was_tried():
    found = {1e4: 0.0, 1e5: 0.1, 1e6: 0.2}
    assert dropout_for(math.sqrt(10) * 1e4, found, 0.3) == 0.05
    assert dropout_for(1e3, found, 0.3) == 0.0
    assert dropout_for(1e8, found, 0.3) == 0.3
    assert dropout_for(1e8, {1e4: 0.1}, 0.3) == 0.1


def test_a_small_rate_is_not_rounded_to_nothing():
    assert rate_for(1e6, {1e6: 4.321e-7}) == 4.3e-7
    assert rate_for(1e6, {1e6: 3.21764e-3}) == 3.218e-3


def test_on_part_of_the_data_the_dropout_is_that_of_the_fraction():
    found = Tuned({1e4: 4e-3, 1e6: 4e-3}, {1e4: 0.0, 1e6: 0.2}, most_dropout=0.6)
    assert found.rates_for(1e6, 0.1) == (pytest.approx(4e-3), 0.2)  # not tuned there
    found.part, found.dropouts_of_part = 0.1, {1e4: 0.1, 1e6: 0.4}
    for fraction, small, large in ((1.0, 0.0, 0.2), (0.1, 0.1, 0.4), (math.sqrt(0.1), 0.05, 0.3), (1e-4, 0.4, 0.6)):
        assert [found.rates_for(n, fraction)[1] for n in (1e4, 1e6)] == [small, large]
    found.whole, found.part = 0.3, 0.03
    for fraction, small, large in ((0.3, 0.0, 0.2), (0.03, 0.1, 0.4), (1.0, 0.0, 0.1)):
        assert [found.rates_for(n, fraction)[1] for n in (1e4, 1e6)] == [small, pytest.approx(large, abs=0.006)]
    assert found.text().endswith("N 10,000: 0.004, dropout 0; N 1,000,000: 0.004, dropout 0.2")  # as it was tuned


def test_sizes_get_both_rates_or_the_learning_rate_alone():
    assert Tuned({1e4: 4e-3}, {1e4: 0.1}, most_dropout=0.2).rates_for(1e6) == (pytest.approx(4e-3), 0.1)
    assert Tuned({1e4: 4e-3}).rates_for(1e6) == (pytest.approx(4e-3), None)


def test_beyond_a_diverged_run_there_is_nothing_to_find():
    assert best_rate([1e-3, 1e-2, 1e-1], [5.5, 5.0, math.nan]) == (1e-2, 0)
    assert best_rate([1e-3, 1e-2, 1e-1], [5.0, 5.5, math.nan]) == (1e-3, -1)
    with pytest.raises(ValueError, match=r"no run of the learning rates \[0.1, 1.0\] has a finite loss"):
        best_rate([0.1, 1.0], [math.nan, math.inf])


def test_rates_between_two_tuned_sizes_follow_the_power_law_between_them():
    found = {n: 2.0 * n**-0.4 for n in (3e3, 3e4, 3e5)}
    assert slope_of_rates(found) == pytest.approx(-0.4)
    for n in (1e3, 1e4, 1e7):
        assert rate_for(n, found) == pytest.approx(2.0 * n**-0.4, rel=1e-2)


def test_a_tuned_size_has_the_rates_that_were_best_for_it():
    rates, dropouts = {6e3: 0.018, 2.5e4: 0.023, 1e6: 0.001, 3e6: 0.001}, {6e3: 0.0, 2.5e4: 0.0, 1e6: 0.1, 3e6: 0.2}
    for n in rates:
        assert Tuned(rates, dropouts, most_dropout=0.3).rates_for(n) == (rates[n], dropouts[n])
    assert rate_for(2e6, rates) == 0.001
    assert dropout_for(1.2e4, dropouts, 0.3) == 0.0  # not bent upwards by the large ones


def test_beyond_the_tuned_sizes_rates_go_on_with_the_slope_of_all():
    found = {1e4: 1e-2, 1e5: 1e-3, 1e6: 1e-3}
    assert slope_of_rates(found) == pytest.approx(-0.5)
    assert rate_for(1e8, found) == pytest.approx(1e-4)
    assert rate_for(1e2, found) == pytest.approx(1e-1)


def test_larger_sizes_never_get_larger_rates():
    assert slope_of_rates({1e4: 1e-3, 1e6: 1e-2}) == 0.0
    assert rate_for(1e8, {1e4: 1e-3, 1e6: 1e-2}) == pytest.approx(1e-2)
    assert rate_for(1e8, {1e4: 4e-3}) == pytest.approx(4e-3)
