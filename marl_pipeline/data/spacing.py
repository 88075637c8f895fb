"""How far apart bars are, measured before anything is done with them: hourly bars are not days, nor weeks.

The label of a daily bar keeps no time of day, so intraday bars under `1Day` are only seen on the stamps as the file
has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import FloatArray, IntArray, TimeArray
from marl_pipeline.errors import UserError

MINUTE = np.timedelta64(1, "m")
HOUR_MINUTES, DAY_MINUTES = 60.0, 1440.0

NAMED = (
    (5.0 * DAY_MINUTES, 10.0 * DAY_MINUTES, "a week"),
    (12.0 * DAY_MINUTES, 16.0 * DAY_MINUTES, "two weeks"),
    (25.0 * DAY_MINUTES, 36.0 * DAY_MINUTES, "a month"),
    (80.0 * DAY_MINUTES, 100.0 * DAY_MINUTES, "a quarter"),
    (350.0 * DAY_MINUTES, 380.0 * DAY_MINUTES, "a year"),
)
OWN = {"1Hour": (50.0, 70.0), "1Day": (20.0 * HOUR_MINUTES, 4.5 * DAY_MINUTES)}
"""Minutes between the bars of a symbol that each frequency allows: a weekend is one step between days."""

FINER_SHARE = 0.4
"""Share of steps that are shorter than the frequency's, from which on the bars are of a finer one."""
COARSER_SHARE, OWN_SHARE = 0.6, 0.05
"""Share of steps of one longer kind from which on the bars are of a coarser frequency, and of the frequency's own
steps up to which: thinly traded symbols have steps of every length."""
INTRADAY = 4.0 * HOUR_MINUTES
"""Steps up to this are never between daily bars, so that a few of them are another frequency within the file."""
ENOUGH, ENOUGH_COARSE, FEWEST = 4, 10, 4
"""Steps of a finer frequency, and steps at all for a coarser one, without which nothing is said of a symbol; the last
where no symbol has steps of the frequency itself and all are of one kind."""
WEEK_RUN, WEEK = 8, (6.0 * DAY_MINUTES, 8.0 * DAY_MINUTES)
"""So many weekly steps one after another are no holidays and no thin trading: weekly bars among daily ones."""


@dataclass(frozen=True)
class Spacing:
    """Of one symbol: its usual step in words, and how many of its steps are like that."""

    words: str
    like: int
    steps: int
    minutes: float


def refuse_other_spacing(symbol: pd.Series, moments: TimeArray, frequency: str, origin: str) -> None:
    """Measures the steps between the bars of every symbol.

    Args:
        symbol: [n] names.
        moments: [n] datetime64[us]: bar starts, as precise as the file gives them.
        frequency: `1Day` or `1Hour`.

    Raises:
        UserError: a symbol's bars are regularly closer together or further apart than `frequency` says.
    """
    codes, names = pd.factorize(symbol, sort=True)
    known = ~np.isnat(moments)
    code, stamp = codes[known].astype(np.int64), moments[known]
    order = np.lexsort((stamp, code))
    code, stamp = code[order], stamp[order]
    follows = (code[1:] == code[:-1]) & (stamp[1:] > stamp[:-1])
    minutes = ((stamp[1:] - stamp[:-1]) / MINUTE)[follows]
    of = code[1:][follows]
    others = _others(of, minutes, frequency)
    if not others:
        return
    name, worst = max(others.items(), key=lambda item: (item[1].like, -item[0]))
    raise UserError(
        f"{origin}: bars are {worst.words} apart ({worst.like:,} of {worst.steps:,} steps of {names[name]}"
        f"{f' and {len(others) - 1} more symbols' if len(others) > 1 else ''}), but data.frequency (--frequency) says "
        f"{frequency}; {_advice(worst, frequency)}"
    )


