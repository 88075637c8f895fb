"""A small data set made by hand whose next returns follow its first feature as closely as asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from marl_pipeline.checkpoint import State
from marl_pipeline.config import PretrainEncoderParams, SLSignalsParams, SpansParams, WalkForwardParams
from marl_pipeline.data.dataset import Dataset, Panel

WINDOW = 6


def learnable_market(
    bars: int = 400, symbols: int = 6, features: int = 4, signal: float = 1.0, seed: int = 0, gaps: bool = True
) -> Dataset:
    """`signal` is the size of the foreseeable part of a return beside noise of size 1."""
    rng = np.random.default_rng(seed)
    state = np.zeros((bars, symbols))
    for t in range(1, bars):
        state[t] = 0.9 * state[t - 1] + np.sqrt(1 - 0.81) * rng.standard_normal(symbols)
    returns = rng.standard_normal((bars, symbols))
    returns[1:] += signal * state[:-1]
    close = 100 * np.exp(np.cumsum(0.01 * returns, axis=0))
    values = rng.standard_normal((bars, symbols, features))
    values[..., 0] = state
    valid = np.ones((bars, symbols), dtype=bool)
    valid[: 2 * WINDOW] = False
    if gaps:
        close[bars // 3 : bars // 3 + 3, 1] = np.nan
        valid[bars // 3 : bars // 3 + 3 + WINDOW, 1] = False
    return dataset_of(close, np.where(valid[..., None], values, 0.0), valid)


def dataset_of(close: np.ndarray, features: np.ndarray, valid: np.ndarray, opens: np.ndarray | None = None) -> Dataset:
    bars, symbols = close.shape
    absent = np.full(close.shape, np.nan)
    days = np.datetime64("2015-01-01", "us") + np.arange(bars) * np.timedelta64(1, "D")
    panel = Panel(
        symbols=tuple(f"S{n:02d}" for n in range(symbols)),
        timestamps=days,
        known_at=days + np.timedelta64(21, "h"),
        session=np.arange(bars),
        open=absent if opens is None else opens,
        high=absent,
        low=absent,
        close=close,
        volume=absent,
        tradable=np.isfinite(close),
    )
    return Dataset(
        panel=panel,
        feature_names=tuple(f"feature_{f}" for f in range(features.shape[-1])),
        features=features.astype(np.float32),
        valid=valid,
        regime_names=(),
        regime=np.zeros((bars, 0), dtype=np.float32),
        macro_names=(),
        macro=np.zeros((bars, 0), dtype=np.float32),
        sentiment_names=(),
        sentiment=np.zeros((bars, symbols, 0), dtype=np.float32),
        sectors=("unknown",),
        sector=np.zeros(symbols, dtype=np.int64),
        benchmark=np.ones(bars),
        benchmark_name="none",
        sessions_per_year=252.0,
    )


def with_noise_after(dataset: Dataset, bar: int, seed: int = 99) -> Dataset:
    """The same data set with other, valid bars after `bar`."""
    other = learnable_market(dataset.bars, len(dataset.panel.symbols), dataset.features.shape[-1], seed=seed)
    splice = [
        np.concatenate([ours[: bar + 1], theirs[bar + 1 :]])
        for ours, theirs in (
            (dataset.panel.close, other.panel.close),
            (dataset.features, other.features),
            (dataset.valid, other.valid),
        )
    ]
    splice[2][bar + 1 :: 7] = False
    return dataset_of(splice[0], splice[1] * splice[2][..., None], splice[2])


def signal_params(**changes: Any) -> SLSignalsParams:
    values: dict[str, Any] = {
        "models": ("MLP72",),
        "horizon": 3,
        "threshold": 0.5,
        "first_fit": 150,
        "refit_every": 100,
        "calibration_fraction": 0.2,
        "max_samples": 500,
        "epochs": 3,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "weight_decay": 1e-4,
        "dropout": 0.1,
    }
    return SLSignalsParams(**(values | changes))


def encoder_params(**changes: Any) -> PretrainEncoderParams:
    values: dict[str, Any] = {
        "embedding": 16,
        "width": 8,
        "heads": 2,
        "layers": 1,
        "dropout": 0.1,
        "graph_neighbours": 3,
        "correlation_window": 30,
        "mask_fraction": 0.25,
        "horizons": (1, 3),
        "steps": 30,
        "refit_every": 50,
        "refit_steps": 10,
        "bars_per_batch": 8,
        "learning_rate": 3e-3,
        "weight_decay": 1e-4,
    }
    return PretrainEncoderParams(**(values | changes))


SPANS = SpansParams(validation_fraction=0.15, test_fraction=0.3, embargo=5)
WALK_FORWARD = WalkForwardParams(windows=(0, 1), tune_bars=40, tune_iterations=1)


class InterruptedFitError(Exception):
    """Stands for kill -9."""


class InterruptAfter:
    """An `OnStep` that raises at its n-th call."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, label: str, step: int, total: int, metrics: Any) -> None:
        self.left -= 1
        if self.left <= 0:
            raise InterruptedFitError


def same(left: State, right: State) -> bool:
    """Whether two dicts of tensors agree bit for bit."""
    return left.keys() == right.keys() and all(bool((left[k] == right[k]).all()) for k in left)
