import datetime as dt
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_transformers.data.logs.cleaning import Filters, clean_log
from sr_transformers.data.logs.duckdb_engine import DuckDBEngine
from sr_transformers.data.logs.sources import Log

MICROSECOND = 1
SECOND = 1_000_000 * MICROSECOND
NEW_YEAR = 1_704_067_200 * SECOND  # 2024-01-01T00:00:00Z


def clean(log: pl.DataFrame, name: str = "log", unit: str | None = None, **filters) -> pl.DataFrame:
    """The sound log as a frame of raw ids, by user and time; counts and unit in `clean.sound`."""
    engine = DuckDBEngine(Path(tempfile.gettempdir()))
    engine.load(Log(name, table=log.to_arrow()), {}, "min_rating" in filters)
    sound = clean.sound = clean_log(engine, name, Filters(**filters), unit)
    rows = engine.rows("SELECT user_code, item_code, timestamp FROM log ORDER BY user_code, timestamp, ordinal")
    engine.close()
    users, items = sound.user_ids.to_pylist(), sound.item_ids.to_pylist()
    assert sound.num_rows == len(rows)
    columns = {"user_id": log.schema["user_id"], "item_id": log.schema["item_id"], "timestamp": pl.Int64}
    return pl.DataFrame([(users[user], items[item], time) for user, item, time in rows], schema=columns, orient="row")


def log_at(times: list | pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"user_id": ["u"] * len(times), "item_id": list(range(len(times))), "timestamp": times})


def cleaned_times(times: list | pl.Series) -> list[int]:
    """Times in the order of the source."""
    return clean(log_at(times)).sort("item_id")["timestamp"].to_list()


def test_rows_are_sorted_by_user_and_time_and_ties_keep_the_order_of_the_source():
    rows = [("b", 1, 5), ("a", 9, 2), ("a", 3, 1), ("b", 0, 5), ("a", 7, 2), ("a", 8, 2), ("b", 2, 5)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    assert clean(log)["item_id"].to_list() == [3, 9, 7, 8, 1, 0, 2]


def test_many_ties_keep_the_order_of_the_source():
    rng = np.random.default_rng(0)
    rows = [(int(user), item, int(time)) for item, (user, time) in enumerate(rng.integers(0, 3, (300, 2)))]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    assert clean(log).rows() == sorted(rows, key=lambda row: (row[0], row[2]))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([3, -1], [3, -1]),
        (pl.Series([3, 1], dtype=pl.UInt8), [3, 1]),
        ([3.0, 1.0], [3, 1]),
        ([1.25, 2.0], [1_250_000, 2_000_000]),
        ([Decimal("3"), Decimal("1")], [3, 1]),
        ([" 3", "1 "], [3, 1]),
        (["9007199254740993", "1"], [2**53 + 1, 1]),
        (["1e3", "2"], [1000, 2]),
        (["1704067200123456789", "5."], [1704067200123456789, 5]),  # not through a double
        (pl.Series([Decimal(2**53 + 1), Decimal(1)], dtype=pl.Decimal(20, 0)), [2**53 + 1, 1]),
        (["1.25", "2"], [1_250_000, 2_000_000]),
        ([dt.date(2024, 1, 1)], [NEW_YEAR]),
        ([dt.datetime(2024, 1, 1)], [NEW_YEAR]),
        (pl.Series([dt.datetime(2024, 1, 1)], dtype=pl.Datetime("ns")), [NEW_YEAR]),
        (pl.Series([dt.datetime(2024, 1, 1)], dtype=pl.Datetime("ms")), [NEW_YEAR]),
        (pl.Series([dt.datetime(2024, 1, 1)]).dt.replace_time_zone("Europe/Berlin"), [NEW_YEAR - 3600 * SECOND]),
    ],
)
def test_numbers_stay_and_dates_become_microseconds(times, expected):
    assert cleaned_times(times) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-01", 0),
        (" 2024-01-01 ", 0),
        ("2024-01-01T01:00", 3600 * SECOND),
        ("2024-01-01 00:00:02", 2 * SECOND),
        ("2024-01-01T00:00:00.5", SECOND // 2),
        ("2024-01-01T00:00:00.123456789", 123_456),
        ("2024-01-01T00:00:00Z", 0),
        ("2024-01-01T00:00:00+02:00", -7200 * SECOND),
        ("2024-01-01T00:00:00-0130", 5400 * SECOND),
        ("2024-01-01 00:00:00.5+00", SECOND // 2),
    ],
)
@pytest.mark.filterwarnings("ignore:.*digits beyond microseconds")
def test_iso_text_becomes_microseconds_and_is_utc_without_a_zone(text, expected):
    assert cleaned_times([text]) == [NEW_YEAR + expected]
    # The row before it, of another form, decides nothing.
    assert cleaned_times(["2023-12-31T23:59:59+05:00", text])[1] == NEW_YEAR + expected


