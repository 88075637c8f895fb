"""The rules as vectorised columns over the sorted bars: one boolean a row and rule, and words for each hit.

A flag on a bar needs rows with its own stamp or earlier ones only (the order of the file apart), so hiding
flagged bars hides nothing that could not have been hidden on the day.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from marl_pipeline.config import ValidateDataParams
from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray
from marl_pipeline.data.quality.catalogue import RULES
from marl_pipeline.data.quality.moves import Moves, find_moves
from marl_pipeline.data.quality.table import (
    NEUTRAL,
    ODD,
    PHASE_STEP,
    PHASES,
    SortedBars,
    expected_stamps,
    grid_in_force,
    phase_of,
)

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


def find_flags(bars: SortedBars, params: ValidateDataParams, *, adjustment: str) -> Flags:
    """Applies every rule. Duplicates are judged as such and by no other rule: the first row stands."""
    flags = Flags(bars)
    column = flags.columns
    column["duplicate"] = ~bars.first
    column["out_of_order"] = _out_of_order(bars)
    _values(flags)
    column["off_calendar"] = bars.first & (bars.session < 0)
    usable = bars.first & ~column["off_calendar"]
    own = _grids(flags, usable) if bars.hourly else np.full(len(bars), NEUTRAL, dtype=np.int64)
    _gaps(flags, usable, own)
    priced = usable & (bars.values["close"] > 0) & np.isfinite(bars.values["close"])
    _stale(flags, priced, params.stale_bars)
    moves = find_moves(
        bars,
        priced & ~column["ohlc_inconsistent"] & ~column["non_positive_price"],
        jump_return=params.jump_return,
        split_tolerance=params.split_tolerance,
        splits_adjusted=adjustment != "none",
    )
    flags.moves = moves
    flags.figures["simple"], flags.figures["ratio"] = moves.simple, moves.ratio
    column["jump"], column["range_spike"], column["split_like"] = moves.jump, moves.spike, moves.split_like
    _coverage(flags, usable, params)
    return flags


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
        column["missing_value"] = bars.first & missing
        column["non_positive_price"] = bars.first & (prices <= 0).any(axis=0)
        over = value["high"] < np.fmax(np.fmax(value["open"], value["close"]), value["low"]) * (1 - ROUNDING)
        under = value["low"] > np.fmin(np.fmin(value["open"], value["close"]), value["high"]) * (1 + ROUNDING)
        column["ohlc_inconsistent"] = bars.first & (over | under) & ~column["non_positive_price"]
        column["negative_volume"] = bars.first & (value["volume"] < 0)
        column["zero_volume"] = bars.first & (value["volume"] == 0)
        traded = pd.Series(value["volume"] > 0).groupby(bars.symbol).cummax().to_numpy(dtype=bool)
    flags.figures["never_traded"] = ~traded


def _grids(flags: Flags, usable: BoolArray) -> IntArray:
    """Flags bars off the market's grid; returns the grid that each symbol itself keeps to."""
    bars = flags.bars
    phase = phase_of(bars)
    market = grid_in_force(np.zeros(len(bars), dtype=np.int64), bars, phase, usable)
    own = grid_in_force(bars.symbol, bars, phase, usable)
    flags.columns["off_grid"] = usable & (phase != NEUTRAL) & ((phase == ODD) | (phase != market))
    flags.figures["phase"], flags.figures["market"] = phase, market
    strays = usable & (phase != NEUTRAL) & (phase != own)
    flags.figures["stray"] = strays
    return np.where(own == NEUTRAL, market, own)


def _phases(bars: SortedBars, grid: IntArray) -> list[int]:
    """The grids to look up; NEUTRAL stands for daily bars, or for the open's own minute before any grid is known."""
    return [NEUTRAL] if not bars.hourly else [which for which in (NEUTRAL, *range(PHASES)) if (grid == which).any()]


def _stamps_of(bars: SortedBars, which: int) -> np.ndarray:
    if which == NEUTRAL and bars.hourly and len(bars.opens):
        into = bars.opens[0] - bars.opens[0].astype("datetime64[h]")
        return expected_stamps(bars, int(into // PHASE_STEP))
    return expected_stamps(bars, which)


def _gaps(flags: Flags, usable: BoolArray, own: IntArray) -> None:
    """Counts the stamps that the calendar expects between a symbol's consecutive bars on its own grid."""
    bars = flags.bars
    rows = np.flatnonzero(usable & ~flags.figures["stray"] if bars.hourly else usable)
    missing = np.zeros(len(bars), dtype=np.int64)
    if len(rows) > 1:
        follows = bars.symbol[rows[1:]] == bars.symbol[rows[:-1]]
        before, here = bars.stamp[rows[:-1]], bars.stamp[rows[1:]]
        grid = own[rows[1:]]
        for which in _phases(bars, grid):
            expected = _stamps_of(bars, which)
            between = np.searchsorted(expected, here, "left") - np.searchsorted(expected, before, "right")
            at = follows & (grid == which)
            missing[rows[1:][at]] = between[at]
    flags.figures["missing_bars"] = missing
    flags.columns["calendar_gap"] = missing > 0


def _run(same: BoolArray) -> IntArray:
    """[m] how many True in a row end here."""
    here = np.arange(len(same))
    return here - np.maximum.accumulate(np.where(same, -1, here))


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
    still, equal = _run(same & (flat | copied)), _run(same)
    out = flags.columns["stale"]
    out[rows] = (still + 1 >= stale_bars) | (equal + 1 >= 2 * stale_bars)
    flags.figures["still"] = np.zeros(len(bars), dtype=np.int64)
    flags.figures["still"][rows] = equal + 1


def _coverage(flags: Flags, usable: BoolArray, params: ValidateDataParams) -> None:
    """Share of the last `coverage_window` bars expected on the market's grid that are there and not hidden;
    judged once a symbol has that many expected bars behind it."""
    bars, window = flags.bars, params.coverage_window
    grid = flags.figures["market"] if bars.hourly else np.full(len(bars), NEUTRAL, dtype=np.int64)
    good = usable & ~flags.hidden(params.severity)
    count = np.concatenate([[0], np.cumsum(good)])
    key = bars.key(bars.symbol, bars.stamp)
    begins = np.searchsorted(bars.symbol, bars.symbol, side="left")
    share: FloatArray = np.full(len(bars), np.nan)
    for which in _phases(bars, grid):
        at = np.flatnonzero(usable & (grid == which))
        expected = _stamps_of(bars, which)
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
