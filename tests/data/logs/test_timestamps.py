import datetime

import pytest

from sr_transformers.data.logs.timestamps import UNITS, parse_moment, show_moment
from sr_transformers.lsrm import configuration_lsrm


@pytest.mark.parametrize(
    ("moment", "unit", "expected"),
    [
        (None, None, None),
        (-5, None, -5),
        (" 17 ", None, 17),
        ("1.5", "s", 2),  # the first number that is not before it
        (2**63 - 1, "s", 2**63 - 1),
        ("1970-01-02", "s", 86400),
        ("1970-01-02T00:00:00.5", "s", 86401),  # the first second that is not before it
        ("1970-01-02T00:00:00.5", "ms", 86400500),
        ("1970-01-01T01:00+01:00", "us", 0),
        ("1969-12-31T23:59:59.9999", "s", 0),
        ("2024-01-01", "ns", 1704067200 * 10**9),
    ],
)
def test_moments_become_numbers_of_the_unit(moment, unit, expected):
    assert parse_moment(moment, "since", unit) == expected


def test_moments_are_shown_as_dates_where_that_is_possible():
    assert show_moment(1704067200, "s") == "2024-01-01T00:00:00"
    assert show_moment(12, None) == "12"
    assert show_moment(2**63 - 1, "s") == str(2**63 - 1)


@pytest.mark.parametrize("moment", ["yesterday", "2024-13-01", "nan", "inf", "1e999999999", "1.5.5"])
def test_what_is_no_moment_is_refused(moment):
    with pytest.raises(ValueError, match=r"until '.*' is neither a number nor ISO 8601"):
        parse_moment(moment, "until", "s")


def test_a_date_needs_a_unit():
    with pytest.raises(ValueError, match="since '2024-01-01': the log's times are numbers of no known unit"):
        parse_moment("2024-01-01", "since", None)


def test_numbers_are_of_the_unit_that_the_log_was_given_in():
    assert parse_moment(3, "since", "us", millionths=True) == 3_000_000
    assert parse_moment("1704067200.25", "since", "us", millionths=True) == 1_704_067_200_250_000
    assert parse_moment("1970-01-01T00:00:03", "since", "us", millionths=True) == 3_000_000


@pytest.mark.parametrize(("moment", "date"), [("20240301", "2024-03-01"), ("2024", "2024-01-01"), (1999, "1999-01-01")])
def test_a_day_without_dashes_is_no_number_of_microseconds(moment, date):
    with pytest.raises(ValueError, match=rf"{moment} would be {moment} us after 1970. If it is a date write {date}"):
        parse_moment(moment, "since", "us")
    assert parse_moment(f"{moment}.0", "since", "us") == int(moment)
    assert parse_moment(moment, "since", "s") == parse_moment(moment, "since", None) == int(moment)
    assert parse_moment("20241399", "since", "us") == 20241399


@pytest.mark.parametrize("moment", [1.5, True, datetime.date(2024, 1, 1)])
def test_moments_of_other_types_are_refused(moment):
    with pytest.raises(ValueError, match=r"since .* must be an int or text"):
        parse_moment(moment, "since", "s")


def test_the_code_that_travels_has_the_same_units():
    """It imports nothing of ours, and what reads logs does not load transformers for a table of four numbers."""
    assert configuration_lsrm.UNITS == UNITS
