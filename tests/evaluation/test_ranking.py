import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID, UNK_ID
from sr_transformers.evaluation import ranking
from sr_transformers.evaluation.evaluator import rank_histories
from sr_transformers.evaluation.metrics import MISSED
from sr_transformers.evaluation.ranking import log_partition, rank_targets, top_k_items


def slow_rank(scores: list[float], target: int, seen: set[int]) -> int:
    if target == UNK_ID:
        return MISSED
    ranked = [item for item in range(NUM_SPECIAL, len(scores)) if item == target or item not in seen]
    return sum(scores[item] >= scores[target] for item in ranked)


def pairs(seen: list[set[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [(row, item) for row, items in enumerate(seen) for item in items]
    return tuple(torch.tensor(rows, dtype=torch.long).reshape(-1, 2).T)


@st.composite
def users(draw):
    vocab_size = draw(st.integers(NUM_SPECIAL + 1, 9))
    score = st.lists(st.integers(-2, 2).map(float), min_size=vocab_size, max_size=vocab_size)
    target = st.integers(UNK_ID, vocab_size - 1)
    seen = st.sets(st.integers(NUM_SPECIAL, vocab_size - 1))
    return draw(st.lists(st.tuples(score, target, seen), min_size=1, max_size=5)), draw(st.booleans())


@given(users(), st.integers(1, 10))
def test_ranks_and_top_are_those_of_a_slow_reference(users, top_k):
    rows, filter_seen = users
    scores, targets, seen = (list(column) for column in zip(*rows, strict=True))
    seen = seen if filter_seen else [set() for _ in seen]
    result = rank_targets(torch.tensor(scores), torch.tensor(targets), pairs(seen) if filter_seen else None, top_k)
    assert result.ranks.dtype == np.int64
    assert result.ranks.tolist() == [slow_rank(*user) for user in zip(scores, targets, seen, strict=True)]
    num_items = len(scores[0]) - NUM_SPECIAL
    assert result.top.shape == (len(rows), min(top_k, num_items))
    for row, score, target, had in zip(result.top.tolist(), scores, targets, seen, strict=True):
        left = [item for item in range(NUM_SPECIAL, len(score)) if item == target or item not in had]
        found = [item for item in row if item != -1]
        assert row == found + [-1] * (len(row) - len(found))
        assert len(set(found)) == len(found) == min(len(left), len(row))
        assert set(found) <= set(left)
        assert [score[item] for item in found] == sorted((score[item] for item in left), reverse=True)[: len(found)]


def test_a_constant_scorer_gets_the_last_rank():
    result = rank_targets(torch.zeros(3, 12), torch.tensor([2, 7, 11]), None, 10)
    assert result.ranks.tolist() == [10, 10, 10]


def test_special_tokens_take_no_part_however_high_they_score():
    scores = torch.tensor([[9.0, 9.0, 1.0, 2.0]])
    result = rank_targets(scores, torch.tensor([2]), None, 10)
    assert result.ranks.tolist() == [2]
    assert result.top.tolist() == [[3, 2]]
    assert PAD_ID not in result.top


def test_a_seen_target_stays_in_the_ranking():
    scores = torch.tensor([[0.0, 0.0, 5.0, 4.0, 3.0]])
    result = rank_targets(scores, torch.tensor([3]), pairs([{2, 3}]), 10)
    assert result.ranks.tolist() == [1]
    assert result.top.tolist() == [[3, 4, -1]]


def test_a_target_that_the_scorer_cannot_name_is_missed():
    scores = torch.zeros(3, 12)
    scores[1, 5] = -torch.inf
    ranking = rank_targets(scores, torch.tensor([UNK_ID, 5, 6]), None, 10)
    assert ranking.ranks.tolist() == [MISSED, MISSED, 10]
    assert 5 not in ranking.top[1]


@pytest.mark.parametrize("with_probabilities", [True, False])
@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_of_a_diverged_model_are_refused(place, bad, with_probabilities):
    class Diverged:
        gives_log_probabilities = with_probabilities

        def score(self, histories):
            scores = torch.zeros(2, 4)
            scores[1, place] = bad
            return scores

    with pytest.raises(ValueError, match="a score is NaN or infinite: the model has diverged"):
        rank_histories(Diverged(), [], np.array([2, 2]), None, [1])


@pytest.mark.parametrize("vocab_size", [5, 1000, 10_000, 30_001])
@pytest.mark.parametrize("k", [1, 5])
def test_the_two_rounds_of_a_top_k_find_what_one_finds(vocab_size, k):
    generator = torch.Generator().manual_seed(vocab_size)
    scores = torch.randn(7, vocab_size, generator=generator)
    scores[3] = torch.randint(0, 3, (vocab_size,), generator=generator).float()  # ties everywhere
    scores[4, ::2] = -torch.inf
    scores[5] = torch.arange(vocab_size)  # the best stand side by side, the very best in the tail
    values, places = top_k_items(scores, k)
    assert torch.equal(values, scores.topk(k, dim=1).values)
    assert torch.equal(scores.gather(1, places), values)
    assert all(len(set(row)) == k for row in places.tolist())


@pytest.mark.parametrize("vocab_size", [100, 400_000])
def test_the_log_partition_is_exact_and_leaves_the_scores_alone(vocab_size):
    scores = torch.randn(5, vocab_size) * 4
    scores[1, 7], scores[2] = 500.0, -500.0
    scores[3, -1] = 500.0  # far above all before it
    scores[4, :50] = -torch.inf
    before = scores.clone()
    torch.testing.assert_close(log_partition(scores).double(), scores.double().logsumexp(1), atol=1e-6, rtol=3e-7)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_diverged_row_has_no_finite_log_partition_and_spoils_no_other(bad):
    scores = torch.randn(3, 100_000)
    scores[1, -1] = bad
    found = log_partition(scores)
    assert torch.isfinite(found).tolist() == [True, False, True]


def test_ranks_of_many_rows_and_items_are_counted_exactly():
    scores = torch.randint(0, 1000, (9, 300_000)).float()
    targets = torch.randint(NUM_SPECIAL, 300_000, (9,))
    expected = (scores[:, NUM_SPECIAL:] >= scores.gather(1, targets[:, None])).sum(1).tolist()
    assert rank_targets(scores, targets, None, 10).ranks.tolist() == expected


def test_as_many_users_are_scored_at_a_time_as_memory_allows():
    assert ranking.rows_of_scores(10) == ranking.rows_of_scores(65_536) == 512
    assert ranking.rows_of_scores(100_000) == 335  # x 100,000 scores of 4 bytes are 128 MiB
    assert ranking.rows_of_scores(1 << 24) == 2
    assert ranking.rows_of_scores(1 << 26) == 1


def test_seen_tokens_become_pairs_of_row_and_token():
    rows, tokens = ranking.pairs_of([np.array([5, 3], np.uint32), np.zeros(0, np.uint32), np.array([9])], "cpu")
    assert (rows.tolist(), tokens.tolist()) == ([0, 0, 2], [5, 3, 9])
    assert rows.dtype == tokens.dtype == torch.int64
    for nobody in ([], [np.zeros(0, np.uint32)]):
        rows, tokens = ranking.pairs_of(nobody, "cpu")
        assert (rows.shape, tokens.shape) == ((0,), (0,))
        assert rows.dtype == tokens.dtype == torch.int64
    assert all(part.device.type == "meta" for part in ranking.pairs_of([np.array([5])], torch.device("meta")))


def test_ranks_beyond_16_million_items_are_counted_exactly():
    """float32 adds ones up to 2^24 only."""
    vocab_size = (1 << 24) + 7
    result = rank_targets(torch.zeros(1, vocab_size), torch.tensor([5]), None, 1)
    assert result.ranks.tolist() == [vocab_size - NUM_SPECIAL]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_ranks_are_those_of_the_type_of_the_scores(dtype):
    scores = torch.tensor([[9.0, 9.0, 1.0, 1.0 + 1e-9, 1.0 - 1e-9, 3.0]], dtype=torch.float64)
    result = rank_targets(scores.to(dtype), torch.tensor([2]), None, 4)
    assert result.ranks.tolist() == [3 if dtype == torch.float64 else 4]  # bf16 cannot tell them apart: ties
    assert result.top[0, 0] == 5


@pytest.mark.parametrize(("rows", "vocab_size"), [(1, 70_000), (3, 600_000), (40, 70_000), (2, 1_100_000)])
def test_parts_of_the_scores_have_room_in_one_scratch_area(rows, vocab_size):
    """One row or more at a time, at most 2^20 numbers unless a row has more; every row once, in order."""
    scores = torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, vocab_size)
    begun = 0
    for where, part, scratch in ranking._parts(scores):
        assert part.shape == scratch.shape
        assert part[:, 0].tolist() == list(range(rows))[where]
        assert where.start == begun
        begun += len(part)
        assert part.numel() <= max(1 << 20, vocab_size)
        assert len(part) == min(max((1 << 20) // vocab_size, 1), rows - where.start)
    assert begun == rows


def test_the_log_partition_has_float64s_digits_where_the_best_item_comes_late():
    """The first 4,096 items are all but impossible beside the last ones, yet float32 still holds the sum."""
    scores = torch.full((3, 80_000), -30.0)
    scores[:, -3:] = torch.tensor([[20.0, 21.0, 22.0], [0.0, 0.0, 0.0], [-40.0, -40.0, -40.0]])
    expected = scores.double().logsumexp(1)
    assert log_partition(scores).double() == pytest.approx(expected, rel=3e-7)
    assert log_partition(scores).dtype == torch.float32
    small = scores[:, -100:].double()
    assert log_partition(small).tolist() == small.logsumexp(1).tolist()


@pytest.mark.parametrize("level", [-198.0, -50.0, 0.0, 50.0, 198.0])
def test_the_log_partition_is_as_exact_wherever_the_scores_lie(level):
    """Without the right shift some of these are sums of numbers that float32 holds to a few digits, or not at all."""
    scores = level + torch.linspace(-1, 1, 160_000).reshape(2, -1)
    assert log_partition(scores).double() == pytest.approx(scores.double().logsumexp(1), rel=3e-7, abs=3e-6)
