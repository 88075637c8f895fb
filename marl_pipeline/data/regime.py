"""The state of the market as a whole at each bar, and what the curriculum orders bars and symbols by."""

from __future__ import annotations

import numpy as np

from marl_pipeline.config import BuildFeaturesParams
from marl_pipeline.data import trailing
from marl_pipeline.data.dataset import Dataset, Float32Array, FloatArray, Panel
from marl_pipeline.data.formulas import cross_mean

CALM_WINDOW = 20
"""Bars over which `calmness` measures the market's volatility."""


def market_returns(panel: Panel) -> FloatArray:
    """[T] log return of the equal-weight market: the mean over the tradable symbols, 0 where none trades."""
    returns = np.where(panel.tradable, trailing.log_returns(panel.close), np.nan)
    simple = cross_mean(np.expm1(returns))
    return np.log1p(np.where(np.isfinite(simple), simple, 0.0))


def compute_regime(
    panel: Panel, params: BuildFeaturesParams, vix: FloatArray | None = None
) -> tuple[tuple[str, ...], Float32Array]:
    """Names of the R figures and their trailing z-scores [T, R]; 0 until a figure's look-back is there.

    With w = `regime_window` and m the equal-weight market return:
        trend: mean log level of the market over the last w / 4 bars less that over w bars.
        volatility: ln of sqrt(mean m^2) over w bars.
        breadth: share of the symbols that stand above their own mean of w closes.
        correlation: mean pairwise correlation over w bars (`mean_correlation`).
        dispersion: ln of the cross-sectional deviation of returns, mean over w / 4 bars.
        drawdown: log fall of the market below its peak of the last `scale_window` bars.
        vix: ln of the index as last known at the bar, where it is given.

    Args:
        vix: [T] level known at each bar, NaN before the first.
    """
    window, short = params.regime_window, max(2, params.regime_window // 4)
    returns = np.where(panel.tradable, trailing.log_returns(panel.close), np.nan)
    market = market_returns(panel)[:, None]
    level = np.cumsum(market, axis=0)
    figures = {
        "trend": trailing.mean(level, short) - trailing.mean(level, window),
        "volatility": np.log(np.sqrt(np.maximum(trailing.mean(market**2, window), 0.0)) + 1e-6),
        "breadth": breadth(panel, window)[:, None],
        "correlation": mean_correlation(returns, window)[:, None],
        "dispersion": trailing.mean(np.log(spread(returns) + 1e-6)[:, None], short),
        "drawdown": level - trailing.highest(level, params.scale_window, 1),
    }
    if vix is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            figures["vix"] = np.where(vix > 0.0, np.log(vix), np.nan)[:, None]
    raw = np.hstack(list(figures.values()))
    scaled = trailing.z_score(raw, params.scale_window, params.clip)
    return tuple(figures), np.where(np.isfinite(scaled), scaled, 0.0).astype(np.float32)


def breadth(panel: Panel, window: int) -> FloatArray:
    """[T] share of the tradable symbols whose close is above its mean over the last `window` rows of the grid,
    carried over gaps; NaN until one symbol has that many."""
    close = trailing.carried(panel.close)
    average = trailing.mean(close, window)
    return cross_mean(np.where(panel.tradable & np.isfinite(average), (close > average).astype(np.float64), np.nan))


def mean_correlation(returns: FloatArray, window: int) -> FloatArray:
    """[T] mean correlation of all pairs over the last `window` rows, without forming the pairs.

    With z the returns in trailing standard deviations, the products of all pairs at one bar sum to
    (sum z)^2 - sum z^2; their trailing sum over that of the number of pairs n (n - 1) is the mean correlation.
    """
    at_least = max(2, window // 2)
    centre = trailing.mean(returns, window, at_least)
    scale = trailing.deviation(returns, window, at_least)
    moves = np.isfinite(returns) & (scale > 1e-12)
    z = np.where(moves, (returns - centre) / np.where(moves, scale, 1.0), 0.0)
    count = moves.sum(axis=1).astype(np.float64)
    products = trailing.total((z.sum(axis=1) ** 2 - (z**2).sum(axis=1))[:, None], window)[:, 0]
    pairs = trailing.total((count * (count - 1.0))[:, None], window)[:, 0]
    defined = pairs > 0.5
    return np.where(defined, np.clip(products / np.where(defined, pairs, 1.0), -1.0, 1.0), np.nan)


def spread(returns: FloatArray) -> FloatArray:
    """[T] cross-sectional standard deviation; NaN with fewer than two values."""
    known = np.isfinite(returns)
    count = known.sum(axis=1)
    off = np.where(known, returns - cross_mean(returns)[:, None], 0.0)
    return np.where(count >= 2, np.sqrt((off**2).sum(axis=1) / np.maximum(count, 1)), np.nan)


def calmness(dataset: Dataset) -> FloatArray:
    """[T] trailing volatility of the equal-weight market, per bar: the lower the calmer; NaN before it is known.

    The curriculum sorts the bars of the train span by it.
    """
    market = market_returns(dataset.panel)[:, None]
    variance = trailing.mean(market**2, CALM_WINDOW)[:, 0]
    return np.sqrt(np.maximum(variance, 0.0))


def liquidity(dataset: Dataset, until: int) -> FloatArray:
    """[N] median dollar volume over the tradable bars before `until`; 0 for a symbol without one.

    Without volumes it is the inverse of the returns' standard deviation over those bars: calm names first.
    """
    panel = dataset.panel
    tradable = panel.tradable[:until]
    if panel.has_volume:
        figures = np.where(tradable, panel.close[:until] * panel.volume[:until], np.nan)
        return _median(figures)
    returns = np.where(tradable, trailing.log_returns(panel.close[:until]), np.nan)
    known = np.isfinite(returns)
    count = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, returns, 0.0)
    variance = (values**2).sum(axis=0) / count - (values.sum(axis=0) / count) ** 2
    return np.where(variance > 1e-16, 1.0 / np.sqrt(np.maximum(variance, 1e-16)), 0.0)


def _median(values: FloatArray) -> FloatArray:
    """[N] median over rows that are there; 0 for a column without any."""
    known = np.isfinite(values)
    empty = ~known.any(axis=0)
    filled = np.where(empty, 0.0, values)
    result: FloatArray = np.nanmedian(filled, axis=0) if len(filled) else np.zeros(values.shape[1])
    return result
