"""The 23 technical features of a bar, each a named, causal function of a symbol's own trailing bars.

`FEATURES` is the registry: docs/features.md is the same table, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from marl_pipeline.config import BuildFeaturesParams
from marl_pipeline.data import formulas, trailing
from marl_pipeline.data.custom import Bars, CustomFeature
from marl_pipeline.data.dataset import BoolArray, Float32Array, FloatArray, Panel
from marl_pipeline.data.formulas import Inputs

Needs = Literal["close", "range", "volume"]


@dataclass(frozen=True)
class Feature:
    """One column of the feature table.

    Attributes:
        name: as it stands in `Dataset.feature_names`.
        needs: `close` alone, also open/high/low (`range`), or also `volume`.
        look_back: own bars read, this one included.
        formula, source: for docs/features.md.
        compute: `Inputs` -> [T, N] raw values, NaN before the look-back is there, never infinite.
        scaled: whether the trailing z-score applies; without it the values are of unit size already.
    """

    name: str
    needs: Needs
    look_back: int
    formula: str
    source: str
    compute: Callable[[Inputs], FloatArray]
    scaled: bool = True


FEATURES: tuple[Feature, ...] = (
    Feature("return_1", "close", 2, "ln C[t] - ln C[t-1]", "log return", formulas.log_return(1)),
    Feature("return_5", "close", 6, "ln C[t] - ln C[t-5]", "log return", formulas.log_return(5)),
    Feature("return_10", "close", 11, "ln C[t] - ln C[t-10]", "log return", formulas.log_return(10)),
    Feature("return_20", "close", 21, "ln C[t] - ln C[t-20]", "log return", formulas.log_return(20)),
    Feature(
        "momentum_60",
        "close",
        61,
        "ln C[t-5] - ln C[t-60], the last week skipped",
        "Jegadeesh and Titman 1993",
        formulas.momentum,
    ),
    Feature(
        "volatility_5",
        "close",
        6,
        "ln of RV(5), RV(n) = sqrt(mean of the last n r^2)",
        "Andersen and Bollerslev 1998",
        formulas.volatility(5),
    ),
    Feature("volatility_20", "close", 21, "ln RV(20)", "Andersen and Bollerslev 1998", formulas.volatility(20)),
    Feature("volatility_ratio", "close", 61, "ln RV(5) - ln RV(60)", "short over long RV", formulas.volatility_ratio),
    Feature(
        "rsi_14",
        "close",
        15,
        "100 x mean gain / (mean gain + mean loss), 14 bars, simple means",
        "Wilder 1978; simple means after Cutler",
        formulas.rsi,
    ),
    Feature(
        "macd_histogram",
        "close",
        60,
        "L - EMA9(L) with L = EMA12 - EMA26 of ln C, weights cut at 60 bars",
        "Appel 2005",
        formulas.macd,
    ),
    Feature("bollinger_20", "close", 20, "(C - mean(20)) / (2 sd(20))", "Bollinger 2001", formulas.bollinger),
    Feature("distance_high_20", "close", 20, "ln C - max(20) of ln C", "channel breakout", formulas.distance_high),
    Feature(
        "max_drawdown_60", "close", 60, "deepest peak-to-later fall of C in 60 bars", "drawdown", formulas.max_drawdown
    ),
    Feature(
        "beta_60",
        "close",
        61,
        "cov(r, m) / var(m) over 60 bars, m = mean r of all symbols with a bar",
        "Sharpe 1964",
        formulas.beta,
    ),
    Feature(
        "rank_20",
        "close",
        21,
        "rank of return_20 among the symbols at t, spread over (-sqrt 3, sqrt 3); not z-scored",
        "Jegadeesh and Titman 1993",
        formulas.rank,
        scaled=False,
    ),
    Feature(
        "parkinson_20", "range", 20, "ln sqrt(mean(20) of ln(H/L)^2 / (4 ln 2))", "Parkinson 1980", formulas.parkinson
    ),
    Feature(
        "true_range_14",
        "range",
        15,
        "ln mean(14) of (max(H, C[t-1]) - min(L, C[t-1])) / C",
        "Wilder 1978 (ATR)",
        formulas.true_range,
    ),
    Feature("close_location", "range", 1, "(2 C - H - L) / (H - L)", "Chaikin", formulas.close_location),
    Feature("gap", "range", 2, "ln O[t] - ln C[t-1]", "opening gap", formulas.gap),
    Feature(
        "volume_surprise_20", "volume", 20, "ln(1 + V) - mean(20) of it", "abnormal volume", formulas.volume_surprise
    ),
    Feature(
        "dollar_volume_trend",
        "volume",
        60,
        "ln mean(5) of C V - ln mean(60) of C V",
        "short over long dollar volume",
        formulas.dollar_volume_trend,
    ),
    Feature(
        "on_balance_20",
        "volume",
        21,
        "sum(20) of sign(r) V / sum(20) of V",
        "Granville 1963 (on-balance volume)",
        formulas.on_balance,
    ),
    Feature("amihud_20", "volume", 21, "ln mean(20) of 10^6 abs(r) / (C V)", "Amihud 2002", formulas.amihud),
)


def compute_features(
    panel: Panel, params: BuildFeaturesParams, custom: Sequence[CustomFeature] = ()
) -> tuple[tuple[str, ...], Float32Array, BoolArray, BoolArray]:
    """The features that the panel's columns allow, then the user's own.

    Returns:
        names of the F features; [T, N, F] float32, scaled, 0 where a row is not ready; [T, N] ready: the bar is
        there with its whole look-back; [T, N] valid: the bar is tradable and `window` rows of the grid up to it
        are ready.
    """
    chosen = available_features(panel)
    inputs = Inputs.of(panel)
    features = np.empty((*panel.close.shape, len(chosen) + len(custom)), dtype=np.float32)
    for index, feature in enumerate(chosen):
        features[..., index] = scaled(feature, inputs, params)
    bars = Bars.of(panel)
    for index, own in enumerate(custom, len(chosen)):
        values = np.where(np.isfinite(panel.close), own.compute(bars), np.nan)
        if own.scaled:
            values = inputs.own.scatter(trailing.z_score(inputs.own.gather(values), params.scale_window, params.clip))
        features[..., index] = values
    ready: BoolArray = np.all(np.isfinite(features), axis=-1)
    features[~ready] = 0.0
    names = (*(feature.name for feature in chosen), *(own.name for own in custom))
    return names, features, ready, complete(ready, params.window) & panel.tradable


def scaled(feature: Feature, inputs: Inputs, params: BuildFeaturesParams) -> FloatArray:
    """[T, N] on the grid: the feature's trailing z-score over the symbol's own bars, clipped; NaN where unknown."""
    values = feature.compute(inputs)
    if feature.scaled:
        values = trailing.z_score(values, params.scale_window, params.clip)
    return inputs.own.scatter(values)


def available_features(panel: Panel) -> tuple[Feature, ...]:
    """The features whose columns the source gives: a close-only source has no range and no volume."""
    given = {"close": True, "range": panel.has_range, "volume": panel.has_volume}
    return tuple(feature for feature in FEATURES if given[feature.needs])


def bars_needed(params: BuildFeaturesParams, custom: Sequence[CustomFeature] = ()) -> int:
    """Own bars before a symbol's first valid row, that row included."""
    longest = max(*(feature.look_back for feature in FEATURES), *(own.look_back for own in custom))
    return longest - 1 + trailing.least_rows(params.scale_window) - 1 + params.window


def complete(ready: BoolArray, window: int) -> BoolArray:
    """[T, N] whether the last `window` rows are all ready."""
    count = np.cumsum(ready, axis=0, dtype=np.int64)
    count[window:] -= count[:-window].copy()
    full: BoolArray = count == window
    return full
