import pytest
import torch

from sr_transformers.lsrm.targets_lsrm import targets_after

NONE = -100


def test_the_target_of_a_position_is_the_item_after_it():
    labels = torch.tensor([[5, 6, 7], [8, NONE, 9]])
    targets, number = targets_after(labels, None, None, 4)
    assert targets.tolist() == [[6, 7, NONE], [NONE, 9, NONE]]
    assert number == 4
    shifted = torch.tensor([[6, 7, 8]])
    for mask in (None, torch.ones(1, 3), torch.ones(1, 1, 3, 3), "none"):
        targets, number = targets_after(None, shifted, mask, None)
        assert (targets.tolist(), number) == (shifted.tolist(), None)
    zeros = torch.zeros(1, 1, 3, 3)  # of two items each: it says nothing of padding
    assert targets_after(None, shifted, zeros, None)[0].tolist() == shifted.tolist()


@pytest.mark.parametrize("before", [[], [1, 1], [0, 0]])  # a cache, longer or not than what stands in it
def test_padding_neither_predicts_nor_is_predicted(before):
    labels = torch.tensor([[3, 4, 5, 6, 7], [5, 6, 7, 3, 4], [5, 6, 7, 8, 9]])
    mask = torch.tensor([[*before, *row] for row in ([0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 1, 1])])
    targets, number = targets_after(labels, None, mask, None)
    assert targets.tolist() == [[NONE, NONE, 6, 7, NONE], [6, 7, NONE, NONE, NONE], [6, NONE, NONE, 9, NONE]]
    assert number is None
    # With targets given by position there is nothing to say of what they were before they were moved.
    targets, _ = targets_after(None, labels, mask, None)
    assert targets.tolist() == [[NONE, NONE, 5, 6, 7], [5, 6, 7, NONE, NONE], [5, 6, NONE, 8, 9]]


@pytest.mark.parametrize("kind", [int, torch.tensor])
def test_labels_that_nothing_predicts_are_not_counted(kind):
    labels, mask = torch.tensor([[3, 4, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1, 1]])
    assert targets_after(labels, None, mask, kind(4))[1] == 2  # 4 labels have a position before them
    for wrong in (3, 5, 8):
        with pytest.raises(ValueError, match=r"2 labels of this micro-batch are padding or stand right after padding"):
            targets_after(labels, None, mask, kind(wrong))
    # Nothing is left out here, so the number may be of many micro-batches.
    clean = torch.tensor([[NONE, NONE, NONE, 6, 7]])
    assert targets_after(clean, None, mask, kind(17))[1] == 17
