"""Moves that prices do not make by themselves: jumps, bad prints, and splits that are not adjusted for.

A move is measured against the market (the median of all symbols over the same bars) and against the corporate actions
that are expected in the prices, so that a crash of everything and a listed split are neither. What a bar alone cannot
decide (a split or a bad print) is decided on the next bar, and takes effect from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray
from marl_pipeline.data.quality.evidence import BAD_PRINT, NEWS_AT, SPLIT, Evidence, Judgement, after, judge
from marl_pipeline.data.quality.table import SortedBars

HISTORY, ENOUGH = 60, 20
"""Bars behind what is usual of a symbol, and the least of them."""
MARKET = 5
"""The least symbols that make a market."""
LARGEST = 0.1
"""A move counts for no more than this in the mean move."""
PRIOR_MOVE = 0.02
"""The mean move of a symbol without history."""
FEWEST, UNUSUAL = 0.12, 3.5
"""A step is weighed if its log is beyond both: this, and so many of the symbol's standard deviations."""
LONGEST_GAP = 20
"""Bars without a symbol beyond which its uncertainty grows no more."""
SURE, LIKELY, STAYS = 0.95, 0.5, 0.45
"""Probability of a split that is enough on its own bar if the volume confirms it by CONFIRMED; of a split or a bad
print to hide the bar; and of a split on the next bar, once the price has stayed."""
CONFIRMED = 2.0
STUCK = 0.2
"""Share of bad prints that go on at their wrong scale: from the second bar on they are hidden as a split is."""
POSSIBLE = 0.05
"""Below this a step is no split, whatever the next bar shows."""
MENDED = 60
"""Bars within which a step back shows that a split-like one was prints at the wrong scale."""
RECENT = 20
"""Bars after a large step within which a step back to the old level is its end and nothing of its own."""
SPIKE, LEAST_SPIKE = 6.0, 0.05
"""A lone high or low is this many typical ranges, and this much in log price, away from the open and the close."""
SCALE = 1e9
"""Moves are summed as integers of 1/SCALE: exact, so that no sum depends on what is added after it."""


@dataclass(frozen=True)
class Moves:
    """[n] by row of the sorted bars; NaN or False on rows that have no earlier bar to move from.

    Attributes:
        simple: close over the previous close, less 1.
        spike: the high or the low stands alone, far from open, close and the market's own.
        split_like: on the bar of the step, or on the next one where only that decides.
        ratio: split ratio (new shares for one old; below 1 for a reverse split) of such a step, NaN elsewhere.
        step_row: row of the step that a split-like hit is about, -1 elsewhere.
        until_row: of a split-like hit that a later bar undoes, the last row (valid or not) before that bar; -1
            elsewhere.
    """

    simple: FloatArray
    jump: BoolArray
    spike: BoolArray
    split_like: BoolArray
    ratio: FloatArray
    step_row: IntArray
    until_row: IntArray


def find_moves(
    bars: SortedBars,
    valid: BoolArray,
    missing: IntArray,
    expected: FloatArray,
    *,
    jump_return: float,
    split_tolerance: float,
) -> Moves:
    """Judges the step from the previous valid row of a symbol to each valid row.

    A bad print is one jump, not two: a move back to the level before it is not flagged.

    Args:
        missing: [n] expected bars that are missing before each row.
        expected: [n] log step that the corporate actions put into the prices at each row.
    """
    rows = np.flatnonzero(valid)
    steps = _steps(bars, rows, missing, expected)
    excess = steps["excess"]
    at = np.flatnonzero(np.abs(excess) > np.maximum(FEWEST, UNUSUAL * steps["deviation"]))
    shown = ("excess", "gap", "deviation", "moving", "others", "span", "log_shares", "log_money")
    seen = Evidence(*(steps[name][at] for name in shown))
    story = _Story(steps, at, judge(seen, float(np.log1p(split_tolerance))), split_tolerance)
    story.read()
    big = np.abs(np.expm1(excess)) > np.expm1(np.log1p(jump_return) * np.sqrt(steps["elapsed"]))
    jump = ((big & ~story.back) | story.suspect) & ~story.split

    def spread(values: np.ndarray, empty: float | bool | int) -> np.ndarray:
        out = np.full(len(bars), empty, dtype=values.dtype)
        out[rows] = values
        return out

    return Moves(
        simple=spread(np.expm1(steps["move"]), np.nan),
        jump=spread(jump, False),
        spike=spread(steps["spike"], False),
        split_like=spread(story.split, False),
        ratio=spread(story.ratio, np.nan),
        step_row=spread(np.where(story.of >= 0, rows[story.of], -1), -1),
        until_row=spread(np.where(story.mended >= 0, rows[story.mended] - 1, -1), -1),
    )


