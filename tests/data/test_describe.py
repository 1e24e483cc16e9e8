import json

import numpy as np
import polars as pl
import pytest

from sr_transformers.cli import main
from sr_transformers.data import describe as describe_module
from sr_transformers.data.describe import as_text, describe, draw
from sr_transformers.data.prepare import prepare

# a: x x y at 0, 0, 10; b: x y at 1, 9; c: z at 2; d: x y z w at 5, 6, 7, 7
ROWS = [
    ("a", "x", 0), ("a", "x", 0), ("a", "y", 10), ("b", "x", 1), ("b", "y", 9), ("c", "z", 2),
    ("d", "x", 5), ("d", "y", 6), ("d", "z", 7), ("d", "w", 7),
]  # fmt: skip


@pytest.fixture
def log() -> pl.DataFrame:
    return pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row")


def test_numbers_by_hand(log):
    report = describe(log)
    expected = {
        "users": 4, "items": 4, "interactions": 10, "mean_length": 2.5, "max_length": 4, "repeat_share": 0.1,
        "tied_share": 0.2, "duplicate_rows": 1, "first": 0, "last": 10, "sparsity": 1 - 9 / 16,
        "length_quantiles": {"0.1": 2, "0.5": 3, "0.9": 4, "0.99": 4}, "test_targets": 2,
        "test_targets_tied_with_predecessor": 1, "median_gap": 1, "gap_quantiles": {"0.1": 0, "0.9": 10, "0.99": 10},
        "time_unit": None, "from": "0", "to": "10", "name": "log",
    }  # fmt: skip
    assert {key: report[key] for key in expected} == expected
    # x 4, y 3, z 2, w 1: sum of (2 i - n - 1) x_i over rising x is -3 - 2 + 3 + 12 = 10, over 4 * 10
    assert report["popularity"] == pytest.approx({"top_1%": 0.4, "top_10%": 0.4, "top_50%": 0.7, "gini": 0.25})
    assert report["curves"]["popularity"] == [4, 3, 2, 1]
    assert report["curves"]["lengths"] == {"from": [0, 1, 2, 4], "count": [0, 1, 2, 1]}
    assert report["curves"]["gaps"] == {"from": [0, 1, 2, 4, 8], "count": [2, 2, 0, 0, 2]}
    assert sum(report["curves"]["activity"]["count"]) == 10
    assert any("leave-one-out: 25% of the users" in note for note in report["leaks"])
    assert any("ties: 20%" in note for note in report["leaks"])
    assert any("1 rows repeat user, item and time" in note for note in report["leaks"])


def test_a_prepared_folder_is_described_like_its_log(log, tmp_path):
    data = prepare(log, tmp_path / "data")
    report, of_log = describe(tmp_path / "data"), describe(log)
    same = set(report) - {"name", "leaks", "split"}
    assert {key: report[key] for key in same} == {key: of_log[key] for key in same}
    assert report["split"] == "leave_one_out"
    assert report["leaks"][0].startswith("leave-one-out")
    assert describe(data)["users"] == 4


def test_dates_are_shown_where_the_unit_is_known(log):
    assert describe(log, time_unit="s")["to"] == "1970-01-01T00:00:10"
    dated = log.with_columns(pl.lit("2024-02-03").alias("timestamp"))
    report = describe(dated)
    assert (report["from"], report["time_unit"], report["median_gap"]) == ("2024-02-03T00:00:00", "us", 0)


def test_users_of_one_interaction_have_no_gaps():
    report = describe(pl.DataFrame({"user_id": [1, 2], "item_id": [1, 1], "timestamp": [5, 6]}))
    assert (report["median_gap"], report["gap_quantiles"], report["test_targets"]) == (None, {}, 0)
    assert "between interactions of a user: median None" in as_text(report)


def test_long_logs_are_described_in_blocks(markov_prepared, monkeypatch):
    whole = describe(markov_prepared)
    monkeypatch.setattr(describe_module.blocks, "__defaults__", (50,))
    assert describe(markov_prepared) == whole
    items = np.concatenate(markov_prepared.histories["item_ids"][:])
    assert whole["items"] == len(np.unique(items))


def test_the_command_prints_writes_and_draws(log, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    renamed = log.rename({"user_id": "who", "item_id": "what", "timestamp": "when"})
    renamed.write_csv(tmp_path / "log.csv")
    columns = ["--user-column", "who", "--item-column", "what", "--timestamp-column", "when", "--time-unit", "s"]
    files = ["--json", str(tmp_path / "log.json"), "--figure", str(tmp_path / "log.png")]
    assert main(["data", "describe", str(tmp_path / "log.csv"), *columns, *files]) == 0
    out = capsys.readouterr().out
    assert "10 interactions of 4 users with 4 items" in out
    assert "1 of 2 test targets tie with their predecessor" in out
    report = json.loads((tmp_path / "log.json").read_text())
    names = [
        "users",
        "items",
        "interactions",
        "mean_length",
        "max_length",
        "repeat_share",
        "tied_share",
        "first",
        "last",
    ]
    assert [name for name in names if name not in report] == []
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_without_matplotlib_says_what_to_install(log, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'sr-transformers\[figures\]'"):
        draw(describe(log), tmp_path / "log.png")


def test_append_by_command(log, tmp_path, capsys):
    log.write_csv(tmp_path / "first.csv")
    (tmp_path / "next.csv").write_text("user_id,item_id,timestamp\nb,x,11\n")
    assert main(["prepare", str(tmp_path / "first.csv"), "--output", str(tmp_path / "first")]) == 0
    arguments = [str(tmp_path / "first"), str(tmp_path / "next.csv"), "--output", str(tmp_path / "both")]
    assert main(["data", "append", *arguments]) == 0
    assert "11 interactions of 4 users" in capsys.readouterr().out


def test_a_file_is_told_without_where_it_lies(tmp_path, monkeypatch):
    home = tmp_path / "home" / "zaphod"
    home.mkdir(parents=True)
    (home / "log.csv").write_text("user_id,item_id,timestamp\nu,i,1\nu,j,2\n")
    monkeypatch.setenv("HOME", str(home))
    assert main(["data", "describe", str(home / "log.csv"), "--json", str(tmp_path / "x.json")]) == 0
    assert json.loads((tmp_path / "x.json").read_text())["name"] == "log.csv"
    monkeypatch.chdir(home)
    assert describe("log.csv")["name"] == "log.csv"


def test_gaps_beyond_int64_count_as_the_largest_and_names_are_no_formulas(tmp_path):
    (tmp_path / "a$_$b.csv").write_text(f"user_id,item_id,timestamp\nu,a,{-(2**63)}\nu,b,0\nu,a,{2**63 - 1}\n")
    report = describe(tmp_path / "a$_$b.csv")
    assert (report["median_gap"], report["gap_quantiles"]["0.1"]) == (2**63 - 1, 2**63 - 1)
    draw(report, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size
