"""The rules as vectorised columns over the sorted bars: one boolean a row and rule, and words for each hit.

A flag on a bar needs rows with its own stamp or earlier ones only, so hiding flagged bars hides nothing that could
not have been hidden on the day. The rules that hide nothing (the order and the end of the file) are the exceptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.config import ValidateDataParams
from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray, TimeArray
from marl_pipeline.data.hourly import NEUTRAL, ODD, PHASES, clock_phase, expected_hours, market_grid, starts
from marl_pipeline.data.quality.catalogue import RULES
from marl_pipeline.data.quality.listed import expected_steps
from marl_pipeline.data.quality.moves import Moves, find_moves
from marl_pipeline.data.quality.table import SortedBars, own_grid
from marl_pipeline.data.quality.volumes import constant_volume, run_length, unfinished_bars

PRICES = ("open", "high", "low", "close")
ROUNDING = 1e-5
"""Relative slack of the order of open, high, low and close: above single precision, below a tick."""

HIDING = ("mask", "mask_after")


class Flags:
    """[n] boolean column a rule, and the figures that the words of its hits are made of."""

    def __init__(self, bars: SortedBars) -> None:
        self.bars = bars
        self.columns: dict[str, BoolArray] = {name: np.zeros(len(bars), dtype=bool) for name in RULES}
        self.figures: dict[str, np.ndarray] = {}
        self.moves: Moves | None = None

    def hidden(self, severity: Mapping[str, str]) -> BoolArray:
        """[n] rows that a rule hides by themselves."""
        out = np.zeros(len(self.bars), dtype=bool)
        for rule, column in self.columns.items():
            if severity[rule] in HIDING:
                out |= column
        return out


def find_flags(
    bars: SortedBars, params: ValidateDataParams, *, adjustment: str, actions: pd.DataFrame | None = None
) -> Flags:
    """Applies every rule. Duplicates are judged as such and by no other rule.

    Args:
        adjustment: what the prices already contain; `actions` says what happened besides.
    """
    flags = Flags(bars)
    column = flags.columns
    column["duplicate"] = ~bars.stands
    flags.figures["conflict"] = _conflicts(bars)
    column["out_of_order"] = _out_of_order(bars)
    _values(flags)
    column["off_calendar"] = bars.stands & (bars.session < 0)
    usable = bars.stands & ~column["off_calendar"]
    grids = _grids(flags, usable) if bars.hourly else None
    _gaps(flags, usable, grids)
    priced = usable & (bars.values["close"] > 0) & np.isfinite(bars.values["close"])
    _stale(flags, priced, params.stale_bars)
    valid = priced & ~column["ohlc_inconsistent"] & ~column["non_positive_price"]
    listed = expected_steps(bars, valid, actions, adjustment)
    moves = find_moves(
        bars,
        valid,
        flags.figures["missing_bars"],
        listed.step,
        jump_return=params.jump_return,
        split_tolerance=params.split_tolerance,
    )
    flags.moves = moves
    flags.figures["listed_split"] = listed.split
    flags.figures["simple"], flags.figures["ratio"] = moves.simple, moves.ratio
    column["jump"], column["range_spike"], column["split_like"] = moves.jump, moves.spike, moves.split_like
    column["constant_volume"], flags.figures["constant"] = constant_volume(bars, usable, params.stale_bars)
    _coverage(flags, usable, grids, params)
    _missing_tails(flags, usable, grids)
    column["unfinished_bar"], flags.figures["volume_share"] = unfinished_bars(bars, usable)
    return flags


def _conflicts(bars: SortedBars) -> BoolArray:
    """[n] the row differs from the one that stands for its symbol and time."""
    rows = np.flatnonzero(~bars.stands)
    kept = bars.standing_row[rows]
    out = np.zeros(len(bars), dtype=bool)
    for column in bars.values.values():
        out[rows] |= ~((column[rows] == column[kept]) | (np.isnan(column[rows]) & np.isnan(column[kept])))
    return out


def _out_of_order(bars: SortedBars) -> BoolArray:
    """The row comes after a row of its symbol with a later stamp."""
    order = np.lexsort((bars.row, bars.symbol))
    stamp = pd.Series(bars.stamp[order].astype(np.int64))
    latest = stamp.groupby(bars.symbol[order]).cummax().to_numpy()
    out = np.zeros(len(bars), dtype=bool)
    out[order] = stamp.to_numpy() < latest
    return out


def _values(flags: Flags) -> None:
    bars, column = flags.bars, flags.columns
    value = bars.values
    missing = ~np.isfinite(value["close"])
    empty = [np.where(missing, "close", "")]
    for name in ("open", "high", "low", "volume"):
        finite = np.isfinite(value[name])
        given = pd.Series(finite).groupby(bars.symbol).cummax().to_numpy(dtype=bool)
        absent = ~finite & (given | np.isinf(value[name]))
        missing |= absent
        empty.append(np.where(absent, name, ""))
    flags.figures["empty"] = np.stack(empty, axis=1)
    prices = np.stack([value[name] for name in PRICES])
    with np.errstate(invalid="ignore"):
        column["missing_value"] = bars.stands & missing
        column["non_positive_price"] = bars.stands & (prices <= 0).any(axis=0)
        over = value["high"] < np.fmax(np.fmax(value["open"], value["close"]), value["low"]) * (1 - ROUNDING)
        under = value["low"] > np.fmin(np.fmin(value["open"], value["close"]), value["high"]) * (1 + ROUNDING)
        column["ohlc_inconsistent"] = bars.stands & (over | under) & ~column["non_positive_price"]
        column["negative_volume"] = bars.stands & (value["volume"] < 0)
        column["zero_volume"] = bars.stands & (value["volume"] == 0)
        traded = pd.Series(value["volume"] > 0).groupby(bars.symbol).cummax().to_numpy(dtype=bool)
    flags.figures["never_traded"] = ~traded


@dataclass(frozen=True)
class Grids:
    """[n, PARTS] the grid of the market and of the symbol at each row; `extra`: [n] a bar at the open of a part that
    few other symbols have; `stray`: [n] a bar off its own grid and the market's; `openings`: see MarketGrid."""

    market: IntArray
    own: IntArray
    extra: BoolArray
    stray: BoolArray
    openings: TimeArray


