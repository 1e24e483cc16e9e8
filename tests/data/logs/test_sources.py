import gzip
import json
import re
from pathlib import Path

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sr_transformers.data.logs import synthetic
from sr_transformers.data.logs.duckdb_engine import DuckDBEngine
from sr_transformers.data.logs.sources import find_log, map_columns


def read(source, columns: dict | None = None, rating: bool = False, **how) -> list[tuple]:
    """All rows of a source in its order, as the engine has them."""
    log = find_log(source, **how)
    engine = DuckDBEngine(Path("/nonexistent"))
    engine.load(log, {**dict(log.columns), **(columns or {})}, rating)
    names = [name for name in engine.schema("raw").names if name != "ordinal"]
    rows = engine.rows(f"SELECT {', '.join(names)} FROM raw ORDER BY ordinal")
    engine.close()
    return rows


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


ROWS = [("007", "1e3", "5"), ("7", "0x10", "6")]


def test_csv_ids_are_the_text_that_stands_there(tmp_path):
    path = write(tmp_path / "log.csv", "timestamp,user_id,note,item_id\n5,007,x,1e3\n6,7,y,0x10\n")
    assert read(path) == ROWS


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_with_windows_line_ends_a_byte_order_mark_and_quotes(tmp_path, mark, end):
    lines = [f'{mark}"user_id","item_id",timestamp', '"a,b","say ""x""",1', "c,d,2", ""]
    assert read(write(tmp_path / "log.csv", end.join(lines))) == [("a,b", 'say "x"', "1"), ("c", "d", "2")]


def test_tsv_is_cut_at_tabs_and_columns_are_mapped(tmp_path):
    path = write(tmp_path / "log.tsv", "who\twhat\ttimestamp\na\tb,c\t1\n")
    assert read(path, {"user_id": "who", "item_id": "what"}) == [("a", "b,c", "1")]


def test_dat_is_cut_at_double_colons_and_names_stand_in_for_a_header(tmp_path):
    path = write(tmp_path / "ratings.dat", "1::1193::5::978300760\n1::661::3::978302109\n")
    names = ["user_id", "item_id", "rating", "timestamp"]
    assert read(path, names=names) == [("1", "1193", "978300760"), ("1", "661", "978302109")]
    assert read(path, names=names, rating=True)[0] == ("1", "1193", "978300760", "5")
    headed = write(tmp_path / "headed.dat", "timestamp::item_id::user_id\n1::b:c::a\n")
    assert read(headed) == [("a", "b:c", "1")]
    named = write(tmp_path / "log.csv", "user_id|item_id|timestamp\na|b|1\n")
    assert read(named, separator="|") == [("a", "b", "1")]
    tabs = write(tmp_path / "tabs.csv", "user_id\titem_id\ttimestamp\na\tb\t1\n")
    assert read(tabs, separator="\\t") == [("a", "b", "1")]
    for separator in ("", "\n", '"', "|||||"):
        with pytest.raises(ValueError, match=r"separator .* must be 1 to 4 bytes of text"):
            find_log(named, separator=separator)


@pytest.mark.parametrize(("name", "mark"), [("log.csv", ";"), ("log.csv", "\t"), ("log.tsv", ",")])
def test_another_separator_is_guessed_at(tmp_path, name, mark):
    path = write(tmp_path / name, mark.join(["user_id", "item_id", "timestamp"]) + "\n")
    with pytest.raises(
        ValueError, match=rf"{name}: column .* Are its fields separated by {re.escape(repr(mark))}\? .*--separator"
    ):
        read(path)


def test_a_header_line_may_hold_a_line_break_within_quotes(tmp_path):
    path = write(tmp_path / "log.csv", '"user\nid",item_id,timestamp\na,b,1\n')
    assert read(path, {"user_id": "user\nid"}) == [("a", "b", "1")]


