from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.data.calendar import expected_grid, known_at
from marl_pipeline.data.timestamps import Stamps, localise, name_ends, parse_timestamps, starts_of_ends
from marl_pipeline.errors import UserError


def column(*values: Any) -> pd.Series:
    return pd.Series(list(values), name="when")


def parsed(*values: Any, date_format: str | None = None) -> Stamps:
    return parse_timestamps(column(*values), "bars.csv", date_format)


def moments(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[us]")


@pytest.mark.parametrize(
    "values",
    [
        ("02.01.2024 00:00:00.000 GMT+0100", "13.01.2024 00:00:00.000 GMT+0100"),
        ("2024-01-02T00:00:00+01:00", "2024-01-13T00:00:00+01:00"),
        ("02/01/2024 00:00 UTC+1", "13/01/2024 00:00 UTC+1"),
        ("01/02/2024 12:00 AM +0100", "01/13/2024 12:00 AM +0100"),
        ("20240102 00:00:00 Europe/Berlin", "20240113 00:00:00 Europe/Berlin"),
    ],
)
def test_an_offset_is_ahead_of_greenwich_and_leaves_the_order_of_day_and_month_alone(values: tuple[str, ...]) -> None:
    stamps = parsed(*values)
    assert stamps.aware
    assert (stamps.moments == moments("2024-01-01T23:00", "2024-01-12T23:00")).all()
    assert stamps.dates is not None
    assert (stamps.dates == moments("2024-01-02", "2024-01-13")).all()


@pytest.mark.parametrize("zone", ["", "Z", "+00:00", " GMT"])
@pytest.mark.parametrize("mark", "/.-")
def test_the_order_of_day_and_month_is_one_for_all_rows(zone: str, mark: str) -> None:
    clock = f" 00:00:00{zone}" if zone else ""
    days = [f"{day:02d}{mark}01{mark}2021{clock}" for day in range(4, 20)]
    stamps = parsed(*days)
    assert stamps.style == "DMY"
    assert (stamps.moments == np.arange("2021-01-04", "2021-01-20", dtype="datetime64[D]")).all()
    months = parsed(*(f"01{mark}{day:02d}{mark}2021{clock}" for day in range(4, 20)))
    assert months.style == "MDY"
    assert (months.moments == stamps.moments).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            ("04/01/2021", "05/01/2021"),
            "'04/01/2021' in row 1 may be month first or day first, 2021-01-04 (DMY) or 2021-04",
        ),
        (("04/01/2021 00:00:00+00:00",), "set data.date_format to DMY or MDY"),
        (
            ("13/01/2021", "01/14/2021"),
            "'13/01/2021' in row 1 can only be day first and '01/14/2021' in row 2 only month",
        ),
        (("2021-01-04", "05/01/2021"), "'05/01/2021' in row 2 is not a timestamp written as the other rows are"),
        (("1672531200000", "1672534800000000"), "'1672534800000000' in row 2 is not a timestamp in ms since 1970"),
        (("44200", "44201"), "looks like the day count of a spreadsheet; set data.date_format to excel"),
        (("1.67253E+12", "1.67253E+12"), "(digits are lost)"),
        (("201001", "201002"), "may be YYYYMM or YYMMDD"),
        (("2021-01-04 10:00 EST",), "is not a timestamp"),
        (("01/13/0021", "01/14/0021"), "'01/13/0021' in row 1 is not a timestamp"),
        (("2021-01-04 25:00",), "is not a timestamp"),
        (("2021-01-04 13:00 PM",), "is not a timestamp"),
        (("2021-02-29",), "is not a timestamp"),
        (("20210229",), "is not a timestamp"),
    ],
)
def test_what_the_rows_leave_open_or_contradict_is_refused(values: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError) as error:
        parsed(*values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "date_format", "moment"),
    [
        ("04/01/2021", "DMY", "2021-01-04"),
        ("04/01/2021", "MDY", "2021-04-01"),
        ("04.01.21 10:30", "DMY", "2021-01-04T10:30"),
        ("21/01/04", "YMD", "2021-01-04"),
        ("44200.5", "excel", "2021-01-04T12:00"),
        (44200, "excel", "2021-01-04"),
        ("86400", "s", "1970-01-02"),
        ("-86400", "s", "1969-12-31"),
        ("1", "ns", "1970-01-01"),
        ("4 1 2021 9h30", "%d %m %Y %Hh%M", "2021-01-04T09:30"),
        ("202101", "%Y%m", "2021-01-01"),
    ],
)
def test_data_date_format_decides(value: Any, date_format: str, moment: str) -> None:
    assert (parsed(value, date_format=date_format).moments == moments(moment)).all()


