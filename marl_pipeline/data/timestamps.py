"""Written moments become datetime64[us], with what is needed to place them: did they name a zone, a time of day?

The order of day and month and the unit of a count are decided once, by all rows; what they leave open is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.data.calendar import HOUR, exchange_dates, in_session, schedule, utc_array
from marl_pipeline.data.dataset import BoolArray, TimeArray
from marl_pipeline.data.written_dates import Dates, read_dates
from marl_pipeline.errors import UserError

MOSTLY = 0.9
"""Share of the sessions, or of the bars, that must show the habit of stamping ends."""


@dataclass(frozen=True)
class Stamps:
    """K parsed moments.

    Attributes:
        moments: [K] datetime64[us]; in UTC if `aware`, else as the clock of an unnamed zone shows them. NaT where
            the input has none.
        aware: the input names its zone (or counts from an epoch, which is in UTC).
        clock: [K] what the written clock shows where the input names offsets, else None.
        style: how they were read, as `data.date_format` takes it; empty where nothing had to be decided.
        period: `month`, `quarter` or `year` where the input names no days; `moments` are then the first days.
    """

    moments: TimeArray
    aware: bool
    clock: TimeArray | None = None
    style: str = ""
    period: str | None = None

    @property
    def midnight(self) -> bool:
        """Whether all are exactly midnight, on the clock they were written by: dates rather than moments."""
        return _midnights(self.moments if self.clock is None else self.clock)

    @property
    def dates(self) -> TimeArray | None:
        """[K] the days, if all are midnight: a date is a date, whatever zone's midnight it carries."""
        if not self.midnight:
            return None
        return self.moments if self.clock is None else self.clock


def parse_timestamps(values: pd.Series, origin: str, date_format: str | None = None) -> Stamps:
    """Reads a column of dates, date-times, texts or numbers.

    Texts are year first, or day or month first if all rows allow one order only, or have the month in letters;
    numbers are YYYYMMDD, longer forms of it, or counts of s, ms, us or ns since 1970.

    Args:
        values: its index labels rows in errors (`row 1` for the first by default).
        origin: names the input in errors.
        date_format: `data.date_format`.

    Raises:
        UserError: a value that is no moment (the first one is named), a stamp that is missing, some with a zone
            and some without, or dates that could be read in two ways.
    """
    missing = values.isna()
    if missing.any():
        raise UserError(f"{origin}: column '{values.name}': {row_of(values, missing.to_numpy())} has no timestamp")
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        clock = values.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        return Stamps(utc_array(values), aware=True, clock=clock)
    if pd.api.types.is_datetime64_dtype(values):
        return Stamps(values.to_numpy().astype("datetime64[us]"), aware=False)
    if isinstance(values.dtype, pd.PeriodDtype):
        return Stamps(values.dt.start_time.to_numpy().astype("datetime64[us]"), aware=False)
    if pd.api.types.is_bool_dtype(values) or not (pd.api.types.is_numeric_dtype(values) or _textual(values)):
        raise UserError(f"{origin}: column '{values.name}' holds {values.dtype}, not timestamps")
    codes, written = pd.factorize(values)
    texts = [_text(value) for value in written]
    found = read_dates(texts, date_format)
    if isinstance(found, Dates):
        clock = None if found.clock is None else found.clock[codes]
        return Stamps(found.moments[codes], found.aware, clock, found.style, found.period)
    bad = np.isin(codes, found.places)
    raise UserError(
        f"{origin}: column '{values.name}': "
        + found.reason.format(*(row_of(values, codes == place) for place in found.places[:2]), bad=row_of(values, bad))
    )


def companion_timestamps(values: pd.Series, origin: str, date_format: str | None) -> Stamps:
    """The same of a file beside the bars: `data.date_format`, which is of the bars, decides only what its rows leave
    open."""
    try:
        return parse_timestamps(values, origin)
    except UserError:
        if date_format is None:
            raise
        return parse_timestamps(values, origin, date_format)


