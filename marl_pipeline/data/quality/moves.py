"""Moves that prices do not make by themselves: jumps, and steps by a split ratio on an ordinary day.

A move is measured against the market (the median of all symbols at that bar), so that a crash of everything is
neither. Every judgement uses bars up to its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray
from marl_pipeline.data.quality.table import SortedBars

WHOLE_RATIOS = np.array([2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100], dtype=np.float64)
PART_RATIOS = np.array([3 / 2, 5 / 3, 5 / 2, 7 / 2], dtype=np.float64)
"""New shares for one old. Parts are as common among true moves, so they need the open and the volume as witnesses."""

HISTORY = 60
ENOUGH = 20
MARKET = 5
"""Bars behind a typical move, the least of them, and the least symbols that make a market."""

UNUSUAL = 8.0
"""A split's step is this many times the symbol's typical move."""
BUSY, BUSY_PART = 3.0, 1.5
"""Dollar volume, in typical bars, above which news rather than a split moved the price. The lower one is for part
ratios, and for shares (a volume that is adjusted while the price is not)."""
SPIKE, LEAST_SPIKE = 6.0, 0.05
"""A lone high or low is this many typical ranges, and this much in log price, away from the open and the close."""
PRIOR_MOVE = 0.02
"""The typical move of a symbol without history."""
SCALE = 1e9
"""Moves are summed as integers of 1/SCALE: exact, so that no sum depends on what is added after it."""


@dataclass(frozen=True)
class Moves:
    """[n] by row of the sorted bars; NaN or False on rows that have no earlier bar to move from.

    Attributes:
        simple: close over the previous close, less 1.
        spike: the high or the low stands alone, far from open, close and the market's own.
        ratio: split ratio (new shares for one old; below 1 for a reverse split) of the hit, NaN elsewhere.
        until_row: of a split-like hit that a later bar undoes, the last row (valid or not) before that bar; -1
            elsewhere.
    """

    simple: FloatArray
    jump: BoolArray
    spike: BoolArray
    split_like: BoolArray
    ratio: FloatArray
    until_row: IntArray


def find_moves(
    bars: SortedBars, valid: BoolArray, *, jump_return: float, split_tolerance: float, splits_adjusted: bool
) -> Moves:
    """Judges the step from the previous valid row of a symbol to each valid row.

    A one-bar spike is one jump, not two: a move back to the level before it is not flagged. Where splits are
    expected (`splits_adjusted` False), nothing near a split ratio is flagged at all.
    """
    rows = np.flatnonzero(valid)
    step = _steps(bars, rows)
    big = np.abs(np.expm1(step["excess"])) > jump_return
    after_big = np.zeros(len(rows), dtype=bool)
    after_big[1:] = big[:-1] & step["follows"][1:]
    both = step["excess"] + np.concatenate([[0.0], step["excess"][:-1]])
    back = after_big & (np.abs(np.expm1(both)) <= jump_return)
    near = _nearest_ratio(step, split_tolerance)
    split = np.isfinite(near) & ~back
    mended = np.full(len(rows), -1, dtype=np.int64)
    if splits_adjusted:
        mended = _undo(step, split, split_tolerance)
        back[mended[mended >= 0]] = True
    split &= ~back
    jump = big & ~back & ~split

    def spread(values: np.ndarray, empty: float | bool | int) -> np.ndarray:
        out = np.full(len(bars), empty, dtype=values.dtype)
        out[rows] = values
        return out

    return Moves(
        simple=spread(np.expm1(step["move"]), np.nan),
        jump=spread(jump, False),
        spike=spread(step["spike"], False),
        split_like=spread(split & splits_adjusted, False),
        ratio=spread(np.where(split, near, np.nan), np.nan),
        until_row=spread(np.where(mended >= 0, rows[mended] - 1, -1), -1),
    )


def _steps(bars: SortedBars, rows: IntArray) -> dict[str, np.ndarray]:
    """Log moves between consecutive valid rows of a symbol, and what is typical of it before each row."""
    symbol, session = bars.symbol[rows], bars.session[rows]
    value = {name: column[rows] for name, column in bars.values.items()}
    follows = np.zeros(len(rows), dtype=bool)
    follows[1:] = symbol[1:] == symbol[:-1]
    before = np.concatenate([[np.nan], value["close"][:-1]])
    with np.errstate(divide="ignore", invalid="ignore"):
        move = np.where(follows, np.log(value["close"] / before), np.nan)
        gap = np.where(follows & (value["open"] > 0), np.log(value["open"] / before), np.nan)
        spread = np.where(value["low"] > 0, np.log(value["high"] / value["low"]), np.nan)
        dollars = value["close"] * value["volume"]
        upper = np.log(value["high"] / np.maximum(value["open"], value["close"]))
        lower = np.log(np.minimum(value["open"], value["close"]) / value["low"])
    lone = np.maximum(upper, lower)
    lone -= _market(bars.stamp[rows], lone)
    spike = (lone > LEAST_SPIKE) & (lone > SPIKE * _trailing_mean(np.minimum(spread, 1.0), symbol))
    overnight = follows.copy()
    overnight[1:] &= session[1:] != session[:-1]
    market = _market(bars.stamp[rows], move)
    excess = np.where(follows, move - market, 0.0)
    return {
        "symbol": symbol,
        "follows": follows,
        "overnight": overnight,
        "move": move,
        "gap": gap - market,
        "range": spread,
        "spike": spike,
        "excess": excess,
        "dollars": dollars,
        "typical_move": _trailing_mean(np.minimum(np.abs(excess), 1.0), symbol),
        "shares": value["volume"],
        "typical_shares": np.exp(_trailing_mean(_log_positive(value["volume"]), symbol)),
        "typical_dollars": np.exp(_trailing_mean(_log_positive(dollars), symbol)),
    }


def _log_positive(values: FloatArray) -> FloatArray:
    usable = np.isfinite(values) & (values > 0)
    return np.where(usable, np.log(np.where(usable, values, 1.0)), np.nan)


def _market(stamp: np.ndarray, move: FloatArray) -> FloatArray:
    """[m] median move of all symbols at the row's stamp; 0 where fewer than MARKET have one."""
    grouped = pd.Series(move).groupby(pd.Series(stamp))
    median = grouped.transform("median").to_numpy()
    return np.where(grouped.transform("count").to_numpy() >= MARKET, median, 0.0)