@dataclass
class _Story:
    """What becomes of the large steps of each symbol, read bar after bar. [m] arrays by valid row."""

    steps: dict[str, np.ndarray]
    at: IntArray
    judged: Judgement
    tolerance: float
    split: BoolArray = field(init=False)
    suspect: BoolArray = field(init=False)
    back: BoolArray = field(init=False)
    ratio: FloatArray = field(init=False)
    of: IntArray = field(init=False)
    mended: IntArray = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.steps["excess"])
        self.split, self.suspect, self.back = (np.zeros(size, dtype=bool) for _ in range(3))
        self.ratio = np.full(size, np.nan)
        self.of, self.mended = (np.full(size, -1, dtype=np.int64) for _ in range(2))
        typical = self.steps["deviation"]
        self.slack = 2.0 * float(np.log1p(self.tolerance)) + 4.0 * typical

    def read(self) -> None:
        symbol = self.steps["symbol"]
        splits, prints = self.judged.probability[:, SPLIT], self.judged.probability[:, BAD_PRINT]
        recent: list[int] = []
        standing: dict[int, int] = {}  # step of a split that stands -> row of its hit
        current = -1
        for number, row in enumerate(self.at.tolist()):
            if symbol[row] != current:
                recent, standing, current = [], {}, symbol[row]
            if self._returns(row, recent, standing):
                continue
            recent.append(row)
            if not self.steps["between"][row]:
                self.suspect[row] = prints[number] >= LIKELY * (1.0 - splits[number])
                continue
            if splits[number] > 0.3 and not self.split[row]:
                self.ratio[row] = self.judged.ratio[number]
            if splits[number] >= SURE and self.judged.confirmed[number] >= CONFIRMED:
                self._hit(row, row, standing)
            else:
                self.suspect[row] = splits[number] + prints[number] >= LIKELY
                self._next(number, row, standing)

    def _next(self, number: int, row: int, standing: dict[int, int]) -> None:
        """Decides on the next bar of the symbol whether a step was a split."""
        follows = row + 1
        excess = self.steps["excess"]
        if follows >= len(excess) or self.steps["symbol"][follows] != self.steps["symbol"][row]:
            return
        if abs(excess[row] + excess[follows]) <= 0.5 * abs(excess[row]):
            return  # a bad print
        split = self.judged.probability[number, SPLIT]
        prints = self.judged.probability[number, BAD_PRINT]
        others = 1.0 - split - prints
        split += STUCK * prints
        if split < POSSIBLE:
            return
        odds = np.log(max(split, 1e-12)) - np.log(max(others, 1e-12)) + float(self.steps["after"][follows])
        if odds > np.log(STAYS / (1.0 - STAYS)):
            self.ratio[follows] = self.judged.ratio[number]
            self._hit(follows, row, standing)

    def _hit(self, row: int, step: int, standing: dict[int, int]) -> None:
        self.split[row], self.of[row] = True, step
        standing[step] = row

    def _returns(self, row: int, recent: list[int], standing: dict[int, int]) -> bool:
        """Whether a step takes the price back to where an earlier one took it from: the latest such."""
        excess = self.steps["excess"]
        known = [step for step in standing if row - step <= MENDED]
        near = [step for step in recent if row - step <= RECENT and step not in standing]
        for step in sorted([*known, *near], reverse=True):
            if abs(excess[row] + excess[step]) > max(self.slack[step], self.slack[row]):
                continue
            hit = standing.pop(step, -1)
            if hit == row:  # the bar that was to decide takes it back
                self.split[row], self.of[row], self.ratio[row] = False, -1, np.nan
            elif hit >= 0:
                self.mended[hit] = row
            if step in recent:
                recent.remove(step)
            self.back[row] = True
            return True
        return False


