from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.data.calendar import (
    bars_per_year,
    exchange_zone,
    expected_grid,
    in_session,
    known_at,
    session_closes,
    session_index,
    session_of,
    sessions_between,
    utc_array,
)
from marl_pipeline.data.dataset import TimeArray
from marl_pipeline.errors import UserError


def moments(*texts: str) -> TimeArray:
    return np.array(texts, dtype="datetime64[us]")


def test_a_daily_bar_is_complete_at_its_exchange_close_in_summer_winter_and_on_half_days() -> None:
    days = moments("2024-01-02", "2024-07-02", "2024-07-03", "2024-11-29")
    expected = moments("2024-01-02T21:00", "2024-07-02T20:00", "2024-07-03T17:00", "2024-11-29T18:00")
    assert (known_at(days, "1Day", "XNYS") == expected).all()


def test_a_daily_row_of_a_closed_day_counts_from_nine_in_the_evening_utc() -> None:
    closed = moments("2024-07-04", "2024-07-06")
    assert (known_at(closed, "1Day", "XNYS") == moments("2024-07-04T21:00", "2024-07-06T21:00")).all()
    assert (session_closes(closed, "XNYS") == known_at(closed, "1Day", "XNYS")).all()


def test_an_hourly_bar_is_complete_after_an_hour_or_at_the_close() -> None:
    starts = moments("2024-07-02T13:30", "2024-07-02T19:30", "2024-07-03T16:30", "2024-07-03T17:00", "2024-07-06T14:30")
    expected = moments(
        "2024-07-02T14:30", "2024-07-02T20:00", "2024-07-03T17:00", "2024-07-03T18:00", "2024-07-06T15:30"
    )
    assert (known_at(starts, "1Hour", "XNYS") == expected).all()


def test_hourly_bars_belong_to_the_session_that_is_open_and_others_to_their_local_date() -> None:
    starts = moments("2024-07-02T12:30", "2024-07-02T13:30", "2024-07-02T19:59", "2024-07-02T20:00", "2024-07-03T02:00")
    assert in_session(starts, "1Hour", "XNYS").tolist() == [False, True, True, False, False]
    assert (session_of(starts, "1Hour", "XNYS") == np.datetime64("2024-07-02")).all()


def test_an_hour_by_the_clock_that_reaches_into_a_session_belongs_to_it() -> None:
    starts = moments("2024-07-02T13:00", "2024-07-02T12:59", "2024-01-02T14:00")
    assert in_session(starts, "1Hour", "XNYS").tolist() == [True, True, True]
    lunch = moments("2024-07-02T03:00", "2024-07-02T02:30", "2024-07-02T03:30")  # Tokyo rests from 02:30 to 03:30 UTC
    assert in_session(lunch, "1Hour", "XTKS").tolist() == [True, False, True]
    assert (known_at(lunch[:1], "1Hour", "XTKS") == moments("2024-07-02T04:00")).all()


@pytest.mark.parametrize(
    ("calendar", "hours"),
    [
        ("XSHG", ["09:30", "10:30", "13:00", "14:00"]),
        ("XHKG", ["09:30", "10:30", "11:30", "13:00", "14:00", "15:00"]),
        ("XTKS", ["09:00", "10:00", "11:00", "12:30", "13:30", "14:30"]),
    ],
)
def test_nothing_trades_in_a_lunch_break(calendar: str, hours: list[str]) -> None:
    grid = expected_grid("2024-07-02", "2024-07-02", "1Hour", calendar)
    local = pd.DatetimeIndex(grid).tz_localize("UTC").tz_convert(exchange_zone(calendar))
    assert local.strftime("%H:%M").tolist() == hours
    ends = pd.DatetimeIndex(known_at(grid, "1Hour", calendar)).tz_localize("UTC").tz_convert(exchange_zone(calendar))
    breaks = {"XSHG": "11:30", "XHKG": "12:00", "XTKS": "11:30"}
    assert ends.strftime("%H:%M")[hours.index("13:00" if "13:00" in hours else "12:30") - 1] == breaks[calendar]


def test_an_exchange_east_of_greenwich_gets_its_own_date() -> None:
    tokyo = moments("2024-07-02T00:00", "2024-07-01T20:00")
    assert (session_of(tokyo, "1Hour", "XTKS") == np.datetime64("2024-07-02")).all()
    assert exchange_zone("XTKS") == "Asia/Tokyo"


def test_sessions_between_includes_both_ends_and_skips_holidays() -> None:
    days = sessions_between("2024-07-01", "2024-07-05", "XNYS")
    assert days["session"].dt.day.tolist() == [1, 2, 3, 5]
    assert (days.dtypes == "datetime64[us, UTC]").all()
    assert (days["open"] < days["close"]).all()


def test_the_expected_hourly_grid_counts_from_the_open_to_the_close() -> None:
    grid = expected_grid("2024-07-02", "2024-07-03", "1Hour", "XNYS")
    assert len(grid) == 7 + 4
    assert grid[0] == np.datetime64("2024-07-02T13:30")
    assert grid[-1] == np.datetime64("2024-07-03T16:30")
    assert in_session(grid, "1Hour", "XNYS").all()


@pytest.mark.parametrize(
    ("frequency", "calendar", "bars"),
    [
        ("1Day", "XNYS", 252.0),
        ("1Hour", "XNYS", 252.0 * 7),
        ("1Hour", "24/7", 8760.0),
        ("1Hour", "XSHG", 243.0 * 4),
        ("1Hour", "XHKG", 246.0 * 6),
    ],
)
def test_bars_per_year(frequency: str, calendar: str, bars: float) -> None:
    assert bars_per_year(frequency, calendar) == bars


def test_days_before_1990_are_known_too() -> None:
    early = moments("1987-10-19", "1987-10-18")
    assert in_session(early, "1Day", "XNYS").tolist() == [True, False]
    late = moments("2024-07-02")
    assert session_index(np.concatenate([early, late]), "1Day", "XNYS")[2] > 0


def test_a_wrong_calendar_is_named_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="'XNYSE'; did you mean 'XNYS'"):
        bars_per_year("1Day", "XNYSE")


def test_moments_come_out_in_utc_microseconds_whatever_they_came_as() -> None:
    plain = moments("2024-07-02T13:30")
    aware = pd.Series(pd.to_datetime(["2024-07-02 09:30"]).tz_localize("America/New_York").as_unit("ns"))
    assert (utc_array(aware) == plain).all()
    assert utc_array(aware).dtype == np.dtype("datetime64[us]")
