import datetime as dt
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_transformers.data.interactions import clean, k_core

MICROSECOND = 1
SECOND = 1_000_000 * MICROSECOND
NEW_YEAR = 1_704_067_200 * SECOND  # 2024-01-01T00:00:00Z


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
        (["2024-01-01", "1704067200"], 1),  # numbers and ISO text in one column
        (["1704067200", "2024-01-01"], 2),
        (["2024-01-01", "2024-02-30"], 2),
        (["2024-01-01T25:00:00"], 1),
        (["01/02/2024"], 1),  # January or February
        (["", "2024-01-01"], 1),
        ([True], 1),
        ([dt.timedelta(1)], 1),
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
    with pytest.raises(ValueError, match=f"shop: {column} is Float64; ids are text or integers"):
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
            k_core(log, k)
        return
    kept = k_core(log, k)
    assert sorted(kept.select("user_id", "item_id").rows()) == sorted(left)
    assert kept["timestamp"].is_sorted()
    assert k_core(kept, k).equals(kept)