def localise(
    moments: TimeArray, zone: str, origin: str, groups: np.ndarray | None = None, rows: pd.Index | None = None
) -> TimeArray:
    """Clock readings of `zone` as datetime64[us] in UTC.

    The hour that autumn repeats is resolved by the order of the rows of each group, ascending or descending.

    Args:
        moments: [K] what the clock shows.
        zone: a name such as America/New_York.
        origin: names the input in errors.
        groups: [K] the symbol of each row; None: one.
        rows: [K] labels of the rows in errors.

    Raises:
        UserError: an unknown zone, a reading that the change to summer time skips, or one that the change from it
            repeats and that stands there once only.
    """
    try:
        index = pd.DatetimeIndex(moments).tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    except (KeyError, ValueError, OSError, TypeError):
        raise UserError(
            f"data.timezone: '{zone}' is not a time zone; write one such as UTC or America/New_York"
        ) from None
    lost: BoolArray = np.asarray(index.isna()) & ~np.isnat(moments)
    if not lost.any():
        return utc_array(index)
    places = np.flatnonzero(lost)
    early = pd.DatetimeIndex(moments[places]).tz_localize(
        zone, ambiguous=np.ones(len(places), dtype=bool), nonexistent="NaT"
    )
    skipped = np.asarray(early.isna())
    if skipped.any():
        advice = "write timestamps with their offset"
        raise _no_hour(moments, places[skipped], zone, origin, rows, "never happens", advice)
    summer = _in_summer(moments, places, groups)
    if summer is None:
        advice = "its rows do not show which is meant: write timestamps with their offset"
        raise _no_hour(moments, places, zone, origin, rows, "happens twice", advice)
    placed = utc_array(index).copy()
    placed[places] = utc_array(
        pd.DatetimeIndex(moments[places]).tz_localize(zone, ambiguous=summer, nonexistent="raise")
    )
    return placed


def _in_summer(moments: TimeArray, places: np.ndarray, groups: np.ndarray | None) -> BoolArray | None:
    """[P] whether each repeated reading is the first of the two, by the order of its group's rows of that night; None
    if some group's rows of a night do not show the clock going back once."""
    names = np.zeros(len(moments), dtype=np.int64) if groups is None else pd.factorize(groups)[0]
    order = np.lexsort((places, names[places]))
    nights = moments[places].astype("datetime64[D]")
    summer = np.zeros(len(places), dtype=bool)
    keys = pd.MultiIndex.from_arrays([names[places[order]], nights[order]])
    for where in pd.Series(order).groupby(keys.codes[0] * (len(keys.levels[1]) + 1) + keys.codes[1]).indices.values():
        chosen = order[where]
        shown = moments[places[chosen]]
        steps = np.diff(shown) / np.timedelta64(1, "us")
        ascending = _ascends(moments, places[chosen], names)
        back = np.flatnonzero(steps <= 0.0) if ascending else np.flatnonzero(steps >= 0.0)
        if len(back) != 1 or ascending is None:
            return None
        first = np.arange(len(chosen)) <= back[0]
        summer[chosen] = first if ascending else ~first
    return summer


def _ascends(moments: TimeArray, places: np.ndarray, names: np.ndarray) -> bool | None:
    """Whether the rows of the group at `places` go forward in time as a whole."""
    rows = np.flatnonzero(names == names[places[0]])
    first, last = moments[rows[0]], moments[rows[-1]]
    return None if first == last else bool(first < last)


def _no_hour(
    moments: TimeArray, places: np.ndarray, zone: str, origin: str, rows: pd.Index | None, what: str, advice: str
) -> UserError:
    first = int(places[0])
    at = f" in {_label(rows[first])}" if rows is not None else ""
    return UserError(f"{origin}: {pd.Timestamp(moments[first])}{at} {what} in {zone} (summer time changes); {advice}")


def day_labels(stamps: Stamps, zone: str) -> TimeArray | None:
    """[K] datetime64[us] midnight of the days, if the stamps are dates and not moments, else None.

    Dates are: midnights of the clock they were written by (a date keeps its day, whatever the offset), midnights of
    UTC, midnights of the exchange's `zone`.
    """
    if stamps.dates is not None:
        return stamps.dates
    if stamps.aware:
        if _midnights(stamps.moments):
            return stamps.moments
        local = pd.DatetimeIndex(stamps.moments).tz_localize("UTC").tz_convert(zone).tz_localize(None)
        if bool((local == local.normalize()).all()):
            return exchange_dates(stamps.moments, zone)
    return None