@pytest.mark.parametrize(
    ("times", "row"),
    [
        ([1.5, float("nan")], 2),
        ([float("inf"), 1.0], 1),
        (["1", "nan"], 2),
        (["2024-01-01", "yesterday"], 2),
        (["2024-01-01", "1704067200"], 1),  # numbers and ISO text in one column: the numbers count
        (["1704067200", "2024-01-01"], 2),
        (["2024-01-01", "2024-02-30"], 2),
        (["2024-01-01T25:00:00"], 1),
        (["01/02/2024"], 1),  # January or February
        (["", "2024-01-01"], 1),
        (["1", "1_000"], 2),
        (["1.5", "0x1p3"], 2),
        (["2024-01-01T00:00:00+99:00"], 1),
        (["2024-01-01T00:00:00+01:60"], 1),
        (pl.Series([0, 2**62]).cast(pl.Datetime("ms")), 2),  # the year 146 million
        ([True], 1),
        (pl.Series([1, 2**63], dtype=pl.UInt64), 2),
    ],
)
def test_what_is_no_time_is_refused_with_its_row(times, row):
    with pytest.raises(ValueError, match=rf"^shop: timestamp is no time .* in row {row}: .*such rows"):
        clean(log_at(times), "shop")


def test_an_empty_log_is_refused():
    with pytest.raises(ValueError, match="shop: there are no interactions"):
        clean(log_at([]), "shop")


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_ids_are_text_or_integers(column):
    log = log_at([1, 2]).with_columns(pl.lit(1.5).alias(column))
    with pytest.raises(ValueError, match=f"shop: {column} is double; ids are text or integers"):
        clean(log, "shop")


@pytest.mark.parametrize("ids", [["a", None, None], ["a", "", ""], [1, None, None]])
@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_a_missing_id_is_refused_with_its_row(column, ids):
    with pytest.raises(ValueError, match=rf"shop: {column} is missing in row 2: .* \(2 such rows\)"):
        clean(log_at([1, 2, 3]).with_columns(pl.Series(column, ids)), "shop")


def test_a_missing_time_is_refused_with_its_row():
    with pytest.raises(ValueError, match=r"shop: timestamp is missing in row 2: None \(1 such rows\)"):
        clean(log_at([1, None, 3]), "shop")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60), st.integers(1, 4))
@settings(max_examples=12)
def test_k_core_is_the_largest_set_in_which_everybody_has_k(pairs, k):
    log = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row").with_columns(
        timestamp=pl.int_range(pl.len())
    )
    left = list(pairs)
    while True:  # take any one offender out until there is none: the order does not matter
        users, items = [user for user, _ in left], [item for _, item in left]
        bad = [pair for pair in left if users.count(pair[0]) < k or items.count(pair[1]) < k]
        if not bad:
            break
        left.remove(bad[-1])
    if not left:
        with pytest.raises(ValueError, match=f"the {k}-core of this log is empty"):
            clean(log, min_interactions=k)
        return
    kept = clean(log, min_interactions=k)
    assert sorted(kept.select("user_id", "item_id").rows()) == sorted(left)
    assert clean.sound.counts["rows_left_out_by_min_interactions"] == len(pairs) - len(left)
    assert clean(kept, min_interactions=k).equals(kept)


RATED = pl.DataFrame(
    {
        "user_id": [1, 1, 2, 2, 1],
        "item_id": [5, 6, 5, 6, 5],
        "timestamp": [1, 2, 3, 4, 5],
        "rating": [3.0, 3.5, 4.0, 5.0, 4.0],
    }
)


@pytest.mark.parametrize("kind", [pl.Float64, pl.String, pl.Float32])
def test_rows_of_a_lower_rating_are_left_out_and_counted(kind):
    kept = clean(RATED.cast({"rating": kind}), min_rating=3.5)
    assert kept.rows() == [(1, 6, 2), (1, 5, 5), (2, 5, 3), (2, 6, 4)]
    assert clean.sound.counts["rows_left_out_by_min_rating"] == 1
    assert clean.sound.user_ids.to_pylist() == [1, 2]


