"""Damaged and malformed files, refused by name and row; through both engines' common door."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sr_transformers.data.logs.duckdb_engine import DuckDBEngine
from sr_transformers.data.logs.sources import find_log
from sr_transformers.data.prepare import prepare


def read(path: Path, **how) -> None:
    engine = DuckDBEngine(Path("/nonexistent"))
    try:
        engine.load(find_log(path, **how), {}, False)
    finally:
        engine.close()


GOOD = b'{"user_id": 1, "item_id": 2, "timestamp": 3}\n'


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("log.parquet", b"no parquet", ""),
        ("log.csv", b"", "empty"),
        ("log.jsonl", b"\n", "empty"),
        ("log.csv", b"user_id,item_id,timestamp\n1,2,3\n1,2\n", "csv: row 2 has 2 fields, not 3$"),
        ("log.csv", b"user_id,item_id,timestamp\n1,2,3,4\n", "csv: row 1 has 4 fields, not 3$"),
        ("log.dat", b"user_id::item_id::timestamp\n1::2::3\n1::2\n", "row 2 has 2 fields, not 3$"),
        ("log.csv", b'user_id,item_id,timestamp\n1,"2,3\n', "row 1 has a quote that is not closed"),
        ("log.csv", b'user_id,item_id,timestamp\n1,2,3\n1,"2"x,3\n', "row 2 has a quote that is not closed"),
        ("log.csv", b"user_id,item_id,timestamp\n\xff,2,3\n", "row 1 is not UTF-8; convert the file"),
        ("log.csv", b"user_id,item_id,\xff,timestamp\n1,2,3,4\n", "its first line is not UTF-8; convert the file"),
        ("log.csv", b"user_id,item_id,timestamp\n1,2,3\n1,2,3\r\n", r"from row 2 on lines end differently"),
        (
            "log.csv",
            b"user_id,item_id,timestamp\n1," + b"2" * (4 << 20) + b",3\n",
            "row 1 .* longer than 4194304 bytes",
        ),
        ("log.csv", b"user_id,item_id,timestamp\n" + b",".join([b"2" * (3 << 19)] * 3) + b"\n", "row 1 is longer than"),
        ("log.jsonl", GOOD + b'{"user_id": 1,\n', "row 2 is no JSON"),
        ("log.jsonl", b"\n".join([GOOD, GOOD, b"[1]"]), "row 3 is no JSON object"),
        ("log.jsonl", GOOD + b'{"user_id": NaN, "item_id": 1, "timestamp": 1}\n', "row 2 is no JSON .NaN"),
        (
            "log.jsonl",
            GOOD + b'{"user_id": 1, "item_id": 1, "item_id": 2, "timestamp": 1}\n',
            "row 2 has the key item_id",
        ),
        ("log.jsonl", GOOD + b'{"user_id": "\\ud800", "item_id": 1, "timestamp": 1}\n', "user_id of row 2 .*surrogate"),
        ("log.jsonl", GOOD + b'{"user_id": 1, "item_id": "\xff", "timestamp": 1}\n', "row 2 is not UTF-8"),
        (
            "log.jsonl",
            GOOD + b'{"user_id": 1, "item_id": 1.0, "timestamp": 1}\n',
            "item_id of row 2 is 1.0; ids are text",
        ),
        ("log.jsonl", GOOD + b'{"user_id": true, "item_id": 1, "timestamp": 1}\n', "user_id of row 2 is true; ids are"),
        ("log.jsonl", GOOD + b'{"user_id": {"a": 1}, "item_id": 1, "timestamp": 1}\n', 'user_id of row 2 is ."a": 1.;'),
        ("log.jsonl", b"\xef\xbb\xbf" + GOOD, "it begins with a byte order mark"),
        ("log.jsonl", b"user_id\n", "its first line is no JSON object"),
        ("log.jsonl", b"[1]\n", "its first line is no JSON object"),
        ("log.jsonl", b'{"user_id": 1, "x": ' + b"[" * 10**5, "its first line is no JSON object"),
        ("log.jsonl", GOOD + b'{"user_id": 1, "item_id": 2, "x": ' + b"[" * 10**5, "row 2 is nested too deeply"),
        (
            "log.jsonl",
            GOOD + b'{"user_id": ' + b'{"a":' * 10**4 + b"1" + b"}" * 10**4 + b"}\n",
            "row 2 is nested too dee",
        ),
        ("log.csv.gz", b"no gzip", "Not a gzipped file"),
        ("log.csv.gz", gzip.compress(b"user_id,item_id,timestamp\n1,2,3\n", mtime=0)[:-6], "after row 1 it breaks off"),
        ("log.jsonl.gz", gzip.compress(GOOD * 2, mtime=0)[:-6], "after row 2 it breaks off"),
    ],
)
def test_a_file_that_is_not_what_its_suffix_says_is_refused(tmp_path, name, content, detail):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: cannot be read as .*({detail})"):
        read(tmp_path / name)


def test_rows_are_counted_without_header_and_empty_lines_and_lines_within_quotes_are_one(tmp_path):
    rows = ['"u\nx","a\n\n",1\n'] * 5 + ["\n", "u,2\n"]
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n" + "".join(rows), newline="")
    with pytest.raises(ValueError, match=r"log.csv: cannot be read as csv: row 6 has 2 fields, not 3"):
        read(path)
    with pytest.raises(ValueError, match=r"log.csv: cannot be read as csv: row 7 has 2 fields, not 3"):
        read(path, names=["user_id", "item_id", "timestamp"])


def test_a_truncated_parquet_file_is_refused_by_name(tmp_path):
    frame = pl.DataFrame({"user_id": range(9999), "item_id": range(9999), "timestamp": range(9999)})
    frame.write_parquet(tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    (tmp_path / "log.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"log.parquet: cannot be read as parquet"):
        read(tmp_path / "log.parquet")


@pytest.mark.parametrize("kind", ["snappy", "head", "text"])
def test_a_damaged_parquet_file_is_named_among_several(tmp_path, kind):
    numbers = np.random.default_rng(0).integers(0, 10**9, 5000)
    log = pa.table({"user_id": numbers % 7, "item_id": numbers, "timestamp": numbers})
    if kind == "text":
        log = log.set_column(1, "item_id", pa.array(["a", "bcd", "c"] * 1666 + ["d", "e"]))
    for number in range(2):
        pq.write_table(log, tmp_path / f"{number}.parquet", compression="snappy", use_dictionary=False)
    content = bytearray((tmp_path / "1.parquet").read_bytes())
    if kind == "snappy":
        content[len(content) // 2 : len(content) // 2 + 2000] = b"\xff" * 2000
    elif kind == "head":
        content[4:60] = b"\xff" * 56
    else:
        pq.write_table(log, tmp_path / "1.parquet", compression="none", use_dictionary=False)
        content = (tmp_path / "1.parquet").read_bytes().replace(b"bcd", b"\xed\xa0\x80")
    (tmp_path / "1.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"/1.parquet: cannot be read: "):
        prepare(tmp_path / "*.parquet", tmp_path / "data")


def test_text_of_a_table_that_is_not_utf8_is_refused(tmp_path):
    items = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xed\xa0\x80"]).buffers())
    with pytest.raises(ValueError, match=r"log: cannot be read: .*unicode"):
        prepare(pa.table({"user_id": [1, 1], "item_id": items, "timestamp": [1, 2]}), tmp_path / "data")


def test_a_compressed_file_whose_checksum_is_wrong_is_refused(tmp_path):
    content = bytearray(gzip.compress(b"user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,3\n"))
    content[-8] ^= 1  # of the checksum
    (tmp_path / "log.csv.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"log.csv.gz: cannot be decompressed: CRC check failed"):
        prepare(tmp_path / "log.csv.gz", tmp_path / "data")
    assert not (tmp_path / "data").exists()
