"""Whether bars keep the hours of the exchange that `data.calendar` names: bars of another exchange are refused before a
rule hides what is right.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from marl_pipeline.data.calendar import schedule, session_index
from marl_pipeline.data.dataset import TimeArray
from marl_pipeline.data.hourly import NEUTRAL, expected_hours
from marl_pipeline.errors import UserError

EXCHANGES = (
    "XNYS", "XLON", "XETR", "XPAR", "XSWX", "XTKS", "XHKG", "XSHG", "XBOM", "XASX", "XTSE", "CMES", "24/5", "24/7",
)  # fmt: skip
"""Calendars that bars are held against when they do not fit their own."""

ZONES = {
    "Europe/London": "XLON",
    "Europe/Berlin": "XETR",
    "America/New_York": "XNYS",
    "America/Chicago": "CMES",
    "Asia/Tokyo": "XTKS",
    "Asia/Hong_Kong": "XHKG",
    "Asia/Kolkata": "XBOM",
    "Australia/Sydney": "XASX",
}
"""Zones whose midnights daily bars are stamped with, and an exchange of each."""

OFF_SHARE = 0.2
"""Share of bars outside the sessions from which on the calendar is held to be another one, if one fits."""
FITS = 0.1
"""Bars outside the sessions and sessions without bars, as shares added up, below which a calendar fits."""
NOTED_SHARE, NOTED_FIT = 0.01, 0.005
"""The same for what is noted only: the holidays of one exchange on the calendar of another."""
MOST_STAMPS = 20_000
"""The latest stamps that a calendar is held against."""


def refuse_other_midnight(moments: TimeArray, zone: str, calendar: str, origin: str) -> None:
    """Refuses daily stamps that are midnights of another exchange's zone: placed in `zone`, they would fall on the
    day before or after.

    Args:
        moments: [n] datetime64[us] in UTC, not all midnights in UTC or in the exchange's `zone`.

    Raises:
        UserError: they are midnights of one of ZONES.
    """
    stamps = pd.DatetimeIndex(np.unique(moments[~np.isnat(moments)])).tz_localize("UTC")
    for other, exchange in ZONES.items():
        local = stamps.tz_convert(other).tz_localize(None)
        if other != zone and len(local) and bool((local == local.normalize()).all()):
            raise UserError(
                f"{origin}: the daily timestamps are midnights of {other}, and data.calendar {calendar} is an exchange "
                f"in {zone}; set data.calendar to the one that the bars come from, such as {exchange}"
            )


def refuse_other_calendar(stamps: TimeArray, frequency: str, calendar: str) -> str | None:
    """Holds bars against the sessions of `calendar`.

    Args:
        stamps: [n] datetime64[us] in UTC: bar starts, or labels of daily bars.

    Returns:
        A line that names another calendar which fits better, None if there is nothing to say.

    Raises:
        UserError: many bars lie outside the sessions and another calendar fits them.
    """
    distinct, count = np.unique(stamps, return_counts=True)
    shared = count >= 0.5 * np.quantile(count, 0.9)
    distinct, count = distinct[shared][-MOST_STAMPS:], count[shared][-MOST_STAMPS:]
    off = _off_share(distinct, frequency, calendar)
    if off < NOTED_SHARE:
        return None
    found = {other: _misfit(distinct, frequency, other) for other in EXCHANGES if other != calendar}
    best = min(found, key=lambda other: found[other])
    if off >= OFF_SHARE and found[best] <= FITS:
        raise UserError(
            f"bars: {100 * off:.0f}% of them lie outside the sessions of data.calendar {calendar}, and the sessions of "
            f"{best} fit them; set data.calendar to {best}, or data.timezone to the zone of the timestamps"
        )
    if found[best] <= min(NOTED_FIT, 0.25 * _misfit(distinct, frequency, calendar)):
        return (
            f"data.calendar: {100 * off:.1f}% of the bars lie outside the sessions of {calendar}, and those of {best} "
            f"fit; is {best} their exchange?"
        )
    return None


def _off_share(stamps: TimeArray, frequency: str, calendar: str) -> float:
    return float((session_index(stamps, frequency, calendar) < 0).mean())


def _misfit(stamps: TimeArray, frequency: str, calendar: str) -> float:
    """Share of stamps outside the sessions plus share of expected stamps that are not there."""
    days = schedule(calendar, stamps)
    expected = days.session if frequency == "1Day" else expected_hours(days, (NEUTRAL, NEUTRAL))
    wanted = int(((expected >= stamps[0]) & (expected <= stamps[-1])).sum())
    inside = session_index(stamps, frequency, calendar) >= 0
    return float((~inside).mean()) + max(0.0, 1.0 - int(inside.sum()) / max(wanted, 1))