@pytest.mark.parametrize("date_format", ["european", "YDM", "minutes"])
def test_another_date_format_is_refused(date_format: str) -> None:
    with pytest.raises(UserError, match=r"data\.date_format: .* is none of YMD, DMY, MDY, s, ms, us, ns, excel"):
        parsed("2021-01-04", date_format=date_format)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("20210104", "2021-01-04"),
        ("20210104.0", "2021-01-04"),
        ("202101041030", "2021-01-04T10:30"),
        ("20210104103015", "2021-01-04T10:30:15"),
        ("2021010410", "2021-01-04T10:00"),
        ("1609756200", "2021-01-04T10:30"),
        ("1609756200000", "2021-01-04T10:30"),
        ("1609756200000000", "2021-01-04T10:30"),
        ("1609756200000000000", "2021-01-04T10:30"),
        ("631152000000", "1990-01-01"),
        ("20210104  10:30:00", "2021-01-04T10:30"),
        ("20210104 103000", "2021-01-04T10:30"),
        ("2021/1/4 9:30", "2021-01-04T09:30"),
        ("2021.01.04 10:30", "2021-01-04T10:30"),
        ("4-Jan-21", "2021-01-04"),
        ("January 4th, 2021", "2021-01-04"),
        ("Mon, 04 Jan 2021 10:30:00", "2021-01-04T10:30"),
        ("2021-Jan-04", "2021-01-04"),
        ("1/13/2021 10:30:15 PM", "2021-01-13T22:30:15"),
        ("1/13/2021 12:30 am", "2021-01-13T00:30"),
        ("2019-10-17 11-PM", "2019-10-17T23:00"),
        ("2021-01-04T10:30:15.123456789", "2021-01-04T10:30:15.123456"),
        ("2021\u5e741\u67084\u65e5", "2021-01-04"),
    ],
)
def test_ways_of_writing_a_moment(value: str, moment: str) -> None:
    stamps = parsed(value)
    assert (stamps.moments == moments(moment)).all()


def test_counts_in_ns_keep_all_their_digits() -> None:
    assert (parsed(1609756200123456789).moments == moments("2021-01-04T10:30:00.123456")).all()


@pytest.mark.parametrize(
    ("value", "period", "first"),
    [
        ("2020-12", "month", "2020-12-01"),
        ("2020M12", "month", "2020-12-01"),
        ("Dec 2020", "month", "2020-12-01"),
        ("12/2020", "month", "2020-12-01"),
        ("2020-Q4", "quarter", "2020-10-01"),
        ("Q4 2020", "quarter", "2020-10-01"),
        ("2020", "year", "2020-01-01"),
    ],
)
def test_periods_are_no_days(value: str, period: str, first: str) -> None:
    stamps = parsed(value)
    assert stamps.period == period
    assert (stamps.moments == moments(first)).all()


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("minutes", [60, 30])
def test_the_hour_that_autumn_repeats_is_told_apart_by_the_order_of_the_rows(descending: bool, minutes: int) -> None:
    utc = pd.date_range("2024-11-03 03:00", "2024-11-03 09:00", freq=f"{minutes}min", tz="UTC").as_unit("us")
    index = utc[::-1] if descending else utc
    both = index.append(index)
    shown = both.tz_convert("America/New_York").tz_localize(None).to_numpy()
    groups = np.repeat(["A", "B"], len(index))
    placed = localise(shown, "America/New_York", "bars.csv", groups)
    assert (placed == both.tz_localize(None).to_numpy()).all()


