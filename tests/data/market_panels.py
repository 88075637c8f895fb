"""Small seeded panels for the tests of this folder."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from marl_pipeline.config import NOT_SET, BuildFeaturesParams
from marl_pipeline.data.dataset import Dataset, Panel

PARAMS = BuildFeaturesParams(window=8, scale_window=40, clip=5.0, regime_window=20, custom=NOT_SET)


def random_panel(
    seed: int, bars: int = 160, symbols: int = 4, gaps: float = 0.0, range_and_volume: bool = True
) -> Panel:
    """A random walk per symbol with a consistent range; a share `gaps` of the bars is missing."""
    rng = np.random.default_rng(seed)
    shape = (bars, symbols)
    returns = 0.01 * (rng.standard_normal((bars, 1)) + rng.standard_normal(shape))
    close = 50.0 * np.exp(np.cumsum(returns, axis=0))
    opened = close * np.exp(0.005 * rng.standard_normal(shape))
    high = np.maximum(opened, close) * np.exp(0.005 * rng.random(shape))
    low = np.minimum(opened, close) * np.exp(-0.005 * rng.random(shape))
    volume = np.exp(12.0 + rng.standard_normal(shape))
    missing = rng.random(shape) < gaps
    for values in (opened, high, low, close, volume):
        values[missing] = np.nan
    if not range_and_volume:
        for values in (opened, high, low, volume):
            values[:] = np.nan
    days = np.datetime64("2015-01-05", "us") + np.arange(bars) * np.timedelta64(1, "D")
    return Panel(
        symbols=tuple(f"S{n:02d}" for n in range(symbols)),
        timestamps=days,
        known_at=days + np.timedelta64(21, "h"),
        session=np.arange(bars, dtype=np.int64),
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        tradable=~missing,
    )


def until(panel: Panel, rows: int) -> Panel:
    """The first `rows` rows."""
    return replace(panel, **{f.name: getattr(panel, f.name)[:rows] for f in fields(panel) if f.name != "symbols"})


def with_other_future(panel: Panel, rows: int, seed: int) -> Panel:
    """The same first `rows` rows, then another history of the same kind, with other gaps and other prices."""
    other = random_panel(seed + 10_000, len(panel.timestamps), len(panel.symbols), gaps=0.1)
    names = ("open", "high", "low", "close", "volume", "tradable")
    return replace(
        panel,
        **{
            n: np.concatenate(
                [
                    getattr(panel, n)[:rows],
                    3 * getattr(other, n)[rows:] if n != "tradable" else getattr(other, n)[rows:],
                ]
            )
            for n in names
        },
    )


def dataset_of(panel: Panel, sector: np.ndarray | None = None) -> Dataset:
    """A data set around a panel, for functions that read only bars and sectors."""
    bars, symbols = panel.close.shape
    empty = np.zeros((bars, 0), dtype=np.float32)
    sector = np.zeros(symbols, dtype=np.int64) if sector is None else sector
    return Dataset(
        panel=panel,
        feature_names=(),
        features=np.zeros((bars, symbols, 0), dtype=np.float32),
        valid=panel.tradable,
        regime_names=(),
        regime=empty,
        macro_names=(),
        macro=empty,
        sentiment_names=(),
        sentiment=np.zeros((bars, symbols, 0), dtype=np.float32),
        sectors=tuple(f"sector {n}" for n in range(int(sector.max()) + 1)),
        sector=sector,
        benchmark=np.ones(bars),
        benchmark_name="equal weight",
        sessions_per_year=252.0,
    )
