"""Bars of all symbols on one time grid: the table becomes [T, N] arrays, with what may be traded when.

Row t needs nothing after t: a stamp enters the grid by its own bars, corporate actions adjust forwards from the
day they take effect, and membership is an interval.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from marl_pipeline.data import trailing
from marl_pipeline.data.calendar import in_session, known_at, session_of, utc_array
from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray, Panel, TimeArray
from marl_pipeline.data.hourly import NEUTRAL, complete_at, market_grid, starts
from marl_pipeline.errors import UserError

PRICES = ("open", "high", "low", "close")

THIN_SHARE = 0.1
THIN_WINDOW = 20
"""A stamp at which fewer than `THIN_SHARE` of the symbols of the busiest of the last `THIN_WINDOW` stamps have a
bar is left out of the grid: one vendor's odd stamp must not become an empty row for everybody else."""


def build_panel(
    bars: pd.DataFrame,
    *,
    frequency: str,
    calendar: str,
    adjustment: str,
    membership: pd.DataFrame | None = None,
    corporate_actions: pd.DataFrame | None = None,
) -> Panel:
    """Puts cleaned bars on one grid.

    A quarantined bar is as if it were missing: NaN prices, not tradable. Its symbol stays in `symbols`.

    Args:
        bars: unique (symbol, timestamp) with open, high, low, close, volume and a boolean `quarantined`.
        adjustment: what the prices already contain, `none`, `split` or `total`. What is missing is applied from
            `corporate_actions`.
        membership: symbol, start, end (first and last day in the index; NaT: open); without it every symbol is a
            member always.
        corporate_actions: symbol, ex_date, kind (`split`, `dividend`), value (new shares per old one; cash per
            share).

    Raises:
        UserError: fewer than two symbols, no bar that is not quarantined and in a session, or a membership table
            without any of the symbols.
    """
    names, column = np.unique(bars["symbol"].to_numpy(dtype=object).astype(str), return_inverse=True)
    if len(names) < 2:
        raise UserError(f"bars hold {len(names)} symbol ({', '.join(names)}); a universe needs 2 or more")
    good = ~bars["quarantined"].to_numpy(dtype=bool) & np.isfinite(bars["close"].to_numpy(dtype=np.float64))
    if not good.any():
        raise UserError("bars: every bar is quarantined; data/validation_report.json says why")
    stamps = utc_array(bars["timestamp"])
    good &= in_session(stamps, frequency, calendar)
    grid, known = time_grid(column[good], stamps[good], frequency, calendar)
    if not len(grid):
        raise UserError(f"bars: none of them is in a session of data.calendar {calendar}; name your exchange's there")
    place = np.minimum(np.searchsorted(grid, stamps), len(grid) - 1)
    good &= grid[place] == stamps
    arrays = {
        name: _spread(bars[name].to_numpy(dtype=np.float64), place, column, good, (len(grid), len(names)))
        for name in (*PRICES, "volume")
    }
    days = session_of(grid, frequency, calendar).astype("datetime64[D]")
    if corporate_actions is not None and adjustment != "total":
        arrays = adjust_forward(arrays, names, days, corporate_actions, splits=adjustment == "none")
    tradable = np.isfinite(arrays["close"])
    if membership is not None:
        tradable &= member(names, days, membership)
    return Panel(
        symbols=tuple(str(name) for name in names),
        timestamps=grid,
        known_at=known,
        session=np.unique(days, return_inverse=True)[1].astype(np.int64),
        tradable=tradable,
        **arrays,
    )


def time_grid(symbol: IntArray, stamps: TimeArray, frequency: str, calendar: str) -> tuple[TimeArray, TimeArray]:
    """The sorted stamps that most symbols share and when each is known, judged by itself and the stamps before it.

    Hourly bars of one vendor may start at :00 for some symbols and at :30 for others. Such bars overlap, and a
    row can hold only one kind: those on the market's grid stay, and the first of a session, which may be shorter.
    Of the rest, stamps that are thin beside those just before (`THIN_SHARE`) are left out.

    Args:
        symbol, stamps: [n] of bars that are in a session.
    """
    grid, count = np.unique(stamps, return_counts=True)
    known = known_at(grid, frequency, calendar)
    if frequency != "1Day":
        phase = market_grid(symbol, stamps, calendar).phase
        where = starts(grid, calendar)
        known = np.minimum(known, complete_at(grid, phase, calendar))
        kept = (where.phase == NEUTRAL) | (where.phase == phase[np.arange(len(grid)), where.part])
        grid, count, known = grid[kept], count[kept], known[kept]
    if not len(grid):
        return grid, known
    busiest = trailing.highest(count.astype(np.float64)[:, None], THIN_WINDOW, 1)[:, 0]
    enough = count >= THIN_SHARE * busiest
    return grid[enough], known[enough]


