import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID, UNK_ID
from sr_transformers.evaluation.ranking import rank_targets


def slow_rank(scores: list[float], target: int, seen: set[int]) -> int:
    if target == UNK_ID:
        return len(scores)
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


def test_an_unknown_target_gets_rank_v():
    assert rank_targets(torch.zeros(1, 12), torch.tensor([UNK_ID]), None, 10).ranks.tolist() == [12]


@pytest.mark.parametrize("place", [0, 3])
def test_nan_raises(place):
    scores = torch.zeros(2, 4)
    scores[1, place] = torch.nan
    with pytest.raises(ValueError, match="a score is NaN: the model has diverged"):
        rank_targets(scores, torch.tensor([2, 2]), None, 1)
