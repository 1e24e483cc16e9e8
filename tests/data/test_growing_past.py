"""A past that grows, against pasts that are counted as a whole."""

import numpy as np
import pytest
import torch

from sr_transformers.data.growing_past import GrowingPast
from sr_transformers.lsrm.mix_lsrm import HALF_LIVES
from sr_transformers.lsrm.own_items_lsrm import Pasts, asked_after


def history(length: int, items: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(length)
    return rng.integers(2, 2 + items, length), np.sort(rng.integers(0, length, length)) + 1_700_000_000


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("half_lives", [HALF_LIVES, ()])
@pytest.mark.parametrize("wait", [None, 0, 3])
def test_it_is_what_counting_the_whole_past_gives(width, timed, half_lives, wait):
    """wait: after the last interaction, until it is asked what comes next."""
    tokens, times = history(60)
    grown = GrowingPast(window=5)
    for n in range(1, 61):
        grown.add(int(tokens[n - 1]), int(times[n - 1]) if timed else None)
        if n < width:
            continue
        one = torch.tensor
        moments, asked, query_time = torch.from_numpy(times[:n]) if timed else None, None, None
        if timed and wait is not None:
            query_time = int(times[n - 1]) + wait
            asked = asked_after(moments, one([n]), one([query_time]))
            assert asked.tolist() == [*times[1:n].tolist(), query_time]
        past = Pasts(torch.from_numpy(tokens[:n]), one([n]), one([1]), one([0]), one([width - 1]), moments, asked)
        expected = past.columns(1, width, half_lives)
        found = grown.columns(width, timed, bool(half_lives), query_time=query_time)
        assert set(found) == set(expected)
        order = found["token"].argsort()
        for name, values in expected.items():
            of_item = found[name] if name in ("recent", "now") else found[name][order]
            exact = {"rtol": 1e-5, "atol": 1e-6} if name == "decayed" else {"rtol": 0, "atol": 0}
            torch.testing.assert_close(of_item, values, **exact, msg=f"{n} {name}")
            assert of_item.dtype == values.dtype
        if timed:
            shown = Pasts(past.tokens, one([n]), one([width]), one([0]), one([0]), past.times, asked)
            assert torch.equal(grown.clock(width, query_time=query_time), shown.clock(1, width))
        assert grown.items().tolist() == list(dict.fromkeys(tokens[:n].tolist()))
        assert list(grown.recent) == tokens[max(0, n - 5) : n].tolist()


class Counted(np.ndarray):
    """An array that notes how many of its numbers are read and written."""

    touched = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        Counted.touched += np.size(found)
        return found

    def __setitem__(self, key, value):
        Counted.touched += np.size(super().__getitem__(key))
        super().__setitem__(key, value)


def touched_by_adding(length: int, new: bool) -> int:
    """Numbers that one more interaction reads and writes, of a new item or of one among 40 that are known."""
    tokens, times = history(length, 40)
    past = GrowingPast(window=5)
    for token, time in zip(tokens.tolist(), times.tolist(), strict=True):
        past.add(token, time)
    past._entries, past._decayed = past._entries.view(Counted), past._decayed.view(Counted)
    Counted.touched = 0
    past.add(1000 if new else int(tokens[0]), int(times[-1]) + 1)
    return Counted.touched


@pytest.mark.parametrize("new", [True, False])
def test_the_work_of_an_interaction_does_not_grow_with_the_past(new):
    few, many = touched_by_adding(100, new), touched_by_adding(5_000, new)
    assert few == many
    assert 0 < many < 70


def test_what_is_kept_one_by_one_is_the_window():
    past = GrowingPast(window=5)
    for step in range(1_000):
        past.add(2 + step % 7, step)
    kept = [value for value in vars(past).values() if hasattr(value, "__len__")]
    assert sum(map(len, kept)) < 60
    assert past.length == 1_000


def test_a_moment_before_the_last_one_is_refused():
    past = GrowingPast(window=5)
    past.add(3, 10)
    with pytest.raises(ValueError, match="the moment 9 is before 10, the last one"):
        past.add(4, 9)
    assert (past.length, past.items().tolist()) == (1, [3])