def adjust_forward(
    arrays: dict[str, FloatArray], names: np.ndarray, days: TimeArray, actions: pd.DataFrame, *, splits: bool
) -> dict[str, FloatArray]:
    """Multiplies prices from each ex-date on, so that they run on as if nothing had been split or paid out.

    A split of `value` new shares for one multiplies prices by `value` and divides volumes by it. A dividend D
    multiplies prices by C / (C - D) with C the last close before the ex-date (per share after that day's split):
    the dividend is put back into the stock. Bars before the ex-date keep their values; an action before a
    symbol's first bar changes nothing.

    Raises:
        UserError: a value that is not positive, an unknown kind, or a dividend not below the close.
    """
    close = arrays["close"]
    kind = actions["kind"].to_numpy(dtype=object).astype(str)
    value = actions["value"].to_numpy(dtype=np.float64)
    unknown = ~np.isin(kind, ["split", "dividend"]) | ~(value > 0.0)
    if unknown.any():
        bad = actions.iloc[int(np.argmax(unknown))]
        raise UserError(
            f"corporate actions: {bad['symbol']} {bad['ex_date']}: expected a split or dividend with a positive "
            f"value, found {bad['kind']} {bad['value']}"
        )
    symbol = actions["symbol"].to_numpy(dtype=object).astype(str)
    column = np.minimum(np.searchsorted(names, symbol), len(names) - 1)
    first = np.searchsorted(days, utc_array(actions["ex_date"]).astype("datetime64[D]"))
    before = trailing.lag(trailing.carried(close), 1)
    here = (names[column] == symbol) & (first < len(days))
    here[here] = np.isfinite(before[first[here], column[here]])
    shares = np.ones_like(close)
    if splits:
        chosen = here & (kind == "split")
        np.multiply.at(shares, (first[chosen], column[chosen]), value[chosen])
    chosen = here & (kind == "dividend")
    place = (first[chosen], column[chosen])
    paid = np.zeros_like(close)
    np.add.at(paid, place, value[chosen])
    base = np.where(paid > 0.0, before / shares, 1.0)
    if (too_much := paid >= base).any():
        t, n = np.argwhere(too_much)[0]
        raise UserError(
            f"corporate actions: {names[n]} {days[t]}: a dividend of {paid[t, n]:g} is not below the close before "
            f"it ({base[t, n]:g})"
        )
    held = np.cumprod(shares, axis=0)
    factor = np.cumprod(base / (base - paid), axis=0) * held
    return {name: arrays[name] * factor for name in PRICES} | {"volume": arrays["volume"] / held}


def member(names: np.ndarray, days: TimeArray, membership: pd.DataFrame) -> BoolArray:
    """[T, N] whether a symbol is in the index on the day: from `start` to `end`, both included."""
    symbol = membership["symbol"].to_numpy(dtype=object).astype(str)
    known = np.isin(symbol, names)
    if not known.any():
        raise UserError(f"membership: none of its {len(symbol)} rows names a symbol among the bars")
    column = np.searchsorted(names, symbol[known])
    start = utc_array(membership["start"])[known].astype("datetime64[D]")
    end = utc_array(membership["end"])[known].astype("datetime64[D]")
    first = np.where(np.isnat(start), 0, np.searchsorted(days, start, side="left"))
    stop = np.where(np.isnat(end), len(days), np.searchsorted(days, end, side="right"))
    open_intervals = np.zeros((len(days) + 1, len(names)), dtype=np.int64)
    np.add.at(open_intervals, (first, column), 1)
    np.add.at(open_intervals, (np.maximum(stop, first), column), -1)
    inside: BoolArray = np.cumsum(open_intervals, axis=0)[:-1] > 0
    return inside


def _spread(
    values: FloatArray, row: IntArray, column: IntArray, chosen: BoolArray, shape: tuple[int, int]
) -> FloatArray:
    out = np.full(shape, np.nan)
    out[row[chosen], column[chosen]] = values[chosen]
    return out
