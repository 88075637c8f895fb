"""The trading day has a clock: sessions of an exchange, the session a bar belongs to, the moment it is complete.

A thin, cached reading of exchange_calendars in datetime64[us] UTC. Labels of sessions and daily bars are midnight
UTC of the exchange's date.
"""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import BoolArray, IntArray, TimeArray
from marl_pipeline.errors import UserError

HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(1, "D")

OFF_CALENDAR_CLOSE = np.timedelta64(21, "h")
"""When a daily row of a day without a session counts as complete: 21:00 UTC, no earlier than New York ever closes."""

FIRST_YEAR, LAST_YEAR = 1900, 2100
"""No session is looked for beyond these."""

REFERENCE_YEARS = (2010, 2019)
"""Years over which the sessions of a year are counted."""

Moments = Any
"""Anything pandas turns into moments: datetime64 array (UTC), DatetimeIndex or Series, with or without zone UTC."""

Frozen = TypeVar("Frozen", TimeArray, IntArray)


@dataclass(frozen=True)
class Schedule:
    """Sessions of an exchange, ascending, all [S] datetime64[us] in UTC; `session` is midnight of the date.

    A session with a lunch break has two parts, others one. [P] each, ascending: `part_open` and `part_close`, which
    session a part belongs to, and its number (0, and 1 after a break).
    """

    session: TimeArray
    open: TimeArray
    close: TimeArray
    part_open: TimeArray
    part_close: TimeArray
    part_session: IntArray
    part_number: IntArray
    zone: str


def utc_array(moments: Moments) -> TimeArray:
    """datetime64[us] in UTC without a zone; naive input is taken as UTC."""
    index = moments if isinstance(moments, pd.DatetimeIndex) else pd.DatetimeIndex(moments)
    if index.tz is not None:
        index = index.tz_convert("UTC").tz_localize(None)
    stamps: TimeArray = index.to_numpy().astype("datetime64[us]")
    return stamps


