"""Trailing windows on [T, N] arrays: row t reads rows <= t only, column by column, with no loop over either.

Every function is sequential along time, so what rows after t hold changes no bit of row t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray

_FLAT = 1e-9
"""A trailing deviation below this share of the trailing level counts as none at all."""


def lag(values: FloatArray, bars: int) -> FloatArray:
    """`values` of `bars` rows before; NaN in the first rows."""
    out = np.full_like(values, np.nan)
    out[bars:] = values[:-bars]
    return out


def mean(values: FloatArray, window: int, at_least: int | None = None) -> FloatArray:
    """[T, ...] mean of the last `window` rows, NaN where fewer than `at_least` (all by default) are there."""
    return _roll(values, window, at_least, "mean")


def total(values: FloatArray, window: int, at_least: int | None = None) -> FloatArray:
    return _roll(values, window, at_least, "sum")


def deviation(values: FloatArray, window: int, at_least: int | None = None) -> FloatArray:
    """Population standard deviation of the last `window` rows."""
    return _roll(values, window, at_least, "std")


def highest(values: FloatArray, window: int, at_least: int | None = None) -> FloatArray:
    return _roll(values, window, at_least, "max")


def lowest(values: FloatArray, window: int, at_least: int | None = None) -> FloatArray:
    return _roll(values, window, at_least, "min")


def weighted(values: FloatArray, kernel: FloatArray) -> FloatArray:
    """Weighted sum of the last `len(kernel)` rows; `kernel[k]` weighs the row k before."""
    out = np.full_like(values, np.nan)
    rows = len(values) - len(kernel) + 1
    if rows > 0:
        out[len(kernel) - 1 :] = 0.0
        for back, weight in enumerate(kernel):
            start = len(kernel) - 1 - back
            out[len(kernel) - 1 :] += weight * values[start : start + rows]
    return out


def deepest_fall(values: FloatArray, window: int, cells: int = 4_000_000) -> FloatArray:
    """[T, N] largest fall from a peak to a later value within the last `window` rows of log levels, as a
    fraction <= 0. Works in blocks of at most `cells` values."""
    out = np.full_like(values, np.nan)
    if len(values) < window:
        return out
    views = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)  # [T - window + 1, N, window]
    block = max(1, cells // (values.shape[1] * window))
    for start in range(0, len(views), block):
        part = views[start : start + block]
        falls = (part - np.maximum.accumulate(part, axis=-1)).min(axis=-1)
        out[window - 1 + start : window - 1 + start + len(part)] = np.expm1(falls)
    return out


def z_score(values: FloatArray, window: int, clip: float) -> FloatArray:
    """How many trailing standard deviations a row is off the trailing mean, clipped to +-`clip`.

    The statistics are over the last `window` rows including this one, as soon as a quarter of them
    (`least_rows`) is there; NaN before. A series that does not move scores 0.
    """
    at_least = least_rows(window)
    centre = mean(values, window, at_least)
    spread = deviation(values, window, at_least)
    flat = spread <= _FLAT * np.abs(centre) + 1e-12
    with np.errstate(divide="ignore", invalid="ignore"):
        scored = np.where(flat, 0.0, (values - centre) / spread)
    return np.where(np.isnan(values), np.nan, np.clip(scored, -clip, clip))


def least_rows(window: int) -> int:
    """How many rows a trailing z-score of `window` rows needs before it is defined."""
    return max(10, -(-window // 4))


def carried(values: FloatArray) -> FloatArray:
    """[T, N] the last finite value up to each row; NaN before the first."""
    rows = np.where(np.isfinite(values), np.arange(len(values))[:, None], -1)
    last = np.maximum.accumulate(rows, axis=0)
    return np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), axis=0), np.nan)


def log_returns(close: FloatArray) -> FloatArray:
    """[T, N] log change from a symbol's previous bar to this one, however far back that is; NaN without a bar and
    at the first one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.log(close)
    return level - lag(carried(level), 1)


@dataclass(frozen=True)
class OwnBars:
    """Moves each symbol's bars together, so that a look-back of k bars means k of its own, whatever the grid has
    between them.

    Attributes:
        order: [T, N] grid row of each symbol's bars in time order, then of its empty rows.
        filled: [T, N] which rows of the gathered arrays hold a bar.
    """

    order: IntArray
    filled: BoolArray

    @classmethod
    def of(cls, present: BoolArray) -> OwnBars:
        order = np.argsort(~present, axis=0, kind="stable")
        return cls(order, np.arange(len(present))[:, None] < present.sum(axis=0))

    def gather(self, values: FloatArray) -> FloatArray:
        """[T, N] on the grid -> each symbol's bars first, NaN below."""
        return np.where(self.filled, np.take_along_axis(values, self.order, axis=0), np.nan)

    def scatter(self, values: FloatArray) -> FloatArray:
        """The way back: NaN where the symbol has no bar."""
        out = np.full_like(values, np.nan)
        np.put_along_axis(out, self.order, np.where(self.filled, values, np.nan), axis=0)
        return out

    def across(self, values: FloatArray, function: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """Applies a cross-sectional `function` of grid rows to gathered values."""
        return self.gather(function(self.scatter(values)))


def _roll(values: FloatArray, window: int, at_least: int | None, statistic: str) -> FloatArray:
    frame = pd.DataFrame(values.reshape(len(values), -1))
    rolling = frame.rolling(window, min_periods=window if at_least is None else min(at_least, window))
    result: pd.DataFrame = rolling.std(ddof=0) if statistic == "std" else getattr(rolling, statistic)()
    return result.to_numpy(dtype=np.float64).reshape(values.shape)
