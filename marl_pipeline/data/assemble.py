"""Bars and companions become the training data set: the pure heart of the stage build_features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from marl_pipeline.config import BuildFeaturesParams
from marl_pipeline.data import trailing
from marl_pipeline.data.availability import as_of
from marl_pipeline.data.calendar import sessions_per_year
from marl_pipeline.data.companions import Companions
from marl_pipeline.data.custom import CustomFeature
from marl_pipeline.data.dataset import Dataset, Float32Array, FloatArray, IntArray, Panel
from marl_pipeline.data.features import bars_needed, compute_features
from marl_pipeline.data.panel import build_panel
from marl_pipeline.data.regime import compute_regime, market_returns
from marl_pipeline.data.series import figures_of
from marl_pipeline.errors import UserError

EQUAL_WEIGHT = "equal weight"
UNKNOWN_SECTOR = "unknown"

CHANGE_BARS = 20
"""Bars over which the change of a macro series is measured."""


def assemble(
    bars: pd.DataFrame,
    companions: Companions,
    params: BuildFeaturesParams,
    *,
    frequency: str,
    calendar: str,
    adjustment: str,
    custom: Sequence[CustomFeature] = (),
) -> Dataset:
    """Builds the data set from cleaned bars.

    Args:
        bars: as `build_panel` takes them.
        companions: tables with `available_at`; a row counts from the first bar complete at or after that moment.
        custom: the user's own features.

    Raises:
        UserError: fewer than two symbols, too little history for the look-backs, or a custom feature that looks ahead.
    """
    panel = build_panel(
        bars,
        frequency=frequency,
        calendar=calendar,
        adjustment=adjustment,
        membership=companions.membership,
        corporate_actions=companions.corporate_actions,
    )
    _check_history(panel, params, custom)
    feature_names, features, _, valid = compute_features(panel, params, custom)
    vix = None if companions.vix is None else as_of(_timed(companions.vix, ["close"]), panel.known_at)[:, 0]
    regime_names, regime = compute_regime(panel, params, vix)
    macro_names, macro = macro_figures(panel, companions.macro, params)
    sentiment_names, sentiment = sentiment_figures(panel, companions.sentiment, params)
    sectors, sector = sector_index(panel.symbols, companions.sectors)
    benchmark_name, benchmark = benchmark_level(panel, companions)
    return Dataset(
        panel=panel,
        feature_names=feature_names,
        features=features,
        valid=valid,
        regime_names=regime_names,
        regime=regime,
        macro_names=macro_names,
        macro=macro,
        sentiment_names=sentiment_names,
        sentiment=sentiment,
        sectors=sectors,
        sector=sector,
        benchmark=benchmark,
        benchmark_name=benchmark_name,
        sessions_per_year=sessions_per_year(calendar),
    )


def macro_figures(
    panel: Panel, macro: pd.DataFrame | None, params: BuildFeaturesParams
) -> tuple[tuple[str, ...], Float32Array]:
    """[T, C] trailing z-scores of each series' level as last known at the bar, and of its change over
    `CHANGE_BARS` bars; 0 while unknown."""
    if macro is None:
        return (), np.zeros((len(panel.timestamps), 0), dtype=np.float32)
    names = figures_of(macro)
    level = as_of(_timed(macro, names), panel.known_at)
    raw = np.hstack([level, level - trailing.lag(level, CHANGE_BARS)])
    return (
        tuple(f"{name}_level" for name in names) + tuple(f"{name}_change" for name in names),
        _scaled(raw, params),
    )


def sentiment_figures(
    panel: Panel, sentiment: pd.DataFrame | None, params: BuildFeaturesParams
) -> tuple[tuple[str, ...], Float32Array]:
    """[T, N, S] trailing z-scores per symbol of the last figures known at the bar; 0 while unknown, and for
    symbols without any."""
    shape = (len(panel.timestamps), len(panel.symbols))
    if sentiment is None:
        return (), np.zeros((*shape, 0), dtype=np.float32)
    names = figures_of(sentiment)
    place = {symbol: index for index, symbol in enumerate(panel.symbols)}
    raw = np.full((*shape, len(names)), np.nan)
    for symbol, rows in sentiment.groupby("symbol", sort=True):
        if (index := place.get(str(symbol))) is not None:
            raw[:, index] = as_of(_timed(rows, names), panel.known_at)
    return names, _scaled(raw, params)


def sector_index(symbols: tuple[str, ...], sectors: pd.DataFrame | None) -> tuple[tuple[str, ...], IntArray]:
    """Sector names, "unknown" first, and each symbol's index into them; a symbol without one is in 0."""
    if sectors is None:
        return (UNKNOWN_SECTOR,), np.zeros(len(symbols), dtype=np.int64)
    given = sectors.dropna(subset=["symbol", "sector"]).drop_duplicates("symbol")
    known = dict(zip(given["symbol"].astype(str), given["sector"].astype(str), strict=True))
    of_symbol = [known.get(symbol, UNKNOWN_SECTOR) for symbol in symbols]
    names = (UNKNOWN_SECTOR, *sorted(set(of_symbol) - {UNKNOWN_SECTOR}))
    return names, np.array([names.index(sector) for sector in of_symbol], dtype=np.int64)


def benchmark_level(panel: Panel, companions: Companions) -> tuple[str, FloatArray]:
    """Name and [T] level as last known at each bar: the given series, else a symbol among the bars, else the
    equal-weight market rebalanced every bar, starting at 1."""
    if companions.benchmark is not None:
        level = as_of(_timed(companions.benchmark, ["close"]), panel.known_at)[:, 0]
        return companions.benchmark_name, level
    return EQUAL_WEIGHT, np.exp(np.cumsum(market_returns(panel)))


def _check_history(panel: Panel, params: BuildFeaturesParams, custom: Sequence[CustomFeature]) -> None:
    bars, needed = len(panel.timestamps), bars_needed(params, custom)
    if bars < needed:
        raise UserError(
            f"too little history: {bars} bars, and the first row to learn from needs {needed} (the longest look-back, "
            f"then a quarter of build_features.scale_window {params.scale_window}, then build_features.window "
            f"{params.window}); bring more bars or lower these"
        )


def _timed(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The figures of a companion with the moments between which they count."""
    return table[[name for name in ("available_at", "expires_at") if name in table] + list(names)]


def _scaled(raw: FloatArray, params: BuildFeaturesParams) -> Float32Array:
    scored = trailing.z_score(raw, params.scale_window, params.clip)
    return np.where(np.isfinite(scored), scored, 0.0).astype(np.float32)
