"""Every Arrow type as user, item and time, from a frame and from Parquet: the exact value, or a refusal in words."""

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sr_transformers.data.logs import tables
from sr_transformers.data.logs.cleaning import Filters, clean_log
from sr_transformers.data.logs.duckdb_engine import DuckDBEngine
from sr_transformers.data.logs.sources import find_log
from sr_transformers.data.logs.tables import arrow_table
from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import decode_items

SECOND = 1_704_103_200  # 2024-01-01T10:00:00Z
MICRO = 10**6
BIG = 2**53 + 1  # no double
ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2**127 + 5)
STAMPS = [SECOND, SECOND + 1]
NO_ID = "ids are text or integers"
NO_TIME = "timestamp is no time"
CAST = "Cast the column first"


def stamps(unit: str, zone: str | None = None) -> pa.Array:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return pa.array([stamp * factor for stamp in STAMPS]).cast(pa.timestamp(unit, zone))


def ints(kind: pa.DataType) -> pa.Array:
    return pa.array([1, 2], kind)


MICROS = [stamp * MICRO for stamp in STAMPS]
# Two values each; what comes back as ids, and as times: values, or words of the refusal.
KINDS: dict[str, tuple[pa.Array, list | str, list | str]] = {
    **{str(kind): (ints(kind), [1, 2], [1, 2]) for kind in
       (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    "int64 of 64 bits": (pa.array([BIG, 2**63 - 1]), [BIG, 2**63 - 1], [BIG, 2**63 - 1]),
    "int64 below zero": (pa.array([-(2**63), -1]), [-(2**63), -1], [-(2**63), -1]),
    "uint64 of 64 bits": (pa.array([2**63, 2**64 - 1], pa.uint64()), [2**63, 2**64 - 1], NO_TIME),
    "float16": (pa.array([1.0, 2.0]).cast(pa.float16()), NO_ID, [1, 2]),
    "float32": (pa.array([1.0, 2.0], pa.float32()), NO_ID, [1, 2]),
    "float64": (pa.array([1.0, 2.0]), NO_ID, [1, 2]),
    "float64 with fractions": (pa.array([1.25, 2.5]), NO_ID, [1_250_000, 2_500_000]),
    "float64 not finite": (pa.array([1.0, float("inf")]), NO_ID, NO_TIME),
    "decimal32": (pa.array([Decimal(1), Decimal(2)], pa.decimal32(5, 0)), NO_ID, [1, 2]),
    "decimal128": (pa.array([Decimal(BIG), Decimal(BIG + 1)], pa.decimal128(38, 0)), NO_ID, [BIG, BIG + 1]),
    "decimal128 beyond": (pa.array([Decimal(1), Decimal(2**63)], pa.decimal128(38, 0)), NO_ID, NO_TIME),
    "decimal128 of whole numbers": (pa.array([Decimal(BIG), Decimal(BIG + 1)], pa.decimal128(38, 2)), NO_ID,
                                    [BIG, BIG + 1]),
    "decimal128 with fractions": (pa.array([Decimal("1704103200123.000456"), Decimal(2)], pa.decimal128(38, 9)), NO_ID,
                                  [1704103200123000456, 2 * MICRO]),
    "decimal256": (pa.array([Decimal(1), Decimal(2)], pa.decimal256(50, 0)), CAST, CAST),
    "bool": (pa.array([True, False]), NO_ID, NO_TIME),
    "null": (pa.nulls(2), NO_ID, "timestamp is missing in row 1"),
    "string": (pa.array(["1", "2"]), ["1", "2"], [1, 2]),
    "large_string": (pa.array(["007", "é"], pa.large_string()), ["007", "é"], NO_TIME),
    "string_view": (pa.array(["1", "2"], pa.string_view()), ["1", "2"], [1, 2]),
    "dictionary of text": (pa.array(["b", "a"]).dictionary_encode(), ["a", "b"], NO_TIME),
    "dictionary of integers": (ints(pa.int64()).dictionary_encode(), [1, 2], [1, 2]),
    "dictionary of moments": (stamps("us").dictionary_encode(), NO_ID, MICROS),
    "uuid": (pa.array([TWO.bytes, ONE.bytes], pa.binary(16)).cast(pa.uuid()), [str(ONE), str(TWO)], NO_TIME),
    "binary": (pa.array([b"1", b"2"]), NO_ID, NO_TIME),
    "large_binary": (pa.array([b"1", b"2"], pa.large_binary()), NO_ID, NO_TIME),
    "fixed_size_binary": (pa.array([ONE.bytes, TWO.bytes], pa.binary(16)), NO_ID, NO_TIME),
    "date32": (pa.array([dt.date(2024, 1, 1), dt.date(1969, 12, 31)]), NO_ID, [1_704_067_200 * MICRO, -86400 * MICRO]),
    "date64": (pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 2)], pa.date64()), NO_ID,
               [1_704_067_200 * MICRO, 1_704_153_600 * MICRO]),
    **{f"timestamp {unit} {zone}": (stamps(unit, zone), NO_ID, MICROS)
       for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Europe/Berlin", "+05:30")},
    "timestamp ns before 1970": (pa.array([-1000, -10**9]).cast(pa.timestamp("ns", "UTC")), NO_ID, [-1, -MICRO]),
    "time32": (pa.array([1, 2], pa.time32("s")), NO_ID, NO_TIME),
    "time64": (pa.array([1, 2], pa.time64("us")), NO_ID, NO_TIME),
    "duration": (pa.array([1, 2], pa.duration("us")), CAST, CAST),
    "interval": (pa.array([(1, 2, 3), (1, 2, 4)], pa.month_day_nano_interval()), NO_ID, NO_TIME),
    "list": (pa.array([[1], [2]]), NO_ID, NO_TIME),
    "struct": (pa.array([{"a": 1}, {"a": 2}]), NO_ID, NO_TIME),
    "map": (pa.array([[("a", 1)], [("b", 2)]], pa.map_(pa.string(), pa.int64())), NO_ID, NO_TIME),
    "run_end_encoded": (pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), pa.array(["a", "b"])),
                        ["a", "b"], NO_TIME),
    "json": (pa.array(['"a"', '"b"'], pa.json_()), CAST, CAST),
    "bool8": (pa.array([1, 0], pa.int8()).cast(pa.bool8()), CAST, CAST),
    "period": (pa.array(pd.Series(pd.period_range("2024-01", periods=2, freq="M"))), CAST, CAST),
}  # fmt: skip
NOT_IN_PARQUET = {"run_end_encoded", "interval"}
PLACES = [
    pytest.param(name, how, id=f"{name}-{how}")
    for name in KINDS
    for how in ("frame", "parquet")
    if not (how == "parquet" and name in NOT_IN_PARQUET)
]


