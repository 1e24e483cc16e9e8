import math

import numpy as np
import pytest

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
    metrics = whole().metrics(num_items=10)
    assert metrics["hr@1"] == pytest.approx(1 / 5)
    assert metrics["hr@5"] == pytest.approx(3 / 5)
    assert metrics["ndcg@2"] == pytest.approx((1 + 0.630930) / 5, abs=1e-6)
    assert metrics["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 7 + 1 / 3 + 1 / 40) / 5)
    assert metrics["coverage@1"] == pytest.approx(2 / 10)  # 2, 3
    assert metrics["coverage@2"] == pytest.approx(3 / 10)  # 2, 3, 4; -1 is no item
    assert metrics["loss"] == pytest.approx(3.5 / 3)


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
