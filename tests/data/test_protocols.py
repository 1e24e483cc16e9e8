"""Named protocols: their counts on logs that can be counted by eye, and the refusal of what contradicts them."""

import polars as pl
import pytest

from sr_transformers.cli import main
from sr_transformers.data.append import append
from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.protocols import ANY, DEFAULTS, ITEM, PERIOD, PROTOCOLS, resolve

DAY = 86_400


def frame(rows):
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="module")
def square():
    """Six users with the six items 0 .. 5, each at the times 0 .. 5; a user and an item with four rows only."""
    rows = [(f"u{user}", f"i{(user + place) % 6}", place * DAY) for user in range(6) for place in range(6)]
    rows += [("short", f"i{place}", place * DAY) for place in range(4)]
    rows += [(f"u{user}", "rare", 6 * DAY) for user in range(4)]
    return frame(rows)


def test_s3rec_keeps_the_5_core_and_leaves_one_out(square, tmp_path):
    data = prepare(square, tmp_path / "data", protocol="s3rec")
    counts = data.manifest["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (6, 6, 36)
    assert counts["rows_left_out_by_min_interactions"] == 8
    assert data.manifest["split"] == "leave_one_out"
    assert data.targets("test")[:, 1].tolist() == [5] * 6
    assert data.targets("validation")[:, 1].tolist() == [4] * 6
    assert data.manifest["protocol"] == "s3rec"
    assert data.evaluation == {"filter_seen": True, "ks": [5, 10, 20], "target": ITEM}


def test_esasrec_cuts_the_last_days_and_asks_for_all_of_them(square, tmp_path):
    late = [("u0", "i9", 80 * DAY), ("u1", "i1", 70 * DAY), ("u1", "i2", 71 * DAY), ("new", "i1", 75 * DAY)]
    more = [(f"v{n}", "i9", n * DAY) for n in range(5)]  # users of one row: no core of 2
    log = pl.concat([square, frame(late + more)])
    data = prepare(log, tmp_path / "data", protocol="esasrec", time_unit="s", min_item_interactions=1)
    counts = data.manifest["counts"]
    assert (counts["test_from"], counts["validation_from"]) == (21 * DAY, 14 * DAY)
    assert counts["rows_left_out_by_min_interactions"] == 6
    assert data.manifest["filters"]["min_item_interactions"] == 1
    assert [data.item_ids.to_pylist()[0][0], data.manifest["split"]] == ["i", "temporal"]
    assert data.evaluation == {"filter_seen": True, "ks": [10], "target": PERIOD}


def test_items_need_5_rows_and_users_2_by_default_in_esasrec(square, tmp_path):
    log = pl.concat([square, frame([("two", "i1", 0), ("two", "i2", 90 * DAY), ("one", "i1", 0)])])
    counts = prepare(log, tmp_path / "data", protocol="esasrec", time_unit="s").manifest["counts"]
    assert (counts["users"], counts["items"]) == (8, 6)  # "short" and "two" stay; "one" and "rare" go
    assert counts["rows_left_out_by_min_interactions"] == 5


def test_lsrm_is_the_papers_split_with_seen_items_kept(tmp_path):
    log = frame([(f"u{user}", f"i{(user + n * n) % 30}", n) for user in range(40) for n in range(20)])
    data = prepare(log, tmp_path / "data", protocol="lsrm", split_seed=3)
    assert data.manifest["split_parameters"] == {"min_trajectory_length": 15, "unseen_share": 0.2, "seed": 3}
    assert data.targets("test")[:, 1].tolist() == [9] * (40 - data.manifest["counts"]["users_unseen"])
    assert data.filters_seen() is False
    longer = prepare(log, tmp_path / "longer", protocol="lsrm", min_trajectory_length=20)
    assert set(longer.targets("test")[:, 1].tolist()) == {19}


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_whatever_contradicts_a_protocol_is_refused_naming_both(name):
    others = {"split": "last_basket", "min_interactions": 7, "repeats": "distinct", "since": "x", "unseen_share": 0.9}
    for option in DEFAULTS:
        if PROTOCOLS[name].options.get(option) == ANY:
            assert resolve(name, {option: 5})[0][option] == 5
            continue
        with pytest.raises(ValueError, match=rf"protocol '{name}' and {option} .*--{option.replace('_', '-')}") as told:
            resolve(name, {option: others.get(option, 3)})
        assert f"--protocol {name}" in str(told.value)


def test_every_value_of_the_source_is_taken_and_said():
    for protocol in PROTOCOLS.values():
        assert protocol.source
        assert protocol.differs
        for option, values in protocol.options.items():
            assert option in DEFAULTS
            for value in values if values != ANY else ():
                chosen = resolve(protocol.name, {option: value})[0]
                assert chosen[option] == (values[0] if value is None else value)
    assert resolve(None, {"min_interactions": 5}) == ({**DEFAULTS, "min_interactions": 5}, {})
    with pytest.raises(ValueError, match="protocol 'hstu' is not known; choose from s3rec, esasrec, lsrm"):
        resolve("hstu", {})


def test_ties_keep_the_order_of_the_file(tmp_path):
    rows = [(f"u{user}", f"i{(user + place) % 5}", 0) for user in range(5) for place in range(5)]
    for name, order in (("one", 1), ("other", -1)):
        data = prepare(frame(rows[::order]), tmp_path / name, protocol="s3rec")
        items = [data.item_ids[token - 2].as_py() if token > 1 else None for token in data.items(0, 5)]
        expected = [f"i{place}" for place in range(5)][::order]
        assert [one for one, other in zip(items, expected, strict=True) if one not in (None, other)] == []
    one, other = (PreparedData(tmp_path / name).manifest["interactions_fingerprint"] for name in ("one", "other"))
    assert one != other


def test_what_evaluation_must_do_stays_when_days_are_added(tmp_path):
    rows = [(f"u{user}", f"i{(user + n * n) % 30}", n) for user in range(40) for n in range(20)]
    data = prepare(frame(rows), tmp_path / "data", protocol="lsrm")
    grown = append(data, frame([("u1", "i3", 99)]), tmp_path / "grown")
    assert (grown.manifest["protocol"], grown.evaluation) == ("lsrm", data.evaluation)
    assert grown.manifest["interactions_fingerprint"] != data.manifest["interactions_fingerprint"]


def test_evaluation_obeys_the_folder_and_refuses_what_contradicts_it(square, tmp_path, capsys):
    folder = str(prepare(square, tmp_path / "data", protocol="s3rec").path)
    assert main(["evaluate", "--data", folder]) == 0
    out = capsys.readouterr().out
    assert "protocol s3rec, 5-core, leave_one_out, test: full ranking over 6 items, seen items removed" in out
    assert "| model | hr@5 | ndcg@5 | coverage@5 | hr@10 |" in out
    assert "hr@50" not in out
    for words, told in (
        (["--seen", "keep"], "protocol s3rec, which leaves seen items out of the ranking, and filter_seen False"),
        (["--k", "5", "50"], "protocol s3rec, whose cut-offs are 5, 10, 20, and 50 was asked for"),
        (["--target", "basket"], "protocol s3rec, whose target is 'item', and target 'basket' was asked for"),
    ):
        assert main(["evaluate", "--data", folder, *words]) == 2
        assert told in capsys.readouterr().err
    assert main(["evaluate", "--data", folder, "--seen", "remove", "--k", "10", "--target", "item"]) == 0


def test_the_command_says_what_its_source_does_otherwise(square, tmp_path, capsys):
    square.write_csv(tmp_path / "log.csv")
    command = ["prepare", str(tmp_path / "log.csv"), "--output", str(tmp_path / "data"), "--protocol", "s3rec"]
    assert main([*command, "--min-interactions", "3"]) == 2
    assert "--protocol s3rec, --min-interactions 3" in capsys.readouterr().err
    assert main(command) == 0
    assert "s3rec: The paper's main table ranks the target among 99 sampled items" in capsys.readouterr().out
