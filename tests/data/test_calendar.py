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
    starts = moments("2024-07-02T13:29", "2024-07-02T13:30", "2024-07-02T19:59", "2024-07-02T20:00", "2024-07-03T02:00")
    assert in_session(starts, "1Hour", "XNYS").tolist() == [False, True, True, False, False]
    assert (session_of(starts, "1Hour", "XNYS") == np.datetime64("2024-07-02")).all()


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
    [("1Day", "XNYS", 252.0), ("1Hour", "XNYS", 252.0 * 7), ("1Hour", "24/7", 8760.0)],
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