def test_jsonl_keys_may_stand_in_any_order(tmp_path):
    lines = [{"user_id": "007", "item_id": 12, "timestamp": 5, "tags": [1]}, {"item_id": "é\n", "timestamp": 6.5}]
    lines[1]["user_id"] = 2**70
    path = write(tmp_path / "log.jsonl", "\n".join(map(json.dumps, lines)))
    assert read(path) == [("007", "12", "5"), (str(2**70), "é\n", "6.5")]


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz"])
def test_text_may_be_compressed(tmp_path, name):
    text = "user_id,item_id,timestamp\na,b,1\n" if "csv" in name else '{"user_id":"a","item_id":"b","timestamp":1}\n'
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    assert read(tmp_path / name) == [("a", "b", "1")]


def test_parquet_keeps_its_types(tmp_path):
    frame = pl.DataFrame({"extra": [0.5, 0.5], "user_id": [2, 1], "item_id": ["b", "a"], "timestamp": [1.5, 2.5]})
    frame.write_parquet(tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet") == [(2, "b", 1.5), (1, "a", 2.5)]


def test_a_folder_and_a_glob_are_read_in_the_order_of_names(tmp_path):
    (tmp_path / "log").mkdir()
    for day in (10, 9, 8):
        write(tmp_path / "log" / f"day-{day:02}.csv", f"user_id,item_id,timestamp\nu,i{day},{day}\n")
    write(tmp_path / "log" / "_SUCCESS", "")
    assert [row[1] for row in read(tmp_path / "log")] == ["i8", "i9", "i10"]
    assert [row[1] for row in read(tmp_path / "log" / "day-0*.csv")] == ["i8", "i9"]
    (tmp_path / "log" / "old").mkdir()
    write(tmp_path / "log" / "old" / "day.csv", "user_id,item_id,timestamp\nu,i0,0\n")
    with pytest.raises(ValueError, match=r"/old: folders within a log's folder are not read; take a glob such as"):
        find_log(tmp_path / "log")
    assert [row[1] for row in read(tmp_path / "log" / "**" / "*.csv")] == ["i8", "i9", "i10", "i0"]


def test_files_of_one_log_may_order_their_columns_differently(tmp_path):
    write(tmp_path / "1.csv", "user_id,item_id,timestamp\na,b,1\n")
    write(tmp_path / "2.csv", "timestamp,x,user_id,item_id\n2,?,c,d\n")
    assert read(tmp_path / "*.csv") == [("a", "b", "1"), ("c", "d", "2")]


@pytest.mark.parametrize("name", ["[1]*.csv", "it's.csv", "a'b.parquet", "{x}.jsonl"])
def test_file_names_may_hold_anything(tmp_path, name):
    frame = pl.DataFrame({"user_id": ["a"], "item_id": ["b"], "timestamp": ["1"]})
    path = tmp_path / name
    {".csv": frame.write_csv, ".parquet": frame.write_parquet, ".jsonl": frame.write_ndjson}[path.suffix](path)
    write(tmp_path / "11.csv", "user_id,item_id,timestamp\nnot,this,1\n")
    assert read(path) == [("a", "b", "1")]


def test_columns_that_differ_in_case_are_told_apart(tmp_path):
    table = {"USER_ID": ["no"], "user_id": ["a"], "item_id": ["b"], "timestamp": [1], "Timestamp": [2]}
    pl.DataFrame(table).write_parquet(tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet") == [("a", "b", 1)]
    assert read(tmp_path / "log.parquet", {"timestamp": "Timestamp"}) == [("a", "b", 2)]
    write(tmp_path / "log.jsonl", '{"USER_ID": "no", "user_id": "a", "item_id": "b", "timestamp": 1}\n')
    assert read(tmp_path / "log.jsonl") == [("a", "b", "1")]


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.jsonl"])
def test_the_name_of_a_folder_is_no_column(tmp_path, name):
    path = tmp_path / "item_id=7" / "day=1" / name
    path.parent.mkdir(parents=True)
    frame = pl.DataFrame({"user_id": ["a"], "item_id": ["b"], "timestamp": ["1"]})
    {".csv": frame.write_csv, ".parquet": frame.write_parquet, ".jsonl": frame.write_ndjson}[path.suffix](path)
    assert read(path) == [("a", "b", "1")]


def test_a_column_name_that_duckdb_needs_is_refused(tmp_path):
    table = {"user_id": ["a"], "item_id": ["b"], "timestamp": [1], "File_row_number": [9]}
    pl.DataFrame(table).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match=r"log.parquet: DuckDB needs the name file_row_number for itself; rename"):
        read(tmp_path / "log.parquet")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("first", [True, False])
def test_all_files_have_a_domain_or_none_has(tmp_path, suffix, first):
    plain = pl.DataFrame({"user_id": ["a"], "item_id": ["b"], "timestamp": [1]})
    for number, frame in enumerate((plain, plain.with_columns(domain=pl.lit("d")))[:: -1 if first else 1]):
        path = tmp_path / f"{number}.{suffix}"
        frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    with pytest.raises(
        ValueError, match=rf"1.{suffix}: it has {'no' if first else 'a'} column domain, unlike the files"
    ):
        read(tmp_path)


def test_parquet_files_of_other_types_are_refused_by_name(tmp_path):
    for number, users in enumerate(([1], ["a"])):
        frame = pl.DataFrame({"user_id": users, "item_id": [1], "timestamp": [1]})
        frame.write_parquet(tmp_path / f"{number}.parquet")
    with pytest.raises(ValueError, match=r"1.parquet: its columns are .*string.*, those of the files before it int64"):
        read(tmp_path)


def test_files_of_several_formats_and_other_files_are_refused(tmp_path):
    write(tmp_path / "a.csv", "x")
    write(tmp_path / "b.tsv", "x")
    with pytest.raises(ValueError, match=r"files of several formats \(.csv, .tsv\); take one glob"):
        find_log(tmp_path)
    write(tmp_path / "readme.txt", "x")
    with pytest.raises(ValueError, match=r"readme.txt: files are read as .csv, .tsv, .dat, .jsonl"):
        find_log(tmp_path)


@pytest.mark.parametrize("name", ["log.xlsx", "log", "log.gz", "log.parquet.gz", "log.csv.GZ"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: files are read as .csv, .tsv, .dat"):
        find_log(write(tmp_path / name, "x"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_missing_columns_are_named_beside_those_that_are_there(tmp_path, suffix):
    path = tmp_path / f"log.{suffix}"
    frame = pl.DataFrame({"userId": [1], "item_id": [2], "timestamp": [3]})
    frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    with pytest.raises(ValueError, match=r"log.* user_id is missing; there are userId, item_id, times"):
        read(path)
    with pytest.raises(ValueError, match=r"movie \(for item_id\) is missing"):
        read(path, {"user_id": "userId", "item_id": "movie"})


def test_one_column_cannot_be_two_of_ours(tmp_path):
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp\na,b,1\n")
    with pytest.raises(ValueError, match=r"log.csv: column item_id cannot be user_id and item_id as well; map one"):
        read(path, {"user_id": "item_id"})


def test_mapping_a_column_that_is_not_ours_is_refused():
    with pytest.raises(ValueError, match=r"\['stars'\] cannot be mapped; .*'domain', 'item_id', 'rating', 'times"):
        map_columns(["user_id", "item_id", "timestamp"], "log", {"stars": "rating"})


def test_a_column_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"log.csv: column item_id stands twice in user_id, item_id, item_id, time"):
        read(write(tmp_path / "log.csv", "user_id,item_id,item_id,timestamp\n1,2,3,4\n"))


def test_a_missing_file_names_itself_and_the_sets_with_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.csv: no such file; .*complete-journey, synthetic, movielens-1"):
        find_log(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match=r"there are no files in it"):
        find_log(tmp_path)


def test_names_and_separators_belong_to_csv(tmp_path):
    for how in ({"names": ["a"]}, {"separator": ";"}):
        with pytest.raises(ValueError, match=r"log.jsonl: names and separator belong to CSV files"):
            find_log(write(tmp_path / "log.jsonl", "{}"), **how)


def test_frames_tables_and_data_sets_give_their_columns_under_our_names():
    frame = pl.DataFrame({"who": ["a", "b"], "item_id": ["b", "c"], "timestamp": [1, 2], "token": [9, 9]})
    for source in (frame, frame.to_arrow(), datasets.Dataset(pa.table(frame.to_dict(as_series=False)))):
        assert read(source, {"user_id": "who"}) == [("a", "b", 1), ("b", "c", 2)]
    assert read(datasets.Dataset.from_dict(frame.to_dict()).select([1]), {"user_id": "who"}) == [("b", "c", 2)]


def test_a_hub_data_set_is_loaded_by_its_address(monkeypatch):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return datasets.Dataset.from_dict({"user_id": ["a"], "item_id": ["b"], "timestamp": [1]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("hf://datasets/some/log") == [("a", "b", 1)]
    read("hf://datasets/some/log@v2?name=shop&split=test")
    assert asked == [
        (("some/log", None), {"split": "train", "revision": None}),
        (("some/log", "shop"), {"split": "test", "revision": "v2"}),
    ]
    for address in ("hf://datasets/log", "hf://datasets/some/log?config=shop"):
        with pytest.raises(ValueError, match=r"write hf://datasets/OWNER/NAME\[@REVISION\]\[\?name=CONFIG&split"):
            find_log(address)


def test_a_hub_data_set_that_cannot_be_had_says_so(monkeypatch):
    def load_dataset(*arguments, **options):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(FileNotFoundError, match=r"hf://datasets/some/log: not on the Hub, or no network .*offline"):
        find_log("hf://datasets/some/log")


def test_synthetic_is_embedded(monkeypatch):
    monkeypatch.setattr(synthetic, "generate", lambda: pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": [0]}))
    assert read("synthetic") == [(1, 2, 0)]
    with pytest.raises(ValueError, match="synthetic: column who"):
        read("synthetic", {"user_id": "who"})


def test_pandas_frames_and_other_tables_of_arrow_are_taken():
    frame = pd.DataFrame({"user_id": ["b", "a", "a"], "item_id": [2, 1, 3], "timestamp": [1, 2, 3]})
    assert read(frame) == [("b", 2, 1), ("a", 1, 2), ("a", 3, 3)]
    assert read(frame[frame.user_id == "a"]) == [("a", 1, 2), ("a", 3, 3)]
    assert read(frame.set_index("user_id")) == read(frame)
    kinds = frame.astype({"user_id": "category"}).assign(timestamp=pd.to_datetime(["2024-01-01"] * 3))
    assert [row[0] for row in read(kinds)] == ["b", "a", "a"]
    assert read(pa.table(frame).to_batches()[0]) == read(frame)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None, "1", 2], "log: user_id is str in row 3 and int before; give the column one type"),
        (["a", "\ud800", "b", "c"], "log: it cannot be made an Arrow table: .*surrogates not allowed"),
    ],
)
def test_a_frame_that_arrow_does_not_take_is_refused(values, message):
    frame = pd.DataFrame({"user_id": pd.Series(values, dtype=object), "item_id": 1, "timestamp": 1})
    with pytest.raises(ValueError, match=message):
        find_log(frame)


@pytest.mark.parametrize("source", [None, {"user_id": ["a"]}, ["a.csv"]])
def test_what_is_no_log_is_refused(source):
    with pytest.raises(ValueError, match=f"a log is a path, a name, .*; this is a {type(source).__name__}"):
        find_log(source)