def _grids(flags: Flags, usable: BoolArray) -> Grids:
    """Flags bars off the market's grid."""
    bars = flags.bars
    where = starts(bars.stamp, bars.calendar)
    grid = market_grid(bars.symbol[usable], bars.stamp[usable], bars.calendar)
    market = grid.at(bars.stamp)
    rows = np.arange(len(bars))
    here = market[rows, where.part]
    on_grid = (where.phase == NEUTRAL) | (where.phase == here)
    flags.columns["off_grid"] = usable & ((where.phase == ODD) | ~on_grid)
    own = own_grid(bars, where, usable)
    stray = usable & ~on_grid & (where.phase != own[rows, where.part])
    last = np.maximum.accumulate(np.where(usable & (where.phase != NEUTRAL), rows, 0))  # a row that shows a grid
    keeps = on_grid[last] & (bars.symbol[last] == bars.symbol)
    own = np.where((own == NEUTRAL) | keeps[:, None], market, own)
    flags.figures["market"], flags.figures["stray"] = here, stray
    extra = where.begins & (here != NEUTRAL) & (clock_phase(bars.stamp) != here)
    extra &= ~np.isin(bars.stamp, grid.openings)
    return Grids(market, own, extra, stray, grid.openings)


def _missing_tails(flags: Flags, usable: BoolArray, grids: Grids | None) -> None:
    """Flags the last bar of a symbol that the market outlives by more bars than any gap of the symbol had.

    The market lasts as long as a tenth of the symbols does, so that one wrong stamp does not make it longer. A symbol
    that had stopped trading by itself (no volume, one price, too few bars) is not flagged.
    """
    bars, column = flags.bars, flags.columns
    rows = np.flatnonzero(usable)
    missing = flags.figures["missing_after"] = np.zeros(len(bars), dtype=np.int64)
    if not len(rows):
        return
    last = rows[np.append(bars.symbol[rows[1:]] != bars.symbol[rows[:-1]], True)]
    ends = np.sort(bars.stamp[last])
    end = ends[-max(1, -(-len(ends) // 10))]
    widest = pd.Series(flags.figures["missing_bars"]).groupby(bars.symbol).cummax().to_numpy()
    for chosen, expected in _expected(bars, grids.own if grids else None, grids):
        at = last[chosen[last]]
        until = np.searchsorted(expected, end, "right")
        missing[at] = until - np.minimum(np.searchsorted(expected, bars.stamp[at], "right"), until)
    stopped = column["stale"] | column["zero_volume"] | column["low_coverage"]
    column["missing_tail"] = (missing > widest) & ~stopped
    flags.figures["market_end"] = np.full(len(bars), end)


def _expected(bars: SortedBars, phase: IntArray | None, grids: Grids | None) -> Iterator[tuple[BoolArray, TimeArray]]:
    """Rows that share a grid, and the stamps that the calendar expects on it, the market's openings among them."""
    if phase is None or grids is None:
        yield np.ones(len(bars), dtype=bool), bars.days.session
        return
    code = (phase - NEUTRAL) @ np.array([PHASES + 1, 1])
    for which in np.unique(code):
        first, second = (int(each) + NEUTRAL for each in divmod(int(which), PHASES + 1))
        yield code == which, np.union1d(expected_hours(bars.days, (first, second)), grids.openings)


def _gaps(flags: Flags, usable: BoolArray, grids: Grids | None) -> None:
    """Counts the stamps that the calendar expects between a symbol's consecutive bars on its own grid."""
    bars = flags.bars
    rows = np.flatnonzero(usable & ~grids.stray if grids else usable)
    missing = np.zeros(len(bars), dtype=np.int64)
    if len(rows) > 1:
        follows = bars.symbol[rows[1:]] == bars.symbol[rows[:-1]]
        before, here = bars.stamp[rows[:-1]], bars.stamp[rows[1:]]
        for chosen, expected in _expected(bars, grids.own if grids else None, grids):
            between = np.searchsorted(expected, here, "left") - np.searchsorted(expected, before, "right")
            at = follows & chosen[rows[1:]]
            missing[rows[1:][at]] = between[at]
    flags.figures["missing_bars"] = missing
    flags.columns["calendar_gap"] = missing > 0


def _stale(flags: Flags, priced: BoolArray, stale_bars: int) -> None:
    """Equal closes in a row on bars without a range of their own (flat, copied, or close only); with a range, equal
    closes are chance in a cheap stock until there are twice as many."""
    bars = flags.bars
    rows = np.flatnonzero(priced)
    symbol = bars.symbol[rows]
    value = {name: bars.values[name][rows] for name in PRICES}
    same = np.zeros(len(rows), dtype=bool)
    same[1:] = (symbol[1:] == symbol[:-1]) & (value["close"][1:] == value["close"][:-1])
    flat = ~(value["high"] > value["low"])
    copied = np.zeros(len(rows), dtype=bool)
    copied[1:] = np.all([value[name][1:] == value[name][:-1] for name in PRICES], axis=0)
    still, equal = run_length(same & (flat | copied)), run_length(same)
    out = flags.columns["stale"]
    out[rows] = (still + 1 >= stale_bars) | (equal + 1 >= 2 * stale_bars)
    flags.figures["still"] = np.zeros(len(bars), dtype=np.int64)
    flags.figures["still"][rows] = equal + 1


def _coverage(flags: Flags, usable: BoolArray, grids: Grids | None, params: ValidateDataParams) -> None:
    """Share of the last `coverage_window` bars expected on the market's grid that are there and not hidden;
    judged once a symbol has that many expected bars behind it."""
    bars, window = flags.bars, params.coverage_window
    good = usable & ~flags.hidden(params.severity)
    count = np.concatenate([[0], np.cumsum(good & ~grids.extra if grids else good)])
    key = bars.key(bars.symbol, bars.stamp)
    begins = np.searchsorted(bars.symbol, bars.symbol, side="left")
    share: FloatArray = np.full(len(bars), np.nan)
    for chosen, expected in _expected(bars, grids.market if grids else None, grids):
        at = np.flatnonzero(usable & chosen)
        if not len(expected) or not len(at):
            continue
        place = np.searchsorted(expected, bars.stamp[at], side="right") - 1
        since = expected[np.maximum(place - window + 1, 0)]
        judged = (place >= window - 1) & (bars.stamp[begins[at]] <= since)
        start = np.searchsorted(key, bars.key(bars.symbol[at], since), side="left")
        share[at] = np.where(judged, (count[at + 1] - count[start]) / window, np.nan)
    flags.figures["coverage"] = share
    with np.errstate(invalid="ignore"):
        flags.columns["low_coverage"] = good & (share < params.min_coverage)