def test_one_row_of_a_repeated_hour_decides_nothing() -> None:
    shown = moments("2024-11-03T00:00", "2024-11-03T01:00", "2024-11-03T02:00")
    rows = pd.Index([2, 3, 4], name="line")
    with pytest.raises(UserError, match=r"2024-11-03 01:00:00 in line 3 happens twice in America/New_York"):
        localise(shown, "America/New_York", "bars.csv", None, rows)


def hours(calendar: str, *, stamp: str, grid: str) -> np.ndarray:
    """Hourly stamps of ten sessions of New York: on the half hour from the open, or on the full hour."""
    days = pd.bdate_range("2024-01-16", periods=12, tz="America/New_York")
    first = {("start", ":30"): 9.5, ("end", ":30"): 10.5, ("start", ":00"): 10, ("end", ":00"): 10}[stamp, grid]
    last = {("start", ":30"): 15.5, ("end", ":30"): 16.5, ("start", ":00"): 15, ("end", ":00"): 16}[stamp, grid]
    clock = [*([9.5] if (stamp, grid) == ("start", ":00") else []), *np.arange(first, last + 0.1)]
    index = pd.DatetimeIndex([day + pd.Timedelta(hours=hour) for day in days for hour in clock])
    return index.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]")


@pytest.mark.parametrize("grid", [":30", ":00"])
def test_stamps_that_name_ends_are_recognised_and_moved(grid: str) -> None:
    starts, ends = (hours("XNYS", stamp=stamp, grid=grid) for stamp in ("start", "end"))
    assert not name_ends(starts, "1Hour", "XNYS")
    assert name_ends(ends, "1Hour", "XNYS")
    assert (starts_of_ends(ends, "1Hour", "XNYS") == starts).all()


def test_starts_in_a_wrong_zone_are_not_called_ends() -> None:
    starts = expected_grid("2024-01-02", "2024-03-01", "1Hour", "XNYS")
    assert not name_ends(starts + np.timedelta64(5, "h"), "1Hour", "XNYS")
    assert not name_ends(starts - np.timedelta64(5, "h"), "1Hour", "XNYS")


@pytest.mark.parametrize("calendar", ["XNYS", "XTKS", "XHKG", "XSHG", "24/7", "CMES"])
@pytest.mark.parametrize("before", [1_000_000, 1_000, 1])
def test_the_last_second_of_an_hour_is_its_end(calendar: str, before: int) -> None:
    starts = expected_grid("2024-03-04", "2024-03-15", "1Hour", calendar)
    ends = np.minimum(starts + np.timedelta64(1, "h"), known_at(starts, "1Hour", calendar))
    late = ends - np.timedelta64(before, "us")
    assert name_ends(late, "1Hour", calendar)
    assert (starts_of_ends(late, "1Hour", calendar) == starts).all()


def test_a_bar_that_the_close_cut_short_starts_where_the_one_before_ends() -> None:
    ends = moments("2024-01-16T15:30", "2024-01-16T20:30", "2024-01-16T21:00")
    starts = starts_of_ends(ends, "1Hour", "XNYS")
    assert (starts == moments("2024-01-16T14:30", "2024-01-16T19:30", "2024-01-16T20:30")).all()


def test_days_stamped_a_day_late_are_recognised() -> None:
    days = pd.bdate_range("2024-02-20", periods=25).to_numpy().astype("datetime64[us]")
    assert not name_ends(days, "1Day", "XNYS")
    late = days + np.timedelta64(1, "D")
    assert name_ends(late, "1Day", "XNYS")
    assert (starts_of_ends(late, "1Day", "XNYS") == days).all()


@pytest.mark.parametrize("calendar", ["24/7", "CMES"])
def test_where_a_session_begins_as_another_ends_no_stamp_is_called_an_end(calendar: str) -> None:
    hourly = pd.date_range("2024-01-16", periods=400, freq="h").to_numpy().astype("datetime64[us]")
    assert not name_ends(hourly, "1Hour", calendar)