def _others(of: IntArray, minutes: FloatArray, frequency: str) -> dict[int, Spacing]:
    """The symbols whose bars are of another frequency."""
    low, high = OWN[frequency]
    count = np.bincount(of)
    finer = np.bincount(of, minutes < low)
    own = count - finer - np.bincount(of, minutes > high)
    without_own = own <= OWN_SHARE * count
    coarser = without_own & (count >= (FEWEST if without_own.all() else ENOUGH_COARSE))
    mixed = np.bincount(of, (minutes <= INTRADAY) & (low > INTRADAY)) >= ENOUGH
    weekly = np.zeros(len(count), dtype=bool)
    weekly[_with_weeks(of, minutes)] = frequency == "1Day"
    suspect = (finer >= np.maximum(FINER_SHARE * count, ENOUGH)) | coarser | mixed | weekly
    begins = np.searchsorted(of, np.arange(len(count) + 1))
    found = {}
    for symbol in np.flatnonzero(suspect):
        steps = minutes[begins[symbol] : begins[symbol + 1]]
        if (spacing := _spacing(steps, low, high)) is not None:
            found[int(symbol)] = spacing
    return found


def _with_weeks(of: IntArray, minutes: FloatArray) -> IntArray:
    """The symbols with a run of weekly steps."""
    if len(of) < WEEK_RUN:
        return of[:0]
    weekly = (minutes >= WEEK[0]) & (minutes <= WEEK[1])
    total = np.append(0, np.cumsum(weekly))
    full = total[WEEK_RUN:] - total[:-WEEK_RUN] == WEEK_RUN
    one = of[WEEK_RUN - 1 :] == of[: len(of) - WEEK_RUN + 1]
    return np.unique(of[: len(full)][full & one])


def _spacing(steps: FloatArray, low: float, high: float) -> Spacing | None:
    values, counts = np.unique(np.rint(steps), return_counts=True)
    usual, like = float(values[counts.argmax()]), int(counts.max())
    mixed = low > INTRADAY and (steps <= INTRADAY).sum() >= ENOUGH
    if (steps < low).sum() >= FINER_SHARE * len(steps) or mixed:
        short = values <= INTRADAY if mixed else values < low
        usual, like = float(values[short][counts[short].argmax()]), int(counts[short].max())
        return Spacing(_words(usual), like, len(steps), usual)
    if ((steps >= low) & (steps <= high)).sum() > OWN_SHARE * len(steps):
        weeks = int(((steps >= WEEK[0]) & (steps <= WEEK[1])).sum())
        return Spacing("a week", weeks, len(steps), WEEK[0]) if low > INTRADAY and weeks >= WEEK_RUN else None
    share = COARSER_SHARE if len(steps) >= ENOUGH_COARSE else 1.0
    for least, most, word in NAMED:
        inside = int(((steps >= least) & (steps <= most)).sum())
        if inside >= share * len(steps):
            return Spacing(word, inside, len(steps), least)
    days = int(((steps >= OWN["1Day"][0]) & (steps <= OWN["1Day"][1])).sum())
    if high < OWN["1Day"][0] and days >= COARSER_SHARE * len(steps):
        return Spacing("a day", days, len(steps), DAY_MINUTES)
    regular = high < usual < OWN["1Day"][0] and like >= 0.4 * len(steps)
    return Spacing(_words(usual), like, len(steps), usual) if regular else None


def _words(minutes: float) -> str:
    if minutes < 1.0:
        return "less than a minute"
    if minutes < HOUR_MINUTES:
        return f"{minutes:g} minute{'' if minutes == 1 else 's'}"
    if minutes == HOUR_MINUTES:
        return "an hour"
    return f"{minutes / HOUR_MINUTES:.3g} hours"


def _advice(found: Spacing, frequency: str) -> str:
    minutes = found.minutes
    of_another = minutes <= INTRADAY and found.like < FINER_SHARE * found.steps
    if OWN[frequency][0] > INTRADAY and (of_another or minutes == WEEK[0]):
        return "bring bars of one frequency in one file"
    for other, (low, high) in OWN.items():
        if other != frequency and low <= minutes <= high:
            return f"set it to {other}"
    return "bring bars of 1Day or 1Hour: no other frequency is read"
