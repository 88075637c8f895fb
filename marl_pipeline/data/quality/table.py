"""The bars in the order the rules read them: by symbol and time, with the row order of the file remembered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from marl_pipeline.data.calendar import Schedule, schedule, session_index, utc_array
from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray, TimeArray
from marl_pipeline.data.hourly import GRID_SESSIONS, NEUTRAL, PARTS, Starts

VALUES = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class SortedBars:
    """Bars sorted by symbol and time; rows of one symbol and time keep the order of the file. [n] each.

    Attributes:
        names: the symbols, sorted; `symbol` indexes them.
        stamp: datetime64[us], UTC.
        row: place in the file.
        values: open, high, low, close, volume.
        stands: the row stands for its symbol and time (the others are duplicates): see `standing`.
        session: index into the sessions of `days`, -1 when the exchange was closed.
        days: the sessions of the exchange.
    """

    names: NDArray[np.str_]
    symbol: IntArray
    stamp: TimeArray
    row: IntArray
    values: dict[str, FloatArray]
    stands: BoolArray
    session: IntArray
    days: Schedule
    calendar: str
    hourly: bool

    def __len__(self) -> int:
        return len(self.row)

    @property
    def opens(self) -> TimeArray:
        return self.days.open

    @cached_property
    def stamps(self) -> TimeArray:
        """The distinct stamps, ascending."""
        return np.unique(self.stamp)

    @cached_property
    def standing_row(self) -> IntArray:
        """[n] the row that stands for the symbol and time of each."""
        group = np.cumsum(_begins(self.symbol, self.stamp)) - 1
        rows: IntArray = np.flatnonzero(self.stands)[group]
        return rows

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
    values = {name: bars[name].to_numpy(dtype=np.float64)[order] for name in VALUES}
    return SortedBars(
        names=np.asarray(names, dtype=str),
        symbol=symbol,
        stamp=stamp,
        row=order.astype(np.int64),
        values=values,
        stands=standing(symbol, stamp, values),
        session=session_index(stamp, frequency, calendar),
        days=schedule(calendar, stamp),
        calendar=calendar,
        hourly=frequency == "1Hour",
    )


def standing(symbol: IntArray, stamp: TimeArray, values: dict[str, FloatArray]) -> BoolArray:
    """[n] the one row of each symbol and time that is used, of rows sorted by both: the most complete, and of equally
    complete ones the last, since vendors send a correction after what it corrects."""
    begins = _begins(symbol, stamp)
    if begins.all():
        return begins
    complete = np.zeros(len(symbol), dtype=np.int64)
    for name, column in values.items():
        complete += np.isfinite(column) & ((column >= 0) if name == "volume" else (column > 0))
    group = np.cumsum(begins) - 1
    order = np.lexsort((np.arange(len(symbol)), complete, group))
    last = np.searchsorted(group[order], np.arange(group[-1] + 1), side="right") - 1
    out = np.zeros(len(symbol), dtype=bool)
    out[order[last]] = True
    return out


def _begins(symbol: IntArray, stamp: TimeArray) -> BoolArray:
    """[n] the row is the first of its symbol and time."""
    begins = np.ones(len(symbol), dtype=bool)
    begins[1:] = (symbol[1:] != symbol[:-1]) | (stamp[1:] != stamp[:-1])
    return begins


def own_grid(bars: SortedBars, where: Starts, counted: BoolArray) -> IntArray:
    """[n, PARTS] the grid that most of the symbol's own bars started on, over GRID_SESSIONS sessions up to the row's
    stamp; NEUTRAL while it has no bar on any grid. Needs no bar after the row's stamp."""
    out = np.full((len(bars), PARTS), NEUTRAL, dtype=np.int64)
    start = np.searchsorted(
        bars.key(bars.symbol, bars.stamp),
        bars.key(bars.symbol, bars.opens[np.maximum(bars.session - (GRID_SESSIONS - 1), 0)]),
    )
    begins = np.searchsorted(bars.symbol, bars.symbol, side="left")
    start = np.minimum(np.maximum(start, begins), np.arange(len(bars)))
    counted = counted & (where.phase >= 0)
    for part in range(PARTS if (where.part > 0).any() else 1):
        best = np.zeros(len(bars), dtype=np.int64)
        for phase in np.unique(where.phase[counted]):
            total = np.concatenate([[0], np.cumsum(counted & (where.part == part) & (where.phase == phase))])
            score = total[1:] - total[start]
            leads = score > best
            out[leads, part], best[leads] = phase, score[leads]
    if not (where.part > 0).any():
        out[:, 1:] = out[:, :1]
    return out
