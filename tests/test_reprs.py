"""What a notebook shows of our objects: a line, or a table; never an address or a screen full."""

import copy
from pathlib import Path

import pytest

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender, RunRecord


@pytest.fixture(scope="module")
def record():
    path = Path(__file__).parent.parent / "recipes" / "results" / "ml-100k-seed42.json"
    return RunRecord.load(path)


def test_a_record_is_one_line_and_a_table(record):
    assert repr(record).startswith(f"RunRecord(dense: N = {record.num_non_embedding_parameters:,}, D = ")
    assert f"test hr@10 {record.reports[0]['metrics']['hr@10']:.4f}" in repr(record)
    assert len(repr(record)) < 200
    html = record._repr_html_()
    assert html.count("<tr>") == 2 + len(record.reports)
    assert f"{record.reports[0]['metrics']['ndcg@10']:.4f}" in html


def test_a_record_without_reports_and_with_markup(record):
    other = copy.deepcopy(record)
    other.reports, other.name = [], "<b>x"
    assert "test" not in repr(other)
    assert "<b>" not in other._repr_html_()


def test_prepared_data_is_one_line_and_a_table(prepared):
    assert (
        repr(prepared)
        == f"PreparedData({str(prepared.path)!r}: 14 users, 12 items, 88 interactions, split leave_one_out)"
    )
    assert "<td>interactions</td><td>88</td>" in prepared._repr_html_()
    assert f"<td>test targets</td><td>{prepared.num_targets('test')}</td>" in prepared._repr_html_()


def test_a_recommender_is_one_line(prepared):
    config = LSRMConfig(vocab_size=prepared.vocab_size, hidden_size=16, max_position_embeddings=8, filter_seen=False)
    made = Recommender(LSRMForCausalLM(config), prepared.tokenizer)
    assert repr(made) == "Recommender(LSRMForCausalLM, 10 items, window 8, seen items are recommended again)"
