"""When a row of a companion counts: from its day's exchange close, its moment, its period's end or its release, and a
lag later; and for how long.

A date is a date, whatever zone's midnight it carries. A month or quarter is no date: what it measures is published
after it has ended, and a lag that is too short for that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from marl_pipeline.config import DataParams, lag_of
from marl_pipeline.data.calendar import exchange_dates, exchange_zone, session_closes, utc_array
from marl_pipeline.data.dataset import FloatArray, TimeArray
from marl_pipeline.data.timestamps import Stamps, companion_timestamps, localise
from marl_pipeline.errors import UserError

Kind = Literal["day", "moment", "period"]

ELSEWHERE = (
    "Europe/London", "Europe/Berlin", "America/New_York", "America/Chicago", "America/Los_Angeles", "Asia/Tokyo",
    "Asia/Shanghai", "Asia/Kolkata", "Australia/Sydney",
)  # fmt: skip
"""Zones whose midnight is recognised in stamps that were converted to UTC, besides the exchange's and data.timezone's.
Rows of moments that happen to be such midnights, as 17:00 in Chicago or 16:00 in London, count a day late, never
early."""

YEAR = r"(?P<year>(?:19|20)\d{2})"
PERIODS = (
    re.compile(YEAR + r"[-/ ]?[Qq](?P<quarter>[1-4])"),
    re.compile(r"[Qq](?P<quarter>[1-4])[-/ ]?" + YEAR),
    re.compile(YEAR + r"[-/.Mm]?(?P<month>0[1-9]|1[0-2])"),
    re.compile(r"(?P<month>0?[1-9]|1[0-2])[/-]" + YEAR),
    re.compile(r"(?P<name>[A-Za-z]{3,9})[-/ ,]+" + YEAR),
    re.compile(YEAR),
)
"""How quarters, months and years are written."""

MONTH_OR_DAY = re.compile(r"[A-Za-z]{3,9}[-/ ]\d{1,2}")
"""Two readings: a day of a month in no year, or a month of a year without its century."""

SPACINGS = ((27.0, 32.0, "monthly"), (85.0, 95.0, "quarterly"), (360.0, 370.0, "yearly"))
"""Days between rows that stand for a period each."""

LEAST_LAG = pd.Timedelta(days=5)
"""The shortest lag that is believed of a monthly, quarterly or yearly series."""


@dataclass(frozen=True)
class Dates:
    """A column of dates as it is meant.

    Attributes:
        moments: [K] datetime64[us]: midnight UTC of the day, the moment in UTC, or midnight UTC of the period's last
            day.
        kind: which of the three.
        first: [K] the first day of a period; `moments` for the other kinds.
    """

    moments: TimeArray
    kind: Kind
    first: TimeArray

    def known(self, calendar: str) -> TimeArray:
        """[K] datetime64[us] in UTC, without any lag: the moment itself, or the exchange's close of the day."""
        return self.moments if self.kind == "moment" else session_closes(self.moments, calendar)


def read_dates(written: pd.Series, params: DataParams, path: str) -> Dates:
    """Reads days, moments or periods; all rows of a column are of one kind.

    Days are written without a time of day, or at midnight of one zone throughout: the zone that the stamps name, the
    exchange's, `data.timezone` or one of `ELSEWHERE`.

    Raises:
        UserError: a value that is none of these, or times of day in no zone.
    """
    if (period := _periods(written)) is not None:
        return period
    if len(written) and (unclear := written.astype(str).str.strip().str.fullmatch(MONTH_OR_DAY)).all():
        first = written[unclear].iloc[0]
        raise UserError(
            f"{path}: column '{written.name}': {first!r} may be a day or a month; write 2021-03-01 or 2021-03"
        )
    stamps = companion_timestamps(written, path, params.date_format)
    if not stamps.aware:
        if stamps.midnight:
            return Dates(stamps.moments, "day", stamps.moments)
        if params.timezone is None:
            raise UserError(
                f"{path}: timestamps have a time of day and no time zone (the first is "
                f"{pd.Timestamp(stamps.moments[0])}); set data.timezone, such as UTC or America/New_York"
            )
        moments = localise(stamps.moments, params.timezone, path)
        return Dates(moments, "moment", moments)
    days = _days_of(stamps, params)
    if days is not None:
        return Dates(days, "day", days)
    return Dates(stamps.moments, "moment", stamps.moments)


def not_before_close(dates: Dates, calendar: str) -> Dates:
    """Moments of a daily series of closes, none before the exchange's close of its day: vendors stamp a day's bar at
    its open. Moments of which several are of one day, and all other dates, stay what they are."""
    if dates.kind != "moment":
        return dates
    days = exchange_dates(dates.moments, exchange_zone(calendar))
    if len(np.unique(days)) < len(np.unique(dates.moments)):
        return dates
    moments = np.maximum(dates.moments, session_closes(days, calendar))
    return Dates(moments, "moment", dates.first)