def _trailing_mean(values: FloatArray, symbol: IntArray) -> FloatArray:
    """[m] mean over up to HISTORY earlier rows of the symbol; NaN with fewer than ENOUGH values."""
    known = np.isfinite(values)
    total = np.concatenate([[0], np.cumsum(np.rint(np.where(known, values, 0.0) * SCALE).astype(np.int64))])
    count = np.concatenate([[0], np.cumsum(known)])
    here = np.arange(len(values))
    start = np.maximum(here - HISTORY, np.searchsorted(symbol, symbol, side="left"))
    number = count[here] - count[start]
    mean = (total[here] - total[start]) / SCALE / np.maximum(number, 1)
    return np.where(number >= ENOUGH, mean, np.nan)


def _nearest_ratio(step: dict[str, np.ndarray], tolerance: float) -> FloatArray:
    """[m] the split ratio that explains the step, NaN for none.

    The close (or the open) is within the tolerance of the ratio and the other within what the symbol moves on a
    normal day; the step happens between sessions, is far beyond the symbol's typical move, and nothing else about
    the bar is special: neither its range nor its dollar volume.
    """
    ratios = np.concatenate([WHOLE_RATIOS, 1.0 / WHOLE_RATIOS, PART_RATIOS, 1.0 / PART_RATIOS])
    logs = -np.log(ratios)
    typical = np.where(np.isfinite(step["typical_move"]), step["typical_move"], PRIOR_MOVE)
    candidate = step["overnight"] & (np.abs(step["excess"]) > np.maximum(UNUSUAL * typical, 0.15))
    out = np.full(len(typical), np.nan)
    at = np.flatnonzero(candidate)
    if not len(at):
        return out
    typical, close, gap = typical[at], step["excess"][at], step["gap"][at]
    tolerance = float(np.log1p(tolerance))
    loose = tolerance + 2.0 * typical
    seen_open = np.isfinite(gap)
    seen_volume = np.isfinite(step["typical_dollars"][at]) & (step["dollars"][at] > 0)
    gap = np.where(seen_open, gap, close)
    which = np.abs(gap[:, None] - logs).argmin(axis=1)
    off_open, off_close = np.abs(gap - logs[which]), np.abs(close - logs[which])
    near = (np.minimum(off_open, off_close) <= tolerance) & (np.maximum(off_open, off_close) <= loose)
    near = np.where(seen_open, near, off_close <= tolerance + 0.5 * np.minimum(typical, PRIOR_MOVE))
    calm = ~(step["range"][at] > np.maximum(5.0 * typical, 2.0 * tolerance))
    whole = which < 2 * len(WHOLE_RATIOS)
    ordinary = ~seen_volume | (step["dollars"][at] <= np.where(whole, BUSY, BUSY_PART) * step["typical_dollars"][at])
    ordinary |= whole & (step["shares"][at] <= BUSY_PART * step["typical_shares"][at])
    hit = near & calm & ordinary & (whole | (seen_open & seen_volume))
    out[at] = np.where(hit, ratios[which], np.nan)
    return out


def _undo(step: dict[str, np.ndarray], split: BoolArray, tolerance: float) -> IntArray:
    """[m] for each split-like step, the later step of the same symbol that takes the price back (prints at the wrong
    scale, mended), else -1.

    A step mends at most one other, the latest that is still open, and is then not a split itself. Which one it mends
    is known on its own bar: whether an earlier step is mended later has no say in it.
    """
    mended = np.full(len(split), -1, dtype=np.int64)
    splits = np.flatnonzero(split)
    excess, typical = step["excess"], step["typical_move"]
    slack = 2.0 * float(np.log1p(tolerance)) + 4.0 * np.where(np.isfinite(typical), typical, PRIOR_MOVE)
    for symbol in np.unique(step["symbol"][splits]):  # a handful
        own = splits[step["symbol"][splits] == symbol]
        later = np.arange(own[0], int(np.searchsorted(step["symbol"], symbol, side="right")))
        large = np.abs(excess[later]) >= np.min(np.abs(excess[own]) - slack[own])
        still_open: list[int] = []
        for at in later[large]:
            opposite = [one for one in still_open if abs(excess[at] + excess[one]) <= slack[one]]
            if opposite:
                mended[opposite[-1]] = at
                still_open.remove(opposite[-1])
            elif split[at]:
                still_open.append(int(at))
    return mended
