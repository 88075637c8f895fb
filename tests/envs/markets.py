"""Panels to play on: quiet ones with prices set by hand, and hostile ones."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from marl_pipeline.config import MarketParams, load_params
from marl_pipeline.data.dataset import Panel


def panel(
    close: npt.ArrayLike,
    *,
    opened: npt.ArrayLike | None = None,
    volume: npt.ArrayLike | None = None,
    tradable: npt.ArrayLike | None = None,
    bars_per_session: int = 1,
    start: str = "2024-01-01",
) -> Panel:
    """A panel with `close` [T, N]; session k falls on weekday k from `start` (a Monday) on; no volume unless given."""
    closes = np.asarray(close, dtype=np.float64)
    bars, size = closes.shape
    session = np.arange(bars) // bars_per_session
    days = np.busday_offset(start, session, roll="forward").astype("datetime64[us]")
    times = days + (np.arange(bars) % bars_per_session).astype("timedelta64[h]")
    none = np.full_like(closes, np.nan)
    opens = none if opened is None else np.asarray(opened, dtype=np.float64)
    exists = np.isfinite(closes) if tradable is None else np.asarray(tradable, dtype=bool)
    return Panel(
        symbols=tuple(f"S{n:03d}" for n in range(size)),
        timestamps=times,
        known_at=times,
        session=session.astype(np.int64),
        open=opens,
        high=none,
        low=none,
        close=closes,
        volume=none if volume is None else np.broadcast_to(np.asarray(volume, dtype=np.float64), closes.shape).copy(),
        tradable=exists,
    )


def hostile(rng: np.random.Generator, bars: int, size: int, bars_per_session: int = 1) -> Panel:
    """Gaps of -99% and back, prices from 1e-4 to 1e6, zero and missing volume, holes, late listings, delistings,
    quarantined prices, constant prices."""
    returns = rng.normal(0, rng.choice([0.0, 0.01, 0.1], size), (bars, size))
    crash = rng.random((bars, size)) < 0.02
    returns[crash] = rng.choice([np.log(0.01), np.log(0.5), np.log(3.0)], int(crash.sum()))
    close = np.clip(rng.choice([1e-4, 1.0, 50.0, 1e6], size) * np.exp(np.cumsum(returns, 0)), 1e-4, 1e6)
    opened = close * np.exp(rng.normal(0, 0.02, close.shape))
    opened[rng.random(close.shape) < 0.05] = np.nan
    volume = rng.lognormal(8, 2, close.shape) * 100.0 / close
    volume[rng.random(close.shape) < 0.1] = 0.0
    volume[rng.random(close.shape) < 0.1] = np.nan
    volume[:, rng.random(size) < 0.2] = np.nan
    volume[:, rng.random(size) < 0.1] = 0.0
    exists = rng.random(close.shape) > 0.03
    for n in range(size):
        kind = rng.integers(5)
        if kind == 0:
            exists[: rng.integers(bars), n] = False
        if kind == 1:
            exists[rng.integers(bars) :, n] = False
        if kind == 2:
            hole = int(rng.integers(bars))
            exists[hole : hole + int(rng.integers(1, 10)), n] = False
    quarantined = rng.random(close.shape) < 0.02
    close[~exists] = opened[~exists] = volume[~exists] = np.nan
    close[quarantined & (rng.random(close.shape) < 0.5)] *= -1.0
    return panel(close, opened=opened, volume=volume, tradable=exists & ~quarantined, bars_per_session=bars_per_session)


@functools.cache
def default_market() -> dict[str, Any]:
    return load_params().market.model_dump()


def market_params(**changes: Any) -> MarketParams:
    """The default market with some fields changed; those of `limits` are given beside the others."""
    base = default_market()
    limits = {name: changes.pop(name) for name in list(changes) if name in base["limits"]}
    return MarketParams.model_validate({**base, **changes, "limits": {**base["limits"], **limits}})
