"""The protocol of a report: what is in it, and that everything that moves a number moves its fingerprint."""

import numpy as np
import polars as pl
import pytest

from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation.protocol import cut_offs, protocol_of, target_choice


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return [(f"u{user:02}", f"i{rng.integers(12):02}", n // 2) for user in range(30) for n in range(14)]


def prepared(rows, path, **options):
    return prepare(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), path, **options)


def test_one_log_has_one_fingerprint_whatever_the_file(rows, tmp_path):
    path = tmp_path / "log.csv"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(path)
    columns = {name: name for name in ("user_id", "item_id", "timestamp")}
    found = [
        prepared(rows, tmp_path / "frame"),
        prepared(rows, tmp_path / "shards", shards=3),
        prepared(rows[::2] + rows[1::2], tmp_path / "otherwise", columns=columns),
    ]
    fingerprints = {protocol_of(data, "test", True)["fingerprint"] for data in found}
    assert len(fingerprints) == 1
    assert prepare(path, tmp_path / "csv").manifest["interactions_fingerprint"] in {
        data.manifest["interactions_fingerprint"] for data in found
    }


def test_everything_that_moves_a_number_moves_the_fingerprint(rows, tmp_path):
    swapped = [rows[1], rows[0], *rows[2:]]  # two rows of one moment
    assert rows[0][1] != rows[1][1]
    data = prepared(rows, tmp_path / "data")
    protocols = [
        protocol_of(data, "test", True),
        protocol_of(data, "validation", True),
        protocol_of(data, "test", False),
    ]
    protocols.append(protocol_of(data, "test", True, "basket"))
    for place, (changed, options) in enumerate(
        (
            (swapped, {}),
            (rows[:-1], {}),
            (rows, {"min_interactions": 2}),
            (rows, {"min_item_interactions": 2}),
            (rows, {"repeats": "first"}),
            (rows, {"split": "temporal", "validation_share": 0.2}),
            (rows, {"split": "temporal", "test_share": 0.3, "validation_share": 0.2}),
            (rows, {"split": "last_basket"}),
            (rows, {"split": "paper", "min_trajectory_length": 12}),
            (rows, {"split": "paper", "min_trajectory_length": 13}),
        )
    ):
        protocols.append(protocol_of(prepared(changed, tmp_path / str(place), **options), "test", True))
    assert len({one["fingerprint"] for one in protocols}) == len(protocols) == 14


def test_the_same_moments_are_one_protocol_however_they_were_given(rows, tmp_path):
    shares = prepared(rows, tmp_path / "shares", split="temporal", test_share=0.2, validation_share=0.2)
    moments = {name: shares.manifest["counts"][name] for name in ("validation_from", "test_from")}
    given = prepared(rows, tmp_path / "given", split="temporal", **moments)
    one, other = protocol_of(shares, "test", True), protocol_of(given, "test", True)
    assert one["split_parameters"] == moments
    assert one["fingerprint"] == other["fingerprint"]


def test_a_log_without_protocol_is_evaluated_as_asked(markov_prepared):
    assert cut_offs(None, markov_prepared) == (1, 5, 10, 20, 50)
    assert cut_offs([3, 3], markov_prepared) == (3,)
    assert target_choice(None, markov_prepared) == "item"
    assert target_choice("basket", markov_prepared) == "basket"
    with pytest.raises(ValueError, match="target 'week' is not known; choose from item, basket, period"):
        target_choice("week", markov_prepared)


def test_a_report_names_the_protocol_only_where_it_is_what_the_protocol_asks_for(rows, tmp_path):
    late = [(user, item, time * 86_400 * 30) for user, item, time in rows]
    data = prepared(late, tmp_path / "data", protocol="esasrec", time_unit="s")
    assert protocol_of(data, "test", True, "period")["protocol"] == "esasrec"
    assert protocol_of(data, "test", True)["protocol"] is None