def source(columns: dict, how: str, folder: Path) -> pa.Table | Path:
    if how == "frame":
        return pa.table(columns)
    pq.write_table(pa.table(columns), folder / "log.parquet")
    return folder / "log.parquet"


def columns(**given: pa.Array) -> dict[str, pa.ChunkedArray | list]:
    """A log of two rows, three times over, so that users and items have histories, with some columns given."""
    others = {"user_id": [7] * 6, "item_id": list(range(6)), "timestamp": [1] * 6}
    return {name: pa.chunked_array([given[name]] * 3) if name in given else others[name] for name in others}


def sound_times(log: pa.Table | Path) -> list[int]:
    found, engine = find_log(log), DuckDBEngine(Path("/nonexistent"))
    try:
        engine.load(found, {}, False)
        clean_log(engine, found.name, Filters())
        return [time for (time,) in engine.rows("SELECT timestamp FROM log ORDER BY ordinal")]
    finally:
        engine.close()


@pytest.mark.parametrize(("name", "how"), PLACES)
def test_ids_of_every_type_come_back_or_are_refused_in_words(tmp_path, name, how):
    values, expected, _ = KINDS[name]
    if isinstance(expected, str):
        for column in ("user_id", "item_id"):
            with pytest.raises(
                ValueError, match=rf"{'log.parquet' if how == 'parquet' else '^log'}: {column} .*{expected}"
            ):
                sound_times(source(columns(**{column: values}), how, tmp_path))
        return
    data = prepare(source(columns(user_id=values, item_id=values), how, tmp_path), tmp_path / "data")
    assert data.histories["user_id"][:] == expected
    assert sorted(data.item_ids.to_pylist()) == expected
    assert sorted(decode_items(data.tokenizer, [2, 3])) == expected


@pytest.mark.parametrize(("name", "how"), PLACES)
def test_times_of_every_type_are_exact_or_refused_in_words(tmp_path, name, how):
    values, _, expected = KINDS[name]
    log = source(columns(timestamp=values), how, tmp_path)
    if isinstance(expected, str):
        with pytest.raises(
            ValueError, match=rf"{'log.parquet' if how == 'parquet' else '^log'}: .*{expected}"
        ) as caught:
            sound_times(log)
        assert "timestamp" in str(caught.value)
        return
    assert sound_times(log) == expected * 3


TEXTS = {
    "1704103200": SECOND,
    "1704103200.25": (SECOND * 4 + 1) * MICRO // 4,
    "1704103200123.000456": 1704103200123000456,
    "2024-01-01 10:00:00": SECOND * MICRO,
    "2024-01-01 10:00:00 UTC": SECOND * MICRO,
    "2024-01-01 10:00:00.5 UTC": SECOND * MICRO + MICRO // 2,
    "2024-01-01 10:00:00 GMT": SECOND * MICRO,
    "2024-01-01 12:00:00 +0200": SECOND * MICRO,
    "2024-01-01T10:00:00z": SECOND * MICRO,
    "2024-01-01T08:29:59.75-01:30": (SECOND - 1) * MICRO + 3 * MICRO // 4,
    "2024-01-01 15:30:00+05:30": SECOND * MICRO,
    "2024-01-01T10:00:00.000001Z": SECOND * MICRO + 1,
    "2024-02-30T10:00:00Z": None,
    "2024-01-01 10:00:00,123": SECOND * MICRO + 123_000,
    "20240101T100000Z": SECOND * MICRO,
    "20240101T100000": SECOND * MICRO,
    "20240101T1000": SECOND * MICRO,
    "20240101T153000.25+0530": SECOND * MICRO + MICRO // 4,
    "0950-01-01T00:00:00Z": -32_188_060_800 * MICRO,
    "2024-01-01 10:00:00 CET": None,
    "2024-01-01T10:00:0099": None,
    "2024-01-01T24:00:00": None,
    "20240101T1000Zulu": None,
    "2024-1-1": None,
    "Mon Jan 01 10:00:00 2024": None,
    "2024-W01-1": None,
}


