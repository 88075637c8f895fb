"""The bars in the order the rules read them, and the grids that they are held against.

`SortedBars` is the table by symbol and time with the row order of the file remembered. A grid is the minute of
the hour that hourly bars start at; the first bar of a session may start at the open on any grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from marl_pipeline.data.calendar import schedule, session_index, utc_array
from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray, TimeArray

HOUR = np.timedelta64(1, "h")
PHASE_STEP = np.timedelta64(5, "m")
PHASES = 12
"""Grids that are told apart: bars that start at :00, :05 ... :55."""
NEUTRAL, ODD = -1, -2
"""A bar at the session's open belongs to every grid; one at 10:07:13 belongs to none."""
GRID_SESSIONS = 20
"""Sessions over which the grid in force is counted."""


@dataclass(frozen=True)
class SortedBars:
    """Bars sorted by symbol and time; rows of one symbol and time keep the order of the file. [n] each.

    Attributes:
        names: the symbols, sorted; `symbol` indexes them.
        stamp: datetime64[us], UTC.
        row: place in the file.
        values: open, high, low, close, volume.
        first: the row stands for its symbol and time (later ones are duplicates).
        session: index into `opens`, -1 when the exchange was closed.
        days, opens, closes: datetime64[us], UTC, of the exchange sessions; `days` is midnight of the date.
    """

    names: NDArray[np.str_]
    symbol: IntArray
    stamp: TimeArray
    row: IntArray
    values: dict[str, FloatArray]
    first: BoolArray
    session: IntArray
    days: TimeArray
    opens: TimeArray
    closes: TimeArray
    hourly: bool

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def stamps(self) -> TimeArray:
        """The distinct stamps, ascending."""
        return np.unique(self.stamp)

    def key(self, symbol: IntArray, stamp: TimeArray, side: str = "left") -> IntArray:
        """Integers in the order of (symbol, stamp), to look up where a stamp falls among a symbol's rows."""
        rank = np.searchsorted(self.stamps, stamp, side="left" if side == "left" else "right")
        return symbol * np.int64(len(self.stamps) + 1) + rank.astype(np.int64)


def sort_bars(bars: pd.DataFrame, *, calendar: str, frequency: str) -> SortedBars:
    """Sorts a canonical bar table and gives every row its exchange session."""
    codes, names = pd.factorize(bars["symbol"], sort=True)
    stamp = utc_array(bars["timestamp"])
    order = np.lexsort((stamp, codes))
    symbol, stamp = codes[order].astype(np.int64), stamp[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (symbol[1:] != symbol[:-1]) | (stamp[1:] != stamp[:-1])
    days = schedule(calendar, stamp)
    return SortedBars(
        names=np.asarray(names, dtype=str),
        symbol=symbol,
        stamp=stamp,
        row=order.astype(np.int64),
        values={
            name: bars[name].to_numpy(dtype=np.float64)[order] for name in ("open", "high", "low", "close", "volume")
        },
        first=first,
        session=session_index(stamp, frequency, calendar),
        days=days.session,
        opens=days.open,
        closes=days.close,
        hourly=frequency == "1Hour",
    )


def phase_of(bars: SortedBars) -> IntArray:
    """[n] grid of each bar: 0..11 for :00 to :55, NEUTRAL at the open, ODD for any other minute."""
    into = bars.stamp - bars.stamp.astype("datetime64[h]")
    phase = np.where(into % PHASE_STEP == np.timedelta64(0), into // PHASE_STEP, ODD).astype(np.int64)
    if len(bars.opens):
        phase[(bars.session >= 0) & (bars.opens[bars.session] == bars.stamp)] = NEUTRAL
    return phase


def grid_in_force(group: IntArray, bars: SortedBars, phase: IntArray, counted: BoolArray) -> IntArray:
    """[n] the grid that most bars of the row's group started on, over GRID_SESSIONS sessions up to its own stamp.

    NEUTRAL where the group has no bar on any grid yet. Needs no bar after the row's stamp.
    """
    counted = counted & (phase >= 0)
    order = np.lexsort((bars.stamp, group))
    width = np.int64(len(bars.stamps) + 1)
    key = group[order] * width + np.searchsorted(bars.stamps, bars.stamp[order])
    hits = np.zeros((len(order) + 1, PHASES), dtype=np.int32)
    for which in range(PHASES):
        np.cumsum(counted[order] & (phase[order] == which), out=hits[1:, which])
    since_session = np.maximum(bars.session[order] - (GRID_SESSIONS - 1), 0)
    since = bars.opens[since_session] if len(bars.opens) else bars.stamp[order]
    start = np.searchsorted(key, group[order] * width + np.searchsorted(bars.stamps, since), side="left")
    end = np.searchsorted(key, key, side="right")
    score = hits[end] - hits[np.minimum(start, end)]
    leading = np.where(score.max(axis=1) > 0, score.argmax(axis=1), NEUTRAL)
    out = np.empty(len(order), dtype=np.int64)
    out[order] = leading
    return out


def expected_stamps(bars: SortedBars, phase: int) -> TimeArray:
    """The stamps that the calendar expects on a grid, ascending: one a session for daily bars; for hourly ones
    the open and every hour after it, at the grid's minute, before the close."""
    if not bars.hourly:
        return bars.days
    hours: TimeArray = bars.opens.astype("datetime64[h]").astype("datetime64[us]")
    late = (phase * PHASE_STEP <= bars.opens - hours).astype(np.int64)
    start: TimeArray = hours + phase * PHASE_STEP + late * HOUR
    inner = start[:, None] + np.arange(24) * HOUR
    inner = inner[inner < bars.closes[:, None]]
    expected: TimeArray = np.unique(np.concatenate([bars.opens, inner]))
    return expected
