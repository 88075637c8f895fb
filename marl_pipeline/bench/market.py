"""How many symbol-steps a second the trading environment takes, beside the environments people install for the same
purpose. docs/benchmarks.md says what is counted.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from rich.table import Table

from marl_pipeline.config import DirectivesParams, MarketParams
from marl_pipeline.data.dataset import Panel
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.trading.core.actions import ACTIONS, DIRECTIVE_ACTIONS
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.errors import UserError

BARS = 4400
"""With 143 symbols, 629,200 rows: 17 years of days."""

EPISODE = 64
FEATURES = 23
ROUNDS = 5

SIZES: tuple[tuple[int, int], ...] = (
    (128, 143),
    (128, 1),
    (1, 143),
    (16, 143),
    (1024, 143),
    (4096, 143),
    (128, 16),
    (128, 512),
)
"""Environments x symbols: the two reference sizes, then a scan over each axis."""


@dataclass(frozen=True)
class Row:
    """One measurement: symbol-steps (environments x symbols x steps) a second, the fastest of `ROUNDS` rounds."""

    system: str
    envs: int
    symbols: int
    device: str
    symbol_steps_per_s: float


@dataclass(frozen=True)
class Absent:
    """A peer that could not be measured here, and why."""

    system: str
    reason: str


def bench_market(
    params: MarketParams,
    directives: DirectivesParams,
    *,
    device: torch.device | str = "cpu",
    sizes: Sequence[tuple[int, int]] = SIZES,
    seconds: float = 2.0,
    seed: int = 0,
) -> Iterator[Row | Absent]:
    """Measures this environment in both modes at all `sizes`, with dense observations at the first, and the peers.

    Args:
        seconds: for each measurement, in all.

    Raises:
        UserError: the device is not there.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device cuda: this torch finds no CUDA device")
    modes: tuple[Mode, ...] = ("portfolio", "accounts")
    for mode in modes:
        for envs, symbols in sizes:
            yield _measured(params, directives, mode, envs, symbols, device, seconds, seed, dense=False)
        yield _measured(params, directives, mode, *sizes[0], device, seconds, seed, dense=True)
    yield from _peers(sizes[0][1], seconds, seed)


def synthetic_panel(bars: int, symbols: int, seed: int) -> Panel:
    """Random walks with opens, volumes and a hole in a hundred: daily sessions, every day of the week."""
    rng = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (bars, symbols)), 0))
    days = np.datetime64("2000-01-01") + np.arange(bars)
    times = days.astype("datetime64[us]")
    return Panel(
        symbols=tuple(f"S{n:04d}" for n in range(symbols)),
        timestamps=times,
        known_at=times,
        session=np.arange(bars, dtype=np.int64),
        open=close * np.exp(rng.normal(0.0, 0.002, close.shape)),
        high=close,
        low=close,
        close=close,
        volume=rng.lognormal(14.0, 1.0, close.shape),
        tradable=rng.random(close.shape) > 0.01,
    )


@lru_cache(maxsize=2)
def _market(params: MarketParams, symbols: int, device: str, seed: int) -> Market:
    return Market.from_panel(synthetic_panel(BARS, symbols, seed), params, device)


def _measured(
    params: MarketParams,
    directives: DirectivesParams,
    mode: Mode,
    envs: int,
    symbols: int,
    device: torch.device | str,
    seconds: float,
    seed: int,
    *,
    dense: bool,
) -> Row:
    env = TradingEnv(
        _market(params, symbols, str(device), seed),
        params,
        directives,
        mode=mode,
        num_envs=envs,
        span=Span(0, BARS),
        episode=EPISODE,
        seed=seed,
    )
    generator = torch.Generator(env.device).manual_seed(seed)
    drawn = [
        {
            "symbols": torch.randint(len(ACTIONS), (envs, symbols), generator=generator, device=env.device),
            "master": torch.randint(DIRECTIVE_ACTIONS, (envs, 1), generator=generator, device=env.device),
        }
        for _ in range(8)
    ]
    table = torch.randn(BARS, symbols, FEATURES, generator=generator, device=env.device) if dense else None
    env.reset()

    def step(index: int) -> None:
        step = env.step(drawn[index % len(drawn)]).groups["symbols"]
        if table is not None:
            table[step.observation["bar"], step.observation["symbol"]]
        if (index + 1) % EPISODE == 0:
            env.reset()

    def wait() -> None:
        if env.device.type == "cuda":
            torch.cuda.synchronize(env.device)

    rate = _steps_per_second(step, wait, seconds)
    system = f"marl-pipeline, {mode}" + (f", dense observations ({FEATURES} features)" if dense else "")
    return Row(system, envs, symbols, str(env.device), rate * envs * symbols)


