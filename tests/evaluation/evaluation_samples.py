"""Small markets and records for the tests of the evaluation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marl_pipeline.config import MarketParams, Params, load_params
from marl_pipeline.data.dataset import Dataset, Panel, Signals
from marl_pipeline.data.windows import Window, walk_forward_windows
from marl_pipeline.evaluation.records import DECISION_COLUMNS, EQUITY_COLUMNS, TRADE_COLUMNS, Curve, Record
from marl_pipeline.evaluation.rules import accounts_of

ROOT = Path(__file__).parents[2]


@functools.cache
def params() -> Params:
    return load_params(ROOT / "profiles" / "quickstart.yaml")


def market(**changes: float) -> MarketParams:
    return params().market.model_copy(update=changes)


FREE = {"commission_bps_round_trip": 0.0, "slippage_bps": 0.0, "impact": 0.0}


def panel_of(close: np.ndarray, bars_per_session: int = 1, **changes: np.ndarray) -> Panel:
    """A close-only panel on business days; with several bars per session, hours apart."""
    bars, symbols = close.shape
    days = pd.bdate_range("2015-01-01", periods=-(-bars // bars_per_session), unit="us").to_numpy()
    session = np.arange(bars) // bars_per_session
    times = days[session] + (np.arange(bars) % bars_per_session) * np.timedelta64(1, "h")
    nothing = np.full(close.shape, np.nan)
    values = {
        "symbols": tuple(f"S{index:02d}" for index in range(symbols)),
        "timestamps": times.astype("datetime64[us]"),
        "known_at": times.astype("datetime64[us]") + np.timedelta64(1, "h"),
        "session": session.astype(np.int64),
        "open": nothing,
        "high": nothing,
        "low": nothing,
        "close": close,
        "volume": nothing,
        "tradable": np.isfinite(close),
    }
    return Panel(**(values | changes))


def dataset_of(panel: Panel, sessions_per_year: float = 252.0, sectors: Sequence[str] = ("unknown",)) -> Dataset:
    bars, symbols = panel.close.shape
    return Dataset(
        panel=panel,
        feature_names=("return_1",),
        features=np.zeros((bars, symbols, 1), np.float32),
        valid=np.ones((bars, symbols), np.bool_),
        regime_names=(),
        regime=np.zeros((bars, 0), np.float32),
        macro_names=(),
        macro=np.zeros((bars, 0), np.float32),
        sentiment_names=(),
        sentiment=np.zeros((bars, symbols, 0), np.float32),
        sectors=tuple(sectors),
        sector=np.arange(symbols) % len(sectors),
        benchmark=100.0 * np.nanmean(panel.close / panel.close[0], axis=1),
        benchmark_name="INDEX",
        sessions_per_year=sessions_per_year,
    )


def random_dataset(bars: int = 900, symbols: int = 4, seed: int = 0, bars_per_session: int = 1) -> Dataset:
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0004, 0.008, (bars, 1)) + rng.normal(0.0, 0.01, (bars, symbols))
    panel = panel_of(50.0 * np.exp(np.cumsum(steps, axis=0)), bars_per_session)
    return dataset_of(panel, 252.0 * bars_per_session, ("A & B", "<C>"))


def signals_of(dataset: Dataset, up: np.ndarray) -> Signals:
    """One model whose P(up) - P(down) is `up` [T, N]."""
    probabilities = np.full((*up.shape, 1, 3), 1.0 / 3.0, np.float32)
    probabilities[..., 0, 2] += up / 2
    probabilities[..., 0, 0] -= up / 2
    return Signals(("MLP72",), probabilities, np.ones(up.shape, np.bool_))


def windows_of(dataset: Dataset) -> tuple[Window, ...]:
    return walk_forward_windows(dataset.bars, params().spans, params().walk_forward)


def record_of(dataset: Dataset, window: Window, seed: int, weights: np.ndarray | None = None) -> Record:
    """What a policy leaves that holds the same weights from the first bar on (the first symbol by default)."""
    symbols = dataset.panel.symbols
    if weights is None:
        weights = np.eye(len(symbols))[seed % len(symbols)] * 0.5
    targets = np.full((len(window.test), len(symbols)), np.nan)
    targets[0] = weights
    (account,) = accounts_of(dataset.panel, targets[None], window.test, market())
    times = dataset.panel.timestamps[window.test.start : window.test.stop]
    zeros = {name: 0.0 for name in EQUITY_COLUMNS if name not in account}
    equity = account.assign(**zeros).assign(timestamp=times, cash=account["equity"] * (1.0 - account["exposure"]))
    held = int(np.argmax(weights))
    positions = pd.DataFrame(
        {"bar": account["bar"], "timestamp": times, "symbol": symbols[held], "weight": account["exposure"]}
    ).iloc[1:]
    trade = {name: [1.0] for name in TRADE_COLUMNS} | {
        "bar": [window.test.start + 1],
        "timestamp": [times[1]],
        "symbol": [symbols[held]],
        "side": ["buy"],
        "action": ["BUY_SMALL"],
    }
    curve = Curve("tune", (1.0,), (0.5,))
    decisions = pd.DataFrame({name: [] for name in DECISION_COLUMNS})
    trades = pd.DataFrame(trade)
    return Record(window.index, seed, market().initial_cash, equity, positions, trades, decisions, (curve,))
