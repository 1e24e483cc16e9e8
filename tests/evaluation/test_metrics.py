import math

import numpy as np
import pytest

from sr_transformers.evaluation import metrics
from sr_transformers.evaluation.metrics import MISSED, RankingTotals, coverage, hit_rate, ndcg, reciprocal_rank

RANKS = np.array([1, 2, 7, 3, 40])
LOSSES = np.array([0.5, 1.0, 2.0])


def test_hit_rate_by_hand():
    assert hit_rate(RANKS, 1).tolist() == [1, 0, 0, 0, 0]
    assert hit_rate(RANKS, 7).tolist() == [1, 1, 1, 1, 0]


def test_ndcg_by_hand():
    # 1 / log2(2) = 1, 1 / log2(3) = 0.63093, 1 / log2(8) = 1 / 3, 1 / log2(4) = 1 / 2
    assert ndcg(RANKS, 7) == pytest.approx([1, 0.630930, 1 / 3, 0.5, 0], abs=1e-6)
    assert ndcg(RANKS, 2) == pytest.approx([1, 0.630930, 0, 0, 0], abs=1e-6)


def test_reciprocal_rank_by_hand():
    assert reciprocal_rank(RANKS) == pytest.approx([1, 1 / 2, 1 / 7, 1 / 3, 1 / 40])


def test_a_missed_target_counts_as_nothing_whatever_k():
    ranks = np.array([MISSED, 1, MISSED, 2])
    for k in (1, 2, 10**9):
        assert hit_rate(ranks, k)[[0, 2]].tolist() == ndcg(ranks, k)[[0, 2]].tolist() == [0, 0]
    assert reciprocal_rank(ranks).tolist() == [0, 1, 0, 1 / 2]
    totals = RankingTotals((1, 10**9), vocab_size=12)
    totals.add(ranks)
    assert (totals.count, totals.num_missed) == (4, 2)
    assert totals.metrics(10)["hr@1000000000"] == 2 / 4
    again = RankingTotals((1, 10**9), vocab_size=12)
    again.load_vector(totals.vector() + totals.vector())
    assert (again.count, again.num_missed) == (8, 4)


def test_no_item_covers_nothing():
    assert coverage(np.array([[2, -1], [-1, -1]]), num_items=10, k=2) == 1 / 10


@pytest.mark.parametrize("ranks", [[0, 1], [1.0, 2.0], [-3], [-1.0]])
@pytest.mark.parametrize("metric", [lambda r: hit_rate(r, 10), lambda r: ndcg(r, 10), reciprocal_rank])
def test_ranks_are_integers_from_one_on(metric, ranks):
    with pytest.raises(ValueError, match="ranks are integers from 1"):
        metric(np.array(ranks))


@pytest.mark.parametrize("metric", [hit_rate, ndcg])
def test_k_is_at_least_one(metric):
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        metric(RANKS, 0)


def whole() -> RankingTotals:
    totals = RankingTotals((1, 2, 5), vocab_size=12)
    totals.add(RANKS, LOSSES, np.array([[2, 3], [3, 4], [2, -1]]))
    return totals


def test_metrics_by_hand():
    found = whole().metrics(num_items=10)
    assert found["hr@1"] == pytest.approx(1 / 5)
    assert found["hr@5"] == pytest.approx(3 / 5)
    assert found["ndcg@2"] == pytest.approx((1 + 0.630930) / 5, abs=1e-6)
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 7 + 1 / 3 + 1 / 40) / 5)
    assert found["coverage@1"] == pytest.approx(2 / 10)  # 2, 3
    assert found["coverage@2"] == pytest.approx(3 / 10)  # 2, 3, 4; -1 is no item
    assert found["loss"] == pytest.approx(3.5 / 3)


def test_standard_errors_are_those_of_numpy():
    errors = whole().standard_errors()
    for name, values in (
        ("hr@2", hit_rate(RANKS, 2)),
        ("ndcg@5", ndcg(RANKS, 5)),
        ("mrr", reciprocal_rank(RANKS)),
        ("loss", LOSSES),
    ):
        assert errors[name] == pytest.approx(values.std(ddof=1) / math.sqrt(len(values)))


def test_a_single_user_has_no_standard_error():
    totals = RankingTotals((1,), vocab_size=4)
    totals.add(np.array([1]))
    assert all(math.isnan(error) for error in totals.standard_errors().values())
    assert "loss" not in totals.metrics(2)
    assert "loss" not in totals.standard_errors()


def test_two_halves_add_up_to_the_whole_through_their_vectors():
    halves = RankingTotals((1, 2, 5), vocab_size=12), RankingTotals((1, 2, 5), vocab_size=12)
    halves[0].add(RANKS[:2], LOSSES[:1], np.array([[2, 3], [3, 4]]))
    halves[1].add(RANKS[2:], LOSSES[1:], np.array([[2, -1]]))
    total = RankingTotals((1, 2, 5), vocab_size=12)
    total.load_vector(halves[0].vector() + halves[1].vector())
    assert total.count == 5
    assert total.metrics(10) == pytest.approx(whole().metrics(10))
    assert total.standard_errors() == pytest.approx(whole().standard_errors())


def test_a_loaded_vector_is_not_shared():
    vector = whole().vector()
    total = RankingTotals((1, 2, 5), vocab_size=12)
    total.load_vector(vector)
    total.add(RANKS)
    assert vector.tolist() == whole().vector().tolist()