def test_a_rating_that_is_no_number_is_refused_with_its_row():
    log = RATED.with_columns(rating=pl.Series(["1", "2", "good", "4", None]))
    with pytest.raises(ValueError, match=r"shop: rating is no number in row 3: 'good' \(2 such rows\)"):
        clean(log, "shop", min_rating=1)


@pytest.mark.parametrize("ratings", [[5.0, float("nan"), 5.0], ["5", "nan", "5"], ["5", "1_0", "5"]])
def test_a_rating_that_no_threshold_can_judge_is_refused(ratings):
    with pytest.raises(ValueError, match=r"shop: rating is no number in row 2: .* \(1 such rows\)"):
        clean(log_at([1, 2, 3]).with_columns(rating=pl.Series(ratings)), "shop", min_rating=1)
    for threshold in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"min_rating .* must be a finite number"):
            Filters(min_rating=threshold)


def test_a_time_range_is_in_the_unit_of_the_log_also_where_times_have_fractions():
    log = log_at([1.5, 2.0, 2.5, 3.0])
    assert clean(log, since=2, until="3")["timestamp"].to_list() == [2_000_000, 2_500_000]
    assert clean(log.cast({"timestamp": pl.String}), since="2.5")["timestamp"].to_list() == [2_500_000, 3_000_000]


def test_a_time_range_holds_its_first_moment_and_not_its_last():
    assert clean(RATED, since=2, until=5)["timestamp"].to_list() == [2, 3, 4]
    assert clean.sound.counts["rows_left_out_by_time_range"] == 2
    days = log_at([dt.date(2024, 1, day) for day in range(1, 8)])
    assert len(clean(days, since="2024-01-02", until="2024-01-04T12:00")) == 3
    seconds = log_at([NEW_YEAR // SECOND + 86400 * day for day in range(7)])
    assert len(clean(seconds, unit="s", since="2024-01-02", until="2024-01-04T12:00:00Z")) == 3
    with pytest.raises(ValueError, match=r"since '2024-01-02': .* no known unit; say time_unit"):
        clean(seconds, since="2024-01-02")
    with pytest.raises(ValueError, match="until 'soon' is neither a number nor ISO 8601"):
        clean(seconds, until="soon")


def test_a_unit_is_for_numbers_and_fractions_become_millionths_of_it():
    clean(log_at([1.5, 2.0]), unit="s")
    assert clean.sound.unit == "us"
    clean(log_at([1, 2]), unit="ms")
    assert clean.sound.unit == "ms"
    clean(log_at(["2024-01-01"]))
    assert clean.sound.unit == "us"
    with pytest.raises(ValueError, match="shop: its times are dates; time_unit 's' is for numbers"):
        clean(log_at(["2024-01-01"]), "shop", unit="s")


@pytest.mark.parametrize(("option", "what"), [({"min_rating": 9}, "min_rating"), ({"since": 99}, "since and until")])
def test_filters_that_leave_nothing_are_refused(option, what):
    with pytest.raises(ValueError, match=f"shop: {what} leaves? none of the 5 rows"):
        clean(RATED, "shop", **option)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("keep", [("x", 1), ("x", 1), ("y", 1), ("x", 2), ("y", 3)]),
        ("distinct", [("x", 1), ("y", 1), ("x", 2), ("y", 3)]),
        ("first", [("x", 1), ("y", 1)]),
        ("last", [("x", 2), ("y", 3)]),
    ],
)
def test_policies_on_repeats(policy, expected):
    rows = [("a", "x", 1), ("a", "x", 1), ("a", "y", 1), ("a", "y", 3), ("a", "x", 2)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    assert clean(log, repeats=policy).select("item_id", "timestamp").rows() == expected
    if policy != "keep":
        assert clean.sound.counts["rows_left_out_by_repeats"] == 5 - len(expected)


def test_filters_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="repeats 'some' is not known; choose from keep, distinct, first, last"):
        Filters(repeats="some")
    with pytest.raises(ValueError, match="min_interactions 0 must be at least 1"):
        Filters(min_interactions=0)


def test_unsigned_and_categorical_ids_are_kept():
    big = pl.Series([2**64 - 1, 2**63], dtype=pl.UInt64)
    log = log_at([1, 2]).with_columns(user_id=big, item_id=pl.Series(["b", "a"], dtype=pl.Categorical))
    assert clean(log.cast({"item_id": pl.Categorical}))["user_id"].to_list() == [2**63, 2**64 - 1]
    assert clean.sound.item_ids.to_pylist() == ["a", "b"]
