"""Rows that processes keep of one stream of random numbers; tests/integration/divided.py builds whole models so."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sr_transformers.training import first_rows
from sr_transformers.training.first_rows import FirstRows, _blocks


def process(rank, size):
    return SimpleNamespace(size=lambda: size, get_local_rank=lambda: rank)


@pytest.mark.parametrize("rows", [1, 10, 23, 31, 41])
def test_the_rows_of_all_processes_are_those_of_a_whole_table(rows, monkeypatch):
    monkeypatch.setattr(first_rows, "_BLOCK", 10)
    for size in (1, 2, 3):
        found, after = [], []
        for rank in range(size):
            torch.manual_seed(3)
            with FirstRows({(rows, 8)}, process(rank, size)) as first:
                table = nn.Embedding(rows, 8).weight
                head = nn.Linear(8, rows, bias=False).weight
            assert table.is_meta
            assert head.is_meta
            found.append((first.rows(table), first.rows(head)))
            after.append(torch.rand(1))
        torch.manual_seed(3)
        whole = nn.Embedding(rows, 8).weight, nn.Linear(8, rows, bias=False).weight
        assert all(torch.equal(one, torch.rand(1) if index == 0 else after[0]) for index, one in enumerate(after))
        for parts, one in zip(zip(*found, strict=True), whole, strict=True):
            assert torch.equal(torch.cat(parts), one)


def test_zeros_are_kept_and_other_tensors_left_alone():
    with FirstRows({(5, 2)}, process(1, 2)) as first:
        table, other = torch.empty(5, 2), torch.empty(2, 5)
        nn.init.ones_(table)
        nn.init.zeros_(other)
    assert first.rows(table).tolist() == [[1.0, 1.0]] * 2
    assert other.tolist() == [[0.0] * 5] * 2
    assert first.rows(other) is None


def test_no_block_has_fewer_numbers_than_are_drawn_together(monkeypatch):
    monkeypatch.setattr(first_rows, "_BLOCK", 10)
    assert list(_blocks(31, 8)) == [(0, 10), (10, 20), (20, 31)]
    assert list(_blocks(32, 8)) == [(0, 10), (10, 20), (20, 30), (30, 32)]
    assert list(_blocks(3, 1)) == [(0, 3)]