def _steps_per_second(step: Callable[[int], None], wait: Callable[[], None], seconds: float) -> float:
    """Calls `step(0)`, `step(1)`, ... for whole episodes; the fastest round counts, and compiling does not."""
    index, best = 0, 0.0
    for _ in range(8):
        step(index)
        index += 1
    for _ in range(ROUNDS):
        begun, first, passed = time.perf_counter(), index, 0.0
        while passed < seconds / ROUNDS:
            for _ in range(8):
                step(index)
                index += 1
            wait()
            passed = time.perf_counter() - begun
        best = max(best, (index - first) / passed)
    return best


# -- what is printed --------------------------------------------------------------------------------------------------


def words(row: Row | Absent) -> str:
    """One measurement in words."""
    if isinstance(row, Absent):
        return f"absent, {row.reason}"
    return f"{row.envs} x {row.symbols} on {row.device}: {row.symbol_steps_per_s:.3g} symbol-steps/s"


def as_json(measured: Sequence[Row | Absent]) -> dict[str, Any]:
    """`rows`, the peers that are `absent`, and the `threads` that a CPU measurement used."""
    return {
        "rows": [asdict(row) for row in measured if isinstance(row, Row)],
        "absent": [asdict(row) for row in measured if isinstance(row, Absent)],
        "threads": torch.get_num_threads(),
    }


def table(measured: Sequence[Row | Absent]) -> Table:
    """For a terminal."""
    shown = Table("system", "envs", "symbols", "device", "symbol-steps/s", "ns per symbol-step")
    for column in (1, 2, 4, 5):
        shown.columns[column].justify = "right"
    for row in measured:
        if isinstance(row, Row):
            rate = row.symbol_steps_per_s
            shown.add_row(row.system, f"{row.envs}", f"{row.symbols}", row.device, f"{rate:.3g}", f"{1e9 / rate:.1f}")
        else:
            shown.add_row(row.system, "", "", "", "absent", row.reason)
    return shown


# -- peers: one environment each, stepped with random actions, reset when over ----------------------------------------


def _peers(symbols: int, seconds: float, seed: int) -> Iterator[Row | Absent]:
    for system, make, size in (
        ("gym-trading-env", _gym_trading_env, 1),
        ("gym-anytrading", _gym_anytrading, 1),
        ("FinRL StockTradingEnv (numpy)", _finrl, symbols),
    ):
        try:
            env = make(size, seed)
        except ImportError as error:
            yield Absent(system, f"cannot be imported: {error}")
            continue
        rate = _steps_per_second(_played(env, seed), lambda: None, seconds)
        yield Row(system, 1, size, "cpu", rate * size)


def _played(env: Any, seed: int) -> Callable[[int], None]:
    env.action_space.seed(seed)
    actions = [env.action_space.sample() for _ in range(64)]
    env.reset(seed=seed)

    def step(index: int) -> None:
        terminated, truncated = env.step(actions[index % len(actions)])[2:4]
        if terminated or truncated:
            env.reset()

    return step


def _bars(seed: int) -> pd.DataFrame:
    panel = synthetic_panel(BARS, 1, seed)
    index = pd.DatetimeIndex(panel.timestamps)
    names: tuple[Literal["open", "high", "low", "close", "volume"], ...] = ("open", "high", "low", "close", "volume")
    return pd.DataFrame({name: getattr(panel, name)[:, 0] for name in names}, index=index)


def _gym_trading_env(symbols: int, seed: int) -> Any:
    del symbols
    import warnings

    with warnings.catch_warnings():  # it turns warnings into errors on import
        from gym_trading_env.environments import TradingEnv as GymTradingEnv
    frame = _bars(seed)
    for column in range(FEATURES):
        frame[f"feature_{column}"] = 0.0
    return GymTradingEnv(frame, positions=[-1, 0, 1], trading_fees=1e-3, borrow_interest_rate=1e-5, verbose=0)


def _gym_anytrading(symbols: int, seed: int) -> Any:
    del symbols
    from gym_anytrading.envs import StocksEnv

    return StocksEnv(_bars(seed).rename(columns=str.capitalize), window_size=24, frame_bound=(24, BARS))


def _finrl(symbols: int, seed: int) -> Any:
    panel = synthetic_panel(BARS, symbols, seed)
    config = {
        "price_array": panel.close,
        "tech_array": np.zeros((BARS, symbols)),
        "turbulence_array": np.zeros(BARS),
        "if_train": True,
    }
    return _finrl_module().StockTradingEnv(config)


def _finrl_module() -> ModuleType:
    """Its one file: importing the package asks for brokers' clients."""
    found = importlib.util.find_spec("finrl")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'finrl'")
    path = Path(found.origin).parent / "meta" / "env_stock_trading" / "env_stocktrading_np.py"
    spec = importlib.util.spec_from_file_location("finrl_env_stocktrading_np", path)
    if spec is None or spec.loader is None or not path.exists():
        raise ModuleNotFoundError(f"{path}: not in this FinRL")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