def schedule(calendar: str, moments: Moments = None) -> Schedule:
    """The sessions of `calendar` over whole decades around 1990 to 2030 and `moments`.

    Raises:
        UserError: no calendar has this name.
    """
    first, last = 1990, 2030
    stamps = utc_array(moments) if moments is not None else np.array([], dtype="datetime64[us]")
    stamps = stamps[~np.isnat(stamps)]
    if len(stamps):
        low, high = (int(str(edge.astype("datetime64[Y]"))) for edge in (stamps.min(), stamps.max()))
        first, last = min(first, low // 10 * 10), max(last, high // 10 * 10 + 10)
    return _schedule(calendar, first, last)


@lru_cache(maxsize=8)
def _schedule(calendar: str, first: int, last: int) -> Schedule:
    import exchange_calendars  # 1.3 s, so only when asked
    from exchange_calendars.errors import InvalidCalendarName

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the library's own use of pandas
        try:
            probe = exchange_calendars.get_calendar(calendar, start="2010-01-01", end="2010-12-31")
        except InvalidCalendarName:
            known = exchange_calendars.get_calendar_names()
            close = difflib.get_close_matches(calendar.upper(), known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else " (such as XNYS, XLON, XTKS, 24/7)"
            raise UserError(f"data.calendar: no exchange calendar is called '{calendar}'{hint}") from None
        earliest, latest = probe.bound_min(), probe.bound_max()
        start = pd.Timestamp(year=max(first, FIRST_YEAR), month=1, day=1)
        end = pd.Timestamp(year=min(last, LAST_YEAR), month=12, day=31)
        start = start if earliest is None else max(start, earliest)
        end = end if latest is None else min(end, latest)
        found = exchange_calendars.get_calendar(calendar, start=start, end=end)
    table = found.schedule
    opens, closes = utc_array(table["open"]), utc_array(table["close"])
    pause, resume = utc_array(table["break_start"]), utc_array(table["break_end"])
    broken = np.flatnonzero(~np.isnat(pause) & (pause < resume))
    first_close = closes.copy()
    first_close[broken] = pause[broken]
    part_session = np.concatenate([np.arange(len(opens)), broken])
    number = np.repeat([0, 1], [len(opens), len(broken)])
    order = np.lexsort((number, part_session))
    return Schedule(
        session=_frozen(utc_array(table.index)),
        open=_frozen(opens),
        close=_frozen(closes),
        part_open=_frozen(np.concatenate([opens, resume[broken]])[order]),
        part_close=_frozen(np.concatenate([first_close, closes[broken]])[order]),
        part_session=_frozen(part_session[order].astype(np.int64)),
        part_number=_frozen(number[order].astype(np.int64)),
        zone=str(found.tz),
    )


def _frozen(values: Frozen) -> Frozen:
    values.setflags(write=False)
    return values


def exchange_zone(calendar: str) -> str:
    """Name of the exchange's time zone."""
    return schedule(calendar).zone


def session_index(timestamps: Moments, frequency: str, calendar: str) -> IntArray:
    """[K] place in `schedule(calendar, timestamps)` of the session each bar belongs to, -1 for off-calendar bars.

    A daily bar belongs to the session of its date; an hourly one to the session that its hour reaches into: see
    `part_index`.
    """
    stamps = utc_array(timestamps)
    days = schedule(calendar, stamps)
    if frequency == "1Day":
        dates = stamps.astype("datetime64[D]").astype("datetime64[us]")
        place = np.searchsorted(days.session, dates, side="right") - 1
        inside: BoolArray = (place >= 0) & (days.session[place] == dates)
        return np.where(inside, place, -1).astype(np.int64)
    part = part_index(stamps, days)
    return np.where(part >= 0, days.part_session[part], -1).astype(np.int64)


def part_index(stamps: TimeArray, days: Schedule) -> IntArray:
    """[K] the part of a session that each hourly bar belongs to, -1 for off-calendar bars.

    It is the part that is open when the bar starts, else the one that opens within the hour: vendors who cut hours
    by the clock name the first half hour of New York 09:00, or 09:30.
    """
    place = np.searchsorted(days.part_open, stamps, side="right") - 1
    inside: BoolArray = (place >= 0) & (stamps < days.part_close[place])
    after = np.minimum(place + 1, len(days.part_open) - 1)
    wait = days.part_open[after] - stamps
    soon: BoolArray = ~inside & (wait > np.timedelta64(0)) & (wait < HOUR)
    return np.where(inside, place, np.where(soon, after, -1)).astype(np.int64)


def in_session(timestamps: Moments, frequency: str, calendar: str) -> BoolArray:
    """[K] whether the bar belongs to a session (daily: its day has one)."""
    return session_index(timestamps, frequency, calendar) >= 0


def session_of(timestamps: Moments, frequency: str, calendar: str) -> TimeArray:
    """[K] datetime64[us] label of the session of each bar; off-calendar bars get their date in the exchange's zone."""
    stamps = utc_array(timestamps)
    if frequency == "1Day":
        return stamps.astype("datetime64[D]").astype("datetime64[us]")
    days = schedule(calendar, stamps)
    place = session_index(stamps, frequency, calendar)
    return np.where(place >= 0, days.session[place], exchange_dates(stamps, days.zone))


def exchange_dates(timestamps: Moments, zone: str) -> TimeArray:
    """[K] datetime64[us] midnight of the date that moments in UTC fall on in `zone`."""
    local = pd.DatetimeIndex(utc_array(timestamps)).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    dates: TimeArray = local.normalize().to_numpy().astype("datetime64[us]")
    return dates


def session_closes(sessions: Moments, calendar: str) -> TimeArray:
    """[K] datetime64[us] exchange close of each session label; 21:00 UTC of a day that has no session."""
    dates = utc_array(sessions).astype("datetime64[D]").astype("datetime64[us]")
    place = session_index(dates, "1Day", calendar)
    return np.where(place >= 0, schedule(calendar, dates).close[place], dates + OFF_CALENDAR_CLOSE)


def known_at(timestamps: Moments, frequency: str, calendar: str) -> TimeArray:
    """[K] datetime64[us] the moment each bar is complete.

    Daily: the close of its session (21:00 UTC on a day without one). Hourly: an hour after its start, or the
    close, or the lunch break, where that comes first.
    """
    stamps = utc_array(timestamps)
    if frequency == "1Day":
        return session_closes(stamps, calendar)
    days = schedule(calendar, stamps)
    part = part_index(stamps, days)
    complete = stamps + HOUR
    return np.where(part >= 0, np.minimum(complete, days.part_close[part]), complete)


def sessions_between(start: Any, end: Any, calendar: str) -> pd.DataFrame:
    """Sessions with `start` <= label date <= `end`: columns session, open, close, all datetime64[us, UTC]."""
    edges = utc_array([pd.Timestamp(start), pd.Timestamp(end)])
    days = schedule(calendar, edges)
    first, last = edges.astype("datetime64[D]").astype("datetime64[us]")
    chosen = (days.session >= first) & (days.session <= last)
    columns = {"session": days.session, "open": days.open, "close": days.close}
    return pd.DataFrame({name: pd.DatetimeIndex(stamps[chosen]).tz_localize("UTC") for name, stamps in columns.items()})


def expected_grid(start: Any, end: Any, frequency: str, calendar: str) -> TimeArray:
    """datetime64[us] bar starts of every session from `start` to `end`: labels for daily bars, else every full
    hour counted from the open (and from the end of a lunch break) until the close."""
    edges = utc_array([pd.Timestamp(start), pd.Timestamp(end)])
    days = schedule(calendar, edges)
    first, last = edges.astype("datetime64[D]").astype("datetime64[us]")
    chosen = (days.session >= first) & (days.session <= last)
    if frequency == "1Day":
        labels: TimeArray = days.session[chosen]
        return labels
    parts = chosen[days.part_session]
    opens, closes = days.part_open[parts], days.part_close[parts]
    count = -((opens - closes) // HOUR)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    hours: TimeArray = np.repeat(opens, count) + within * HOUR
    return hours


def sessions_per_year(calendar: str) -> float:
    """Sessions in an average year, rounded: 252 for XNYS, 365 for 24/7."""
    _, chosen = _reference(calendar)
    return float(round(int(chosen.sum()) / (REFERENCE_YEARS[1] + 1 - REFERENCE_YEARS[0])))


def bars_per_year(frequency: str, calendar: str) -> float:
    """Bars in an average year of usual sessions: 252 daily and 252 x 7 hourly ones for XNYS."""
    per_year = sessions_per_year(calendar)
    if frequency == "1Day":
        return per_year
    days, chosen = _reference(calendar)
    hours = -((days.part_open - days.part_close) // HOUR)
    in_session = np.bincount(days.part_session, weights=hours, minlength=len(days.session))
    return float(per_year * np.median(in_session[chosen]))


def _reference(calendar: str) -> tuple[Schedule, BoolArray]:
    days = schedule(calendar)
    first, last = (np.datetime64(f"{year}-01-01") for year in (REFERENCE_YEARS[0], REFERENCE_YEARS[1] + 1))
    return days, (days.session >= first) & (days.session < last)
