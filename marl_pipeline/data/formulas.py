"""Formulas of the technical features on each symbol's own bars: [T, N] in, [T, N] out, row t from rows <= t.

Raw values, before the trailing z-score; NaN until the look-back is there, never infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.data import trailing
from marl_pipeline.data.dataset import FloatArray, Panel
from marl_pipeline.data.trailing import OwnBars


@dataclass(frozen=True)
class Inputs:
    """A panel's bars with each symbol's own bars moved together: rows are bars of the symbol, NaN below.

    Attributes:
        open, high, low, close, volume: [T, N].
        level: [T, N] log close.
        change: [T, N] log return on the symbol's previous bar.
        market: [T, N] the mean log return of all symbols with a bar, at the symbol's bars.
        own: the way to the grid and back.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    level: FloatArray
    change: FloatArray
    market: FloatArray
    own: OwnBars

    @classmethod
    def of(cls, panel: Panel) -> Inputs:
        own = OwnBars.of(np.isfinite(panel.close))
        change = trailing.log_returns(panel.close)
        market = np.broadcast_to(cross_mean(change)[:, None], change.shape)
        close = own.gather(panel.close)
        return cls(
            open=own.gather(panel.open),
            high=own.gather(panel.high),
            low=own.gather(panel.low),
            close=close,
            volume=own.gather(panel.volume),
            level=np.log(close),
            change=own.gather(change),
            market=own.gather(market),
            own=own,
        )


def cross_mean(values: FloatArray) -> FloatArray:
    """[T] mean over the symbols that have a value; NaN where none has."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def log_return(bars: int) -> Callable[[Inputs], FloatArray]:
    return lambda x: x.level - trailing.lag(x.level, bars)


def momentum(x: Inputs) -> FloatArray:
    return trailing.lag(x.level, 5) - trailing.lag(x.level, 60)


def _realised(x: Inputs, window: int) -> FloatArray:
    return np.sqrt(np.maximum(trailing.mean(x.change**2, window), 0.0))


def volatility(window: int) -> Callable[[Inputs], FloatArray]:
    return lambda x: np.log(_realised(x, window) + 1e-6)


def volatility_ratio(x: Inputs) -> FloatArray:
    return np.log((_realised(x, 5) + 1e-6) / (_realised(x, 60) + 1e-6))


def rsi(x: Inputs) -> FloatArray:
    up = trailing.mean(np.maximum(x.change, 0.0), 14)
    down = trailing.mean(np.maximum(-x.change, 0.0), 14)
    moved = up + down
    still = moved <= 1e-12
    return np.where(np.isnan(moved), np.nan, np.where(still, 50.0, 100.0 * up / np.where(still, 1.0, moved)))


def _ema_kernel(span: int, taps: int) -> FloatArray:
    weights = (1.0 - 2.0 / (span + 1.0)) ** np.arange(taps)
    kernel: FloatArray = weights / weights.sum()
    return kernel


def macd_kernel(taps: int = 60) -> FloatArray:
    """Weights of the MACD histogram on the last `taps` log closes: EMA12 - EMA26 less its own EMA9.

    The exponential weights are cut so that the look-back is finite; they sum to 0, as the full ones do.
    """
    signal = _ema_kernel(9, 16)
    line = _ema_kernel(12, taps - 15) - _ema_kernel(26, taps - 15)
    kernel = -np.convolve(line, signal)
    kernel[: len(line)] += line
    return kernel


def macd(x: Inputs) -> FloatArray:
    return trailing.weighted(x.level, macd_kernel())


def bollinger(x: Inputs) -> FloatArray:
    band = 2.0 * trailing.deviation(x.close, 20)
    off = x.close - trailing.mean(x.close, 20)
    still = band <= 1e-9 * x.close
    return np.where(still, 0.0, off / np.where(still, 1.0, band))


def distance_high(x: Inputs) -> FloatArray:
    return x.level - trailing.highest(x.level, 20)


def max_drawdown(x: Inputs) -> FloatArray:
    return trailing.deepest_fall(x.level, 60)


def beta(x: Inputs) -> FloatArray:
    mean_x, mean_m = trailing.mean(x.change, 60), trailing.mean(x.market, 60)
    covariance = trailing.mean(x.change * x.market, 60) - mean_x * mean_m
    variance = trailing.deviation(x.market, 60) ** 2
    still = variance <= 1e-14
    return np.where(np.isnan(variance), np.nan, np.where(still, 0.0, covariance / np.where(still, 1.0, variance)))


def rank(x: Inputs) -> FloatArray:
    return x.own.across(log_return(20)(x), unit_rank)


def unit_rank(values: FloatArray) -> FloatArray:
    """[T, N] rank within each row, spread evenly over (-sqrt 3, sqrt 3): mean 0 and about unit variance."""
    share: FloatArray = pd.DataFrame(values).rank(axis=1).to_numpy(dtype=np.float64)
    count = np.isfinite(values).sum(axis=1, keepdims=True)
    ranks: FloatArray = ((share - 0.5) / np.maximum(count, 1) - 0.5) * math.sqrt(12.0)
    return ranks


def parkinson(x: Inputs) -> FloatArray:
    variance = trailing.mean(np.log(x.high / x.low) ** 2, 20) / (4.0 * math.log(2.0))
    return np.log(np.sqrt(np.maximum(variance, 0.0)) + 1e-6)


def true_range(x: Inputs) -> FloatArray:
    before = trailing.lag(x.close, 1)
    span = np.maximum(x.high, before) - np.minimum(x.low, before)
    return np.log(np.maximum(trailing.mean(span / x.close, 14), 0.0) + 1e-6)


def close_location(x: Inputs) -> FloatArray:
    span = x.high - x.low
    still = span <= 0.0
    return np.where(still, 0.0, (2.0 * x.close - x.high - x.low) / np.where(still, 1.0, span))


def gap(x: Inputs) -> FloatArray:
    return np.log(x.open) - trailing.lag(x.level, 1)


def volume_surprise(x: Inputs) -> FloatArray:
    volume = np.log1p(x.volume)
    return volume - trailing.mean(volume, 20)


def _dollar_volume(x: Inputs) -> FloatArray:
    return x.close * x.volume


def dollar_volume_trend(x: Inputs) -> FloatArray:
    dollars = _dollar_volume(x)
    short, long = (np.maximum(trailing.mean(dollars, window), 0.0) for window in (5, 60))
    return np.log((short + 1.0) / (long + 1.0))


def on_balance(x: Inputs) -> FloatArray:
    signed = trailing.total(np.sign(x.change) * x.volume, 20)
    traded = trailing.total(x.volume, 20)
    still = traded <= 0.0
    return np.where(still, 0.0, signed / np.where(still, 1.0, traded))


def amihud(x: Inputs) -> FloatArray:
    impact = np.abs(x.change) * 1e6 / np.maximum(_dollar_volume(x), 1.0)
    return np.log(np.maximum(trailing.mean(impact, 20), 0.0) + 1e-9)
