"""Logs that cannot be read, and options of `prepare` that ask for what they do not have."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
from bad_inputs.row import Damage, Row, both, write

_HEAD = "user_id,item_id,timestamp\n"
_GOOD = _HEAD + "".join(f"u{user},i{step},{step}\n" for user in range(3) for step in range(5))


def _log(id: str, what: str, content: str | bytes, says: str, more: str = "", name: str = "x.csv") -> Row:
    return Row(id, what, f"prepare {name} --output o {more}", says, write(name, content))


def _option(id: str, more: str, says: str) -> Row:
    return _log(id, more, _GOOD, says, more)


def _lists(**columns: list) -> Damage:
    """Writes x.parquet with a row per user."""
    return lambda here: pq.write_table(pa.table({"user_id": ["u1", "u2"], **columns}), here / "x.parquet")


def _pipe(name: str) -> Damage:
    return lambda here: os.mkfifo(here / name)


def _link(name: str, target: str) -> Damage:
    return lambda here: (here / name).symlink_to(target)


ROWS = [
    _log("A140", "empty", "", r"x\.csv"),
    _log("A141", "a header only", _HEAD, r"x\.csv|no rows|empty"),
    _log("A142", "no such columns", "a,b,c\n1,2,3\n", r"x\.csv.*user_id"),
    _log("A143", "a field missing", _HEAD + "u,i\n", r"x\.csv"),
    _log("A144", "no time", _HEAD + "u,i,\n", r"x\.csv.*timestamp|timestamp.*x\.csv"),
    _log("A145", "a time that is none", _HEAD + "u,i,1\nu,i,soon\n", "soon"),
    _log("A146", "times of two kinds", _HEAD + "u,i,1\nu,i,2024-01-01\n", "2024-01-01|timestamp"),
    _log("A147", "no user", _HEAD + ",i,1\n", "user_id"),
    _log("A148", "no item", _HEAD + "u,,1\n", "item_id"),
    _log("A149", "not UTF-8", _HEAD.encode() + b"u\xff,i,1\n", r"x\.csv"),
    _log("A150", "binary", b"\x00\x01\x02" * 1000, r"x\.csv"),
    _log("A151", "unclosed quote", _HEAD + 'u,"i,1\nu,j,2\n', r"x\.csv"),
    _log("A152", "UTF-16", _GOOD.encode("utf-16"), r"x\.csv"),
    _log("A153", "no Parquet file", "hello", r"x\.parquet", name="x.parquet"),
    _log("A154", "no gzip file", "hello", r"x\.csv\.gz", name="x.csv.gz"),
    _log("A155", "no JSON", "hello\n", r"x\.jsonl", name="x.jsonl"),
    _log("A156", "JSON of numbers", "1\n2\n", r"x\.jsonl", name="x.jsonl"),
    _log("A157", "an unknown ending", _GOOD, r"x\.xyz", name="x.xyz"),
    _log("C084", "JSON nested deeply", '{"user_id":' + "[" * 60000 + "]" * 60000 + ', "item_id":1,"timestamp":1}\n',
         r"x\.jsonl", name="x.jsonl"),
    _log("A158", "two columns of one name", "user_id,user_id,item_id,timestamp\n1,1,2,3\n", r"x\.csv|user_id"),
    _log("A159", "infinite times", _HEAD + "u,i,inf\n", "inf|timestamp"),
    Row("A160", "no such file", "prepare nowhere.csv --output o", r"nowhere\.csv: no such file"),
    Row("A161", "an empty folder", "prepare e --output o", "e", lambda here: (here / "e").mkdir()),
    Row("A162", "a glob of nothing", "prepare *.tsv --output o", r"\*\.tsv"),
    Row("A163", "a prepared folder", "prepare d --output o", "d"),
    Row("A164", "a run", "prepare m --output o", "m"),
    Row("A165", "an unknown name", "prepare movielens-7m --output o", "movielens-7m"),
    Row("A166", "the output exists", "prepare x.csv --output o", "o.*(exists|not empty|empty)",
        both(write("x.csv", _GOOD), write("o/mine.txt", "mine"))),
    Row("A167", "the output is a file", "prepare x.csv --output x.csv", r"x\.csv", write("x.csv", _GOOD)),
    Row("A168", "the output lies below a file", "prepare x.csv --output x.csv/o", r"x\.csv", write("x.csv", _GOOD)),
    Row("A169", "the output is empty", "prepare x.csv --output=", "output is empty", write("x.csv", _GOOD)),
    Row("A181", "a FIFO as the log", "prepare p.csv --output o", r"p\.csv", _pipe("p.csv"), seconds=30),
    Row("A182", "/dev/zero linked as csv", "prepare z.csv --output o", r"z\.csv", _link("z.csv", "/dev/zero"), seconds=30),
    Row("A183", "a link to nothing", "prepare l.csv --output o", r"l\.csv", _link("l.csv", "nowhere.csv")),
    Row("A184", "a link to itself", "prepare l.csv --output o", r"l\.csv", _link("l.csv", "l.csv")),
    Row("A185", "a name without end", f"prepare {'x' * 300}.csv --output o", "xxx"),
    _option("A170", "--user-column who", "who"),
    _option("A171", "--min-interactions 0", "--min-interactions"),
    _option("A172", "--min-interactions 99", "99|min_interactions|nothing|no "),
    _option("A173", "--shards 0", "--shards"),
    _option("A174", "--shards 100000", "shards"),
    _option("A175", "--split weekly", "--split: invalid choice"),
    _option("A176", "--split temporal --test-from tomorrow", "tomorrow|test_from"),
    _option("A177", "--split temporal --test-from 9 --validation-from 99", "validation begins at 99, not before test at 9"),
    _option("A178", "--since 99", "since|no row|nothing"),
    _option("A179", "--min-rating 3", "rating"),
    _option("N060", "--min-rating nan", "min.rating|rating"),
    _option("N061", "--unseen-share 2 --split paper", "unseen_share"),
    _option("N062", "--unseen-share nan --split paper", "unseen_share"),
    _option("N063", "--split-seed -1 --split paper", "--split-seed"),
    _option("N064", "--min-trajectory-length 0 --split paper", "--min-trajectory-length"),
    _option("N065", "--separator ab|", "separator"),
    _option("N066", "--names a b", "names|user_id"),
    _option("N067", "--engine dask", "--engine: invalid choice"),
    _option("N068", "--time-unit days", "--time-unit: invalid choice"),
    _option("N069", "--until soon", "soon|until"),
    _option("N140", "--protocol hstu", "--protocol: invalid choice"),
    _option("N141", "--protocol s3rec --min-interactions 3", "--protocol s3rec, --min-interactions 3"),
    _option("N142", "--protocol s3rec --split temporal", "'s3rec' and split 'temporal' contradict each other"),
    _option("N143", "--protocol esasrec --test-from 3", "'esasrec' and test_from '3' contradict each other"),
    _option("N144", "--protocol esasrec --test-days 9", "test_days is 60 or 14 or 7"),
    _option("N145", "--protocol esasrec --min-interactions 1 --min-item-interactions 1", "validation_days 7: .* say time_unit"),
    _option("N146", "--protocol lsrm --repeats first", "'lsrm' and repeats 'first' contradict each other"),
    _option("N147", "--protocol lsrm --min-rating 2", "'lsrm' and min_rating 2.0 contradict each other"),
    _option("N148", "--test-share 0.2", "not for split 'leave_one_out', but for 'temporal': test_share"),
    _option("N149", "--split temporal --test-share 2", "test_share 2.0 must lie between 0 and 1"),
    _option("N150", "--split temporal --test-share .nan", "--test-share"),
    _option("N151", "--split temporal --test-share nan", "test_share nan must lie between 0 and 1"),
    _option("N152", "--split temporal --test-days 3 --test-from 3", "test_from and test_days both say where test begins"),
    _option("N153", "--split temporal --test-days 0", "--test-days"),
    _option("N154", "--split temporal --test-days 2", "test_days 2: the log's times .* say time_unit"),
    _option("N155", "--split temporal --test-from 1 --validation-share 0.9", "leaves nothing to train on"),
    _option("N156", "--min-item-interactions 0", "--min-item-interactions"),
    _option("N157", "--min-item-interactions 9", "core of 1 rows a user, 9 an item of this log is empty"),
    Row("N132", "lists of other lengths", "prepare x.parquet --output o", r"x\.parquet: timestamp .* length .* row 2",
        _lists(item_id=[["a"], ["b", "c"]], timestamp=[[1], [1]])),
    Row("N133", "a list is missing", "prepare x.parquet --output o", r"x\.parquet: item_id is missing in row 2",
        _lists(item_id=[["a"], None], timestamp=[[1], [1]])),
    Row("N134", "one column is a list", "prepare x.parquet --output o", r"x\.parquet: item_id is a list and other",
        _lists(item_id=[["a"], ["b"]], timestamp=[1, 1])),
]  # fmt: skip