def name_ends(starts: TimeArray, frequency: str, calendar: str) -> bool:
    """Whether the bars are stamped at their ends: read as starts they stand at closes and never at opens, or at the
    last second of a minute.

    Args:
        starts: [K] datetime64[us] in UTC, read as starts (labels for daily bars).
        frequency: `1Day` or `1Hour`.
        calendar: whose opens and closes count; where a session begins as another ends, nothing can be said.
    """
    known = np.unique(starts[~np.isnat(starts)])
    if len(known) < 10:
        return False
    if frequency == "1Day":
        day = np.timedelta64(1, "D")
        as_starts, as_ends = (in_session(moments, "1Day", calendar).mean() for moments in (known, known - day))
        return bool(as_starts < MOSTLY and as_ends > 0.99)
    if np.median(np.diff(known)) < HOUR / 2:
        return False
    if (_whole_minutes(known) != known).mean() >= MOSTLY:
        return True
    days = schedule(calendar, known)
    first, last = np.searchsorted(known, days.open - HOUR, side="right"), np.searchsorted(known, days.close + HOUR)
    chosen = last > first
    opens, closes = days.open[chosen], days.close[chosen]
    if len(opens) < 3 or bool((opens[1:] <= closes[:-1] + HOUR).any()):
        return False
    first, last = first[chosen], last[chosen]
    at_open = known[first] <= opens  # a bar that starts at the open, or up to an hour before it on another grid
    full = known[first] >= opens + HOUR
    after_close = known[last - 1] >= closes
    ends = after_close & ~at_open & (full | (known[last - 1] == closes))
    if ends.mean() < MOSTLY:
        return False
    # stamps of another zone stand at closes too, and outside the sessions before and after
    return bool(in_session(starts_of_ends(known, frequency, calendar), frequency, calendar).mean() >= MOSTLY)


def starts_of_ends(ends: TimeArray, frequency: str, calendar: str) -> TimeArray:
    """[K] the starts of bars stamped at their ends: a day or an hour earlier, but not before the session's open
    or the end of its lunch break."""
    if frequency == "1Day":
        return ends - np.timedelta64(1, "D")
    ends = _whole_minutes(ends)
    known = np.unique(ends[~np.isnat(ends)])
    days = schedule(calendar, ends)
    place = np.maximum(np.searchsorted(days.part_open, ends) - 1, 0)
    within = (days.part_open[place] < ends) & (ends <= days.part_close[place])
    starts = np.where(within, np.maximum(ends - HOUR, days.part_open[place]), ends - HOUR)
    # a last bar that the close or the lunch break cut short begins where the one before it ends
    before = known[np.maximum(np.searchsorted(known, ends) - 1, 0)]
    cut = within & (ends == days.part_close[place]) & (before > starts) & (before < ends)
    return np.where(cut, before, starts)


def _whole_minutes(moments: TimeArray) -> TimeArray:
    """Moments with the last second of a minute made the next minute: 10:59:59 and 10:59:59.999 are the end at 11:00."""
    minute = moments.astype("datetime64[m]").astype("datetime64[us]")
    last = moments - minute >= np.timedelta64(59, "s")
    return np.where(last, minute + np.timedelta64(1, "m"), moments)


def row_of(values: pd.Series, mask: BoolArray) -> str:
    """The label of the first row of `mask`: `row 3`, or `line 4` where the index holds a file's lines."""
    place = int(np.argmax(mask))
    return _label(values.index[place]) if values.index.name == LINE else f"row {place + 1}"


LINE = "line"
"""Name of an index that holds the lines of a text file that rows stand in."""


def _label(line: object) -> str:
    return f"line {line}"


def _text(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        return repr(float(value)) if not float(value).is_integer() else str(int(value))
    return re.sub(r"\s+", " ", str(value)).strip()


def _midnights(moments: TimeArray) -> bool:
    known = moments[~np.isnat(moments)]
    return bool((known == known.astype("datetime64[D]")).all())


def _textual(values: pd.Series) -> bool:
    return pd.api.types.is_string_dtype(values) or pd.api.types.is_object_dtype(values)
