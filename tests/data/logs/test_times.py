"""Times that are hardly meant so are kept, and a warning names the row; how times are read is in test_tables.py."""

import datetime as dt
import warnings

import polars as pl
import pyarrow as pa
import pytest

from sr_transformers.cli import main
from sr_transformers.data.append import append
from sr_transformers.data.describe import describe
from sr_transformers.data.prepare import prepare

SECONDS = [1_704_103_200 + 60 * n for n in range(9)]
MILLIS = [1000 * second for second in SECONDS]


def log_of(times: list | pl.Series) -> pl.DataFrame:
    items = [n % 3 for n in range(len(times))]
    return pl.DataFrame({"user_id": ["u"] * len(items), "item_id": items, "timestamp": times})


def warned(times: list | pl.Series, folder, **options) -> list[str]:
    """The warnings of a preparation, whose times come back as they were."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        data = prepare(log_of(times), folder / "data", **options)
    if isinstance(times[0], int) and not {"since", "until"} & options.keys():
        assert data.timestamps(0, len(times)).tolist() == sorted(times)
    return [str(one.message) for one in found if one.category is UserWarning]


def test_a_row_in_milliseconds_among_seconds_is_named(tmp_path):
    times = [*SECONDS[:4], MILLIS[4], *SECONDS[5:]]
    (message,) = warned(times, tmp_path)
    assert message == (
        f"log: timestamp {MILLIS[4]} in row 5 looks like milliseconds, those of other rows like seconds (1 such rows). "
        "They are taken as they stand; if they were meant otherwise, correct the log or leave these rows out."
    )


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (
            [*MILLIS[:7], *SECONDS[7:]],
            ["row 8 looks like seconds, those of other rows like milliseconds (2 such rows)"],
        ),
        ([*SECONDS[:8], SECONDS[8] * 10**6], ["row 9 looks like microseconds, those of other rows like seconds (1"]),
        ([*SECONDS[:8], SECONDS[8] * 10**9], ["row 9 looks like nanoseconds, those of other rows like seconds (1"]),
        ([0, *SECONDS[:6], MILLIS[7], SECONDS[8] * 10**6], ["row 8 looks like milli", "row 9 looks like micro"]),
        ([second + 0.5 for second in SECONDS[:8]] + [MILLIS[8] + 0.0], ["row 9 looks like milliseconds, those of"]),
        ([str(second) for second in SECONDS[:8]] + [str(MILLIS[8])], [f"{MILLIS[8]} in row 9 looks like milliseconds"]),
        (SECONDS, []),
        ([*SECONDS[:8], 5], []),  # a moment in 1970, perhaps; nothing else that it could be
        (list(range(9)), []),
        ([10 * 16**n for n in range(13)], []),  # a counter that is no time: values everywhere
    ],
)
def test_numbers_that_look_like_several_units_are_named(tmp_path, times, words):
    found = warned(times, tmp_path)
    assert len(found) == len(words)
    for message, word in zip(found, words, strict=True):
        assert word in message


@pytest.mark.parametrize(
    ("times", "unit", "words"),
    [
        (MILLIS, "s", f"timestamp {MILLIS[0]} in row 1 is in the year 55970 if it counts seconds since 1970 (tim"),
        ([*SECONDS[:8], MILLIS[8]], "s", f"timestamp {MILLIS[8]} in row 9 is in the year 55970 if it counts seconds"),
        (SECONDS, "ms", f"timestamp {SECONDS[0]} in row 1 is in the year 1970 if it counts milliseconds since 1970"),
        (SECONDS, "us", "is in the year 1970 if it counts microseconds since 1970 (time_unit 'us') (9 such rows)"),
        ([*SECONDS[:8], -(10**12)], "s", "row 9 is in the year -29719 if it counts seconds"),
        (SECONDS, "s", None),
        (MILLIS, "ms", None),
        ([0, *SECONDS[1:]], "s", None),
        ([dt.datetime(2024, 1, day) for day in range(1, 8)] + [dt.datetime(1, 1, 1)], None,
         "timestamp 0001-01-01 00:00:00 in row 8 is in the year 1 as written (1 such rows)"),
        (["2024-01-01", "1899-12-31", "2024-01-02"], None, "1899-12-31 in row 2 is in the year 1899 as written"),
        (["2024-01-01", "1900-01-01", "9999-12-31T23:59:59Z"], None, None),
        (pl.Series([0, 2**58]).cast(pl.Datetime("us")), None, "in row 2 is in the year 11103 as written"),
    ],
)  # fmt: skip
def test_moments_that_the_unit_puts_far_away_are_named(tmp_path, times, unit, words):
    times = times if len(times) > 2 else pl.concat([times, times])
    found = warned(times, tmp_path, time_unit=unit)
    assert len(found) == (words is not None)
    if words is not None:
        assert words in found[0]


def test_rows_that_are_left_out_are_not_warned_of(tmp_path):
    assert warned(["0001-01-01", "2024-01-01", "2024-01-02", "2024-01-03"], tmp_path, since="1900-01-01") == []
    assert len(warned([*SECONDS, MILLIS[0]], tmp_path / "all")) == 1
    assert warned([*SECONDS, MILLIS[0]], tmp_path / "some", until=10**11) == []


def test_new_rows_in_another_unit_than_the_old_ones_are_named(tmp_path):
    data = prepare(log_of(SECONDS), tmp_path / "data")
    with pytest.warns(
        UserWarning, match=rf"{MILLIS[2]} in row 1 looks like milliseconds, those of other rows like sec"
    ):
        append(data, log_of(MILLIS[2:]), tmp_path / "both")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        append(data, log_of(SECONDS[2:]), tmp_path / "fine")


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_digits_beyond_microseconds_are_cut_off_downwards_with_a_warning(tmp_path, zone):
    nanos = [1_704_103_200_000_000_999, -1, 5000]
    times = pa.array(nanos).cast(pa.timestamp("ns", zone))
    log = pa.table({"user_id": ["u"] * 3, "item_id": [1, 2, 1], "timestamp": times})
    with pytest.warns(UserWarning, match=r"in row 1 has digits beyond microseconds \(2 such rows\). Those .* cut off"):
        data = prepare(log, tmp_path / "data")
    assert data.timestamps(0, 3).tolist() == [-1, 5, 1_704_103_200_000_000]


def test_describe_warns_too_and_commands_warn_in_one_line(tmp_path, capsys):
    with pytest.warns(UserWarning, match="row 1 looks like milliseconds"):
        describe(log_of([MILLIS[0], *SECONDS]))
    log_of([MILLIS[0], *SECONDS]).write_csv(tmp_path / "log.csv")
    assert main(["prepare", str(tmp_path / "log.csv"), "--output", str(tmp_path / "data")]) == 0
    assert main(["data", "describe", str(tmp_path / "log.csv")]) == 0
    for line, command in zip(capsys.readouterr().err.splitlines(), ("prepare", "data"), strict=True):
        assert line.startswith(f"sr-transformers {command}: {tmp_path}/log.csv: timestamp {MILLIS[0]} in row 1 looks")