def _steps(bars: SortedBars, rows: IntArray, missing: IntArray, expected: FloatArray) -> dict[str, np.ndarray]:
    """Log moves between consecutive valid rows of a symbol, and what is usual of it before each row."""
    symbol, session, stamp = bars.symbol[rows], bars.session[rows], bars.stamp[rows]
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
    lone -= _market(stamp, lone)
    typical_span = _trailing_mean(np.minimum(spread, 1.0), symbol)
    between = follows.copy()
    between[1:] &= session[1:] != session[:-1]
    elapsed = 1.0 + missing[rows]
    market = _market_since(stamp, np.asarray(move, dtype=np.float64), follows, np.asarray(elapsed, np.float64))
    excess = np.where(follows, move - market - expected[rows], 0.0)
    typical = _trailing_mean(np.where(follows & (elapsed == 1), np.minimum(np.abs(excess), LARGEST), np.nan), symbol)
    typical = np.where(np.isfinite(typical), np.maximum(typical, 1e-4), PRIOR_MOVE)
    deviation = 1.25 * typical * np.sqrt(np.minimum(elapsed, LONGEST_GAP)) * _restless(stamp, excess, typical)
    large = np.where(np.abs(excess) > NEWS_AT * deviation, np.sign(excess), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_shares = _log_positive(value["volume"]) - _trailing_mean(_log_positive(value["volume"]), symbol)
        log_money = _log_positive(dollars) - _trailing_mean(_log_positive(dollars), symbol)
        span = np.log(np.where(spread > 0, spread, np.nan) / typical_span)
    return {
        "symbol": symbol,
        "between": between,
        "move": move,
        "elapsed": elapsed,
        "excess": excess,
        "gap": np.where(np.isfinite(gap), gap - market - expected[rows], np.nan),
        "deviation": deviation,
        "moving": np.where(excess > 0.0, _others(stamp, large), _others(stamp, -large)),
        "others": _others(stamp, np.ones(len(rows))),
        "span": span - np.nan_to_num(_market(stamp, span)),
        "spike": (lone > LEAST_SPIKE) & (lone > SPIKE * typical_span),
        "log_shares": log_shares - _market(stamp, log_shares),
        "log_money": log_money - _market(stamp, log_money),
        "after": after(log_money - _market(stamp, log_money)),
    }


def _market_since(stamp: np.ndarray, move: FloatArray, follows: BoolArray, elapsed: FloatArray) -> FloatArray:
    """[m] move of the market from the symbol's previous row to this one: over a gap, the sum of its moves in it."""
    median = _market(stamp, np.where(elapsed == 1, move, np.nan))
    stamps, place = np.unique(stamp, return_inverse=True)
    at = np.zeros(len(stamps), dtype=np.int64)
    at[place] = np.rint(np.nan_to_num(median) * SCALE).astype(np.int64)
    level = np.cumsum(at)
    back = np.where(follows, np.concatenate([[0], place[:-1]]), place)
    return np.where(elapsed > 1, (level[place] - level[back]) / SCALE, np.nan_to_num(median))


def _restless(stamp: np.ndarray, excess: FloatArray, typical: FloatArray) -> FloatArray:
    """[m] how much more than usual all symbols move at the row's stamp, at least 1."""
    return np.maximum(_market(stamp, np.where(excess != 0.0, np.abs(excess) / typical, np.nan)), 1.0)


def _others(stamp: np.ndarray, large: FloatArray) -> FloatArray:
    """[m] how many of the other rows at the same stamp are 1."""
    one = (large > 0.0).astype(np.float64)
    return pd.Series(one).groupby(pd.Series(stamp)).transform("sum").to_numpy() - one


def _log_positive(values: FloatArray) -> FloatArray:
    usable = np.isfinite(values) & (values > 0)
    return np.where(usable, np.log(np.where(usable, values, 1.0)), np.nan)


def _market(stamp: np.ndarray, values: FloatArray) -> FloatArray:
    """[m] median over all symbols at the row's stamp; 0 where fewer than MARKET have one."""
    grouped = pd.Series(values).groupby(pd.Series(stamp))
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