def availability(
    dates: Dates, released: Dates | None, figures: Mapping[str, FloatArray], params: DataParams, name: str, path: str
) -> pd.DataFrame:
    """The table `timestamp, available_at, expires_at` and figures: one row per row of the file and pair of lag and
    carry, in the order in which the rows become available.

    A row counts from its release where the file names it, else from its day's exchange close, its moment or the end
    of its period; in each case the lag of its column later. A value that a later period has superseded before it was
    released is left out.

    Args:
        name: vix, macro or sentiment: the key in `data.availability` and `data.carry_forward`.

    Raises:
        UserError: a lag that cannot be true of a monthly or quarterly series, a column without a lag, or a release
            before the period that it is of.
    """
    base = (dates if released is None else released).known(params.calendar)
    if released is None:
        for column, values in figures.items():
            lag = _span(params.availability, name, column, "availability", path)
            _refuse_short_lag(dates, values, base, lag, column, name, path)
    elif (early := released.moments < dates.first.astype("datetime64[D]")).any():
        row = int(np.argmax(early))
        raise UserError(
            f"{path}: row {row + 1} was released on {_day(released.moments[row])}, before the period it is of "
            f"({_day(dates.first[row])}); which column is the release?"
        )
    parts: dict[tuple[pd.Timedelta, pd.Timedelta], list[str]] = {}
    for column in figures:
        lag = _span(params.availability, name, column, "availability", path)
        carry = _span(params.carry_forward, name, column, "carry_forward", path)
        parts.setdefault((lag, carry), []).append(column)
    tables = []
    for (lag, carry), columns in parts.items():
        available = base + _micros(lag)
        stamped = {"timestamp": dates.moments, "available_at": available, "expires_at": available + _micros(carry)}
        moments = {key: pd.DatetimeIndex(value).tz_localize("UTC") for key, value in stamped.items()}
        chosen = {column: figures[column] if column in columns else np.nan for column in figures}
        tables.append(pd.DataFrame({**moments, **chosen}))
    return pd.concat(tables, ignore_index=True)