@pytest.mark.filterwarnings("ignore:.*in the year")
@pytest.mark.parametrize("how", ["csv", "frame", "parquet"])
@pytest.mark.parametrize("text", TEXTS)
def test_times_in_text_are_exact_or_refused_with_the_row(tmp_path, text, how):
    if how == "csv":
        log = tmp_path / "log.csv"
        log.write_text(f'user_id,item_id,timestamp\n7,1,"{text}"\n7,2,"{text}"\n')
    else:
        log = source({"user_id": [7, 7], "item_id": [1, 2], "timestamp": [text, text]}, how, tmp_path)
    if TEXTS[text] is None:
        with pytest.raises(ValueError, match=r"timestamp is no time .* in row 1: '"):
            sound_times(log)
    else:
        assert sound_times(log) == [TEXTS[text]] * 2


ROWS = {"user_id": ["a", "a", "a", "b"], "item_id": [str(ONE), "y", "x", "x"], "timestamp": [3, 1, 2, 1]}


def generated():
    for row in zip(*ROWS.values(), strict=True):
        yield dict(zip(ROWS, row, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: pl.DataFrame(ROWS),
        lambda: pl.LazyFrame(ROWS).filter(pl.col("timestamp") > 0),
        lambda: pd.DataFrame(ROWS),
        lambda: pa.table(ROWS),
        lambda: pa.table(ROWS).to_reader(max_chunksize=3),
        lambda: datasets.Dataset.from_dict(ROWS),
        lambda: datasets.Dataset.from_dict(ROWS).select([0, 1, 2, 3]),
        lambda: datasets.Dataset.from_dict(ROWS).to_iterable_dataset(),
        lambda: datasets.IterableDataset.from_generator(generated),
        lambda: datasets.DatasetDict(train=datasets.Dataset.from_dict(ROWS)),
        lambda: datasets.IterableDatasetDict(only=datasets.IterableDataset.from_generator(generated)),
    ],
)
def test_tables_of_every_make_are_read_in_their_order(make):
    table = arrow_table(make())
    assert table is not None
    assert table.select(list(ROWS)).to_pydict() == ROWS


def test_an_iterable_data_set_in_several_batches_is_one_log(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "_BATCH", 3)
    data = prepare(datasets.IterableDataset.from_generator(generated), tmp_path / "data")
    assert data.histories["user_id"][:] == ["a", "b"]
    assert data.lengths.tolist() == [3, 1]


@pytest.mark.parametrize("make", [datasets.DatasetDict, datasets.IterableDatasetDict])
def test_of_several_splits_one_must_be_chosen(make, tmp_path):
    one = datasets.Dataset.from_dict(ROWS)
    one = one if make is datasets.DatasetDict else one.to_iterable_dataset()
    with pytest.raises(ValueError, match=r"several splits \(train, test\), a log is one: pass data\['train'\]"):
        prepare(make(train=one, test=one), tmp_path / "data")


def test_what_is_no_table_or_no_one_type_is_refused(tmp_path):
    assert arrow_table([1]) is None
    with pytest.raises(ValueError, match=r"a log is a path, .* or a data set; this is a list"):
        prepare([1], tmp_path / "data")  # type: ignore[arg-type]
    mixed = pd.DataFrame({"user_id": ["a", 1], "item_id": [1, 2], "timestamp": [1, 2]})
    with pytest.raises(ValueError, match="log: user_id is int in row 2 and str before; give the column one type"):
        arrow_table(mixed)

    def changing():
        yield {"user_id": 1}
        yield {"user_id": "a"}

    with pytest.raises(ValueError, match=r"log: the types of its columns change on the way .*string"):
        arrow_table(datasets.IterableDataset.from_generator(changing))
    with pytest.raises(ValueError, match="log: there are no interactions in it"):
        arrow_table(datasets.IterableDataset.from_generator(lambda: iter(())))


def test_uuids_of_a_pandas_frame_are_their_text(tmp_path):
    log = pd.DataFrame({"user_id": [ONE] * 3, "item_id": [TWO, ONE, TWO], "timestamp": [1, 2, 3]})
    data = prepare(log, tmp_path / "data")
    assert data.histories["user_id"][:] == [str(ONE)]
    assert data.tokenizer.convert_ids_to_tokens(2) == str(TWO)