def test_metrics_of_nobody_are_refused():
    with pytest.raises(ValueError, match="no target was evaluated"):
        RankingTotals((1,), vocab_size=4).metrics(2)


def test_cross_entropy_is_the_mean_of_negative_logarithms():
    assert metrics.cross_entropy([math.log(0.5), math.log(0.25), 0.0]) == pytest.approx(math.log(8) / 3)
    rounded = np.full(1000, -0.1, np.float32)  # their sum in float32 has 7 digits
    assert metrics.cross_entropy(rounded) == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    for wrong in ([0.5, -1.0], [math.nan, -1.0]):
        with pytest.raises(ValueError, match="log-probabilities are at most 0"):
            metrics.cross_entropy(wrong)


def test_coverage_counts_the_items_of_the_first_k():
    lists = np.array([[2, 3, 4], [5, 2, 6], [2, 3, 7]])
    assert [coverage(lists, 12, k) for k in (1, 2, 3)] == [2 / 12, 3 / 12, 6 / 12]
    assert coverage(lists.tolist(), 1, 1) == 2.0
    for num_items, k in ((0, 1), (12, 0), (-1, 1)):
        with pytest.raises(ValueError, match=f"k is {k} and num_items is {num_items}; both must be at least 1"):
            coverage(lists, num_items, k)


def test_a_list_of_ranks_will_do_and_none_are_no_hit():
    assert hit_rate([1, 3], 1).tolist() == [1.0, 0.0]
    assert ndcg([1, 3], 3) == pytest.approx([1, 1 / 2])
    assert reciprocal_rank([1, 4]).tolist() == [1, 0.25]
    for none in (hit_rate(np.zeros(0, int), 1), ndcg([], 1), reciprocal_rank(np.zeros(0))):
        assert (none.shape, none.dtype) == ((0,), np.float64)


def test_batches_add_up_whatever_they_come_with():
    """Losses of some, lists of some; the k of a list longer than its tokens takes what is there."""
    totals = RankingTotals([1, 3], vocab_size=8)
    totals.add(np.array([1, 4, MISSED, MISSED, MISSED]))
    totals.add(np.array([2]), losses=np.array([2.0]))
    totals.add(np.array([3, 1]), losses=np.array([1.0, 4.0]), recommended=np.array([[2, 4], [7, -1]]))
    totals.add(np.array([9, MISSED]), recommended=np.array([[2, 5]]))
    assert (totals.count, totals.num_missed) == (10, 4)
    found = totals.metrics(num_items=6)
    assert list(found) == ["hr@1", "ndcg@1", "hr@3", "ndcg@3", "mrr", "coverage@1", "coverage@3", "loss"]
    assert found["hr@1"] == pytest.approx(2 / 10)
    assert found["hr@3"] == pytest.approx(4 / 10)
    assert found["ndcg@3"] == pytest.approx((2 + 1 / math.log2(3) + 1 / 2) / 10)
    assert found["mrr"] == pytest.approx((2 + 1 / 4 + 1 / 2 + 1 / 3 + 1 / 9) / 10)
    assert found["coverage@1"] == pytest.approx(2 / 6)  # 2, 7
    assert found["coverage@3"] == pytest.approx(4 / 6)  # 2, 4, 5, 7
    assert found["loss"] == pytest.approx(7 / 3)
    errors = totals.standard_errors()
    hits = [1, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert errors["hr@1"] == pytest.approx(np.std(hits, ddof=1) / math.sqrt(10))
    assert list(errors) == ["hr@1", "ndcg@1", "hr@3", "ndcg@3", "mrr", "loss"]
    assert errors["loss"] == pytest.approx(np.std([2, 1, 4], ddof=1) / math.sqrt(3))


def test_an_error_needs_two_and_equal_values_have_none():
    totals = RankingTotals((1,), vocab_size=4)
    totals.add(np.array([1, 1]), losses=np.array([3.0]))
    assert totals.standard_errors()["hr@1"] == 0
    assert math.isnan(totals.standard_errors()["loss"])
    assert totals.metrics(2)["loss"] == 3
    # Rounding leaves the mean of squares a little below the square of the mean; that is no imaginary error.
    equal = RankingTotals((1,), vocab_size=4)
    equal.add(np.full(3, 3), losses=np.full(3, 0.1))
    assert equal.standard_errors()["mrr"] == pytest.approx(0, abs=1e-8)
    assert equal.standard_errors()["loss"] == pytest.approx(0, abs=1e-8)
    two = RankingTotals((1,), vocab_size=4)
    two.add(np.array([1, 2]))
    assert two.standard_errors()["hr@1"] == pytest.approx(0.5)


def test_a_vector_carries_every_sum_to_another_process():
    other = RankingTotals((1, 2, 5), vocab_size=12)
    other.load_vector(whole().vector())
    assert other.vector().tolist() == whole().vector().tolist()
    assert other.count == 5
    assert isinstance(other.count, int)
    assert other.recommended.tolist() == whole().recommended.tolist()
    assert other.metrics(10) == whole().metrics(10)
    assert other.standard_errors() == whole().standard_errors()
    twice = RankingTotals((1, 2, 5), vocab_size=12)
    twice.load_vector(2 * whole().vector())  # two processes with the same users
    assert twice.metrics(10) == pytest.approx(whole().metrics(10))
    assert twice.recommended.dtype == whole().recommended.dtype == bool  # an eighth of the memory of numbers