def superseded_left_out(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """Rows of one symbol in the order in which they become available; a value becomes NaN where a later period's was
    available before or with it."""
    ordered = table.sort_values(["available_at", "timestamp"], kind="stable", ignore_index=True)
    periods = utc_array(ordered["timestamp"]).astype(np.int64)
    for column in columns:
        values = ordered[column].to_numpy(dtype=np.float64)
        there = np.isfinite(values)
        newest = np.maximum.accumulate(np.where(there, periods, np.iinfo(np.int64).min))
        ordered[column] = np.where(there & (periods < newest), np.nan, values)
    return ordered


def as_of(values: pd.DataFrame, moments: TimeArray) -> FloatArray:
    """[T, C] what was last known at each of `moments`: per column, the value of the last row with `available_at` at
    or before it that has one; NaN before the first, and from its `expires_at` on where the table has that column.

    Args:
        values: `available_at`, perhaps `expires_at`, and C numeric columns; of rows available at the same moment the
            last one counts.
        moments: [T] datetime64 in UTC.
    """
    available = utc_array(values["available_at"])
    order = np.argsort(available, kind="stable")
    asked = utc_array(moments)
    columns = values.drop(columns=["available_at", "expires_at"], errors="ignore")
    figures = columns.iloc[order].to_numpy(dtype=np.float64)
    rows = np.where(np.isfinite(figures), np.arange(len(figures))[:, None], -1)
    last = np.vstack([np.full((1, figures.shape[1]), -1), np.maximum.accumulate(rows, axis=0)])
    place = last[np.searchsorted(available[order], asked, side="right")]
    known = np.take_along_axis(np.vstack([figures, np.full((1, figures.shape[1]), np.nan)]), place, axis=0)
    if "expires_at" in values:
        until = np.append(utc_array(values["expires_at"])[order], np.datetime64("NaT", "us"))
        known = np.where(until[place] > asked[:, None], known, np.nan)
    return np.asarray(known, dtype=np.float64)


def _periods(written: pd.Series) -> Dates | None:
    """Quarters, months and years, or None where the column holds none."""
    if isinstance(written.dtype, pd.PeriodDtype):
        periods = pd.PeriodIndex(written)
    else:
        texts = written.dropna().astype(str).str.strip().str.removesuffix(".0")
        style = next((style for style in PERIODS if len(texts) and texts.str.fullmatch(style).all()), None)
        if style is None or len(texts) < len(written):
            return None
        parts = texts.str.extract(style)
        if "quarter" in parts:
            periods = pd.PeriodIndex(parts["year"] + "Q" + parts["quarter"], freq="Q")
        elif "month" in parts:
            periods = pd.PeriodIndex(parts["year"] + "-" + parts["month"].str.zfill(2), freq="M")
        elif "name" in parts:
            read = pd.to_datetime(parts["name"].str[:3] + " " + parts["year"], format="%b %Y", errors="coerce")
            if read.isna().any():
                return None
            periods = pd.PeriodIndex(read, freq="M")
        else:
            periods = pd.PeriodIndex(parts["year"], freq="Y")
    first = periods.start_time.to_numpy().astype("datetime64[D]").astype("datetime64[us]")
    last = periods.end_time.to_numpy().astype("datetime64[D]").astype("datetime64[us]")
    daily = bool((first == last).all())
    return Dates(last, "day" if daily else "period", first)


def _days_of(stamps: Stamps, params: DataParams) -> TimeArray | None:
    """[K] midnight of the days that stamps with a zone stand for; None if they are moments."""
    if stamps.dates is not None:
        return stamps.dates
    utc = pd.DatetimeIndex(stamps.moments).tz_localize("UTC")
    for zone in ("UTC", exchange_zone(params.calendar), params.timezone, *ELSEWHERE):
        local = utc if zone is None else utc.tz_convert(zone)
        local = local.tz_localize(None)
        if zone is not None and bool((local == local.normalize()).all()):
            return local.to_numpy().astype("datetime64[us]")
    return None


def spacing(days: TimeArray) -> str | None:
    """`monthly`, `quarterly` or `yearly`, if most of the rows stand that far apart; None otherwise."""
    gaps = np.diff(np.unique(days.astype("datetime64[D]"))).astype(np.float64)
    if not len(gaps):
        return None
    for low, high, name in SPACINGS:
        if low <= np.median(gaps) <= high and np.mean((gaps >= low) & (gaps <= high)) >= 0.7:
            return name
    return None


def _refuse_short_lag(
    dates: Dates, values: FloatArray, known: TimeArray, lag: pd.Timedelta, column: str, name: str, path: str
) -> None:
    """Raises where a row would count before the period that it measures can have been published."""
    there = np.isfinite(values)
    if dates.kind == "day" and lag < LEAST_LAG and changes_by_month(dates.moments[there], values[there]):
        raise UserError(
            f"{path}: column '{column}' changes on the first row of a month and on no other: a monthly series filled "
            f"forward from its first day would be used before it was published; {_advice(column, name)}"
        )
    if dates.kind == "period":
        every = "period by period"
    elif (found := spacing(dates.moments[there])) is not None:
        every = found
    else:
        return
    starts = dates.kind != "period" and bool((_day_of_month(dates.moments[there]) == 1).all())
    ends = dates.moments[there].astype("datetime64[D]")
    if starts:
        months = {"monthly": 1, "quarterly": 3, "yearly": 12}[every]
        ends = (ends.astype("datetime64[M]") + months).astype("datetime64[D]")
    too_early = lag < LEAST_LAG or bool((known[there] + _micros(lag) < ends).any())
    if too_early:
        example = dates.first[there][0]
        raise UserError(
            f"{path}: column '{column}' is {every} (the first row is of {_day(example)}) and would be used "
            f"{_words(lag)} after {'that day' if dates.kind != 'period' else 'the end of the period'}, before it was "
            f"published; {_advice(column, name, every if starts else '')}"
        )


def changes_by_month(days: TimeArray, values: FloatArray) -> bool:
    """Whether a daily series changes on the first row of most months and never on another."""
    order = np.argsort(days, kind="stable")
    months, ordered = days[order].astype("datetime64[M]"), values[order]
    begins = np.diff(months).astype(np.int64) > 0
    changed = np.diff(ordered) != 0.0
    if begins.sum() < 6 or len(ordered) < 5 * begins.sum():
        return False
    return bool(not (changed & ~begins).any() and (changed & begins).sum() >= 0.8 * begins.sum())


def _advice(column: str, name: str, every: str = "monthly") -> str:
    """A lag to try: from the first day of a quarter or year (`every`) it has to reach beyond its end."""
    lag = {"quarterly": "120D", "yearly": "400D"}.get(every, "45D")
    option = f"-S \"data.availability.{name}={{{column}: {lag}, '*': 1D}}\"" if name == "macro" else lag
    return f"give a column `released`, or set data.availability.{name} (such as {option})"


def _day_of_month(days: TimeArray) -> np.ndarray:
    day: np.ndarray = (days.astype("datetime64[D]") - days.astype("datetime64[M]")).astype(np.int64) + 1
    return day


def _span(section: object, name: str, column: str, key: str, path: str) -> pd.Timedelta:
    written = lag_of(getattr(section, name), column)
    if written is None:
        raise UserError(
            f"{path}: data.{key}.{name} says nothing of column '{column}'; add it, or '*' for all that are not named"
        )
    return pd.Timedelta(written)


def _micros(span: pd.Timedelta) -> np.timedelta64:
    return span.as_unit("us").to_timedelta64()


def _words(span: pd.Timedelta) -> str:
    return f"{span.days} day{'' if span.days == 1 else 's'}" if span >= pd.Timedelta(days=1) else str(span)


def _day(moment: np.datetime64) -> str:
    return str(moment.astype("datetime64[D]"))
