"""The compiled step against the tensor code: every output of every step, from the same book."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.conformance import check_environment, check_equal, tensors_of
from marl_pipeline.envs.trading.compiled.engine import CompiledEngine
from marl_pipeline.envs.trading.compiled.kernel.mark import Sums, _log
from marl_pipeline.envs.trading.compiled.kernel.step import Memory
from marl_pipeline.envs.trading.core.accounts import Ledger
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.envs.trading.tensor import TensorEngine
from tests.envs.markets import hostile, market_params
from tests.envs.test_trading_reference import COSTLY, MARGIN, NERVOUS, SHORT, STRICT

FREE = {"commission_bps_round_trip": 0.0, "slippage_bps": 0.0, "impact": 0.0, "open_positions": 4}
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "strict": STRICT,
    "nervous": NERVOUS,
    "margin": MARGIN,
    "costly": COSTLY,
    "free": FREE,
    "short": SHORT,
    "short strict": SHORT | STRICT,
    "short nervous": SHORT | NERVOUS,
    "short margin": SHORT | MARGIN,
    "short costly": SHORT | COSTLY,
}


def make(seed: int, mode: Mode, cpu_step: str, changes: dict[str, Any], **options: Any) -> TradingEnv:
    rng = np.random.default_rng(seed)
    params = market_params(cpu_step=cpu_step, volume_window=3, **changes)
    market = Market.from_panel(hostile(rng, 40, 9, 1 + seed % 3), params)
    settings = {"num_envs": 64, "span": Span(0, 40), "episode": 16, "seed": seed} | options
    return TradingEnv(market, params, load_params().train_master.directives, mode=mode, **settings)


def agree(name: str, found: Tensor, wanted: Tensor) -> None:
    """Whole numbers and choices exactly; money to a billionth, what is observed to float32."""
    assert found.shape == wanted.shape, name
    assert found.dtype == wanted.dtype, name
    if found.dtype == torch.float64:
        assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-6), name
    elif found.dtype == torch.float32:
        assert torch.allclose(found, wanted, rtol=1e-5, atol=2e-5), name
    else:
        assert torch.equal(found, wanted), name


def compare(seed: int, mode: Mode, changes: dict[str, Any], episodes: int = 1, **options: Any) -> None:
    """Plays random episodes of the compiled step; the tensor code follows it from book to book."""
    compiled = make(seed, mode, "compiled", changes, **options)
    plain = make(seed, mode, "plain", changes, **options)
    assert isinstance(compiled._engine, CompiledEngine)
    assert isinstance(plain._engine, TensorEngine)
    generator = torch.Generator().manual_seed(seed)
    shape, weights = (compiled.num_envs, 9), torch.tensor([0.2, 0.1, 0.1, 0.2, 0.1, 0.2, 0.1])
    for _ in range(episodes):
        step = compiled.reset()
        for _ in range(16):
            plain.load_state_dict(compiled.state_dict())
            chosen = torch.multinomial(weights.expand(shape[0] * 9, 7), 1, generator=generator).view(shape)
            directives = torch.randint(48, (shape[0], compiled.game.accounts), generator=generator)
            actions = {"symbols": chosen, "master": directives}
            step, expected = compiled.step(actions), plain.step(actions)
            for name, tensor in tensors_of(expected).items():
                agree(name, tensors_of(step)[name], tensor)
            for name, figure in expected.info.items():
                agree(name, step.info[name], figure)
            for name, tensor in plain.book.tensors().items():
                agree(name, getattr(compiled.book, name), tensor)
            assert compiled.ledger is not None
            assert plain.ledger is not None
            for name in Ledger._fields:
                agree(name, getattr(compiled.ledger, name), getattr(plain.ledger, name))
            agree("executed", compiled.executed, plain.executed)
            agree("caps", compiled._view.caps, plain._view.caps)
        assert bool(step.done.all())


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_the_compiled_step_equals_the_tensor_code(mode: Mode, changes: dict[str, Any]) -> None:
    for seed in range(3):
        compare(seed, mode, changes)


def test_the_compiled_step_equals_the_tensor_code_with_symbols_out_of_play_and_random_directives() -> None:
    in_universe = [True, False, True, True, True, False, True, True, True]
    for mode in ("accounts", "portfolio"):
        compare(4, mode, {}, symbols=in_universe, random_directives=True)  # type: ignore[arg-type]


def partitioned(seed: int) -> dict[str, Any]:
    """A random partition of nine symbols into two to nine portfolios, and their capital."""
    rng = np.random.default_rng(seed)
    accounts = int(rng.integers(2, 10))
    table = np.concatenate([np.arange(accounts), rng.integers(accounts, size=9 - accounts)])
    return {"account_of": rng.permutation(table), "capital": rng.lognormal(10.0, 2.0, accounts)}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_the_compiled_step_equals_the_tensor_code_for_random_partitions(changes: dict[str, Any]) -> None:
    for seed in range(3):
        compare(seed, "portfolio", changes, random_directives=seed == 1, **partitioned(seed))


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_the_compiled_step_equals_the_tensor_code_for_many_partitions(changes: dict[str, Any]) -> None:
    for seed in range(100, 116):
        compare(seed, "portfolio", changes, **partitioned(seed))


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_the_compiled_step_equals_the_tensor_code_over_thousands_of_episodes(
    mode: Mode, changes: dict[str, Any]
) -> None:
    for seed in range(100, 116):
        compare(seed, mode, changes, episodes=2)


@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_the_tensor_code_keeps_the_protocol_on_a_cpu_too(mode: Mode) -> None:
    check_environment(lambda: make(1, mode, "plain", NERVOUS, num_envs=5), steps=30)


@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_threads_change_no_bit(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marl_pipeline.envs.trading.compiled.engine.THREAD_SHARE", 1)
    threads = torch.get_num_threads()
    steps = []
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            env = make(2, mode, "compiled", {}, num_envs=11)
            env.reset()
            generator = torch.Generator().manual_seed(0)
            for _ in range(16):
                chosen = torch.randint(7, (11, 9), generator=generator)
                step = env.step({"symbols": chosen, "master": torch.full((11, 1), 40)})
            steps.append(tensors_of(step) | env.book.tensors())
        finally:
            torch.set_num_threads(threads)
    check_equal(*steps, "threads change the step")


def test_a_failure_waits_for_the_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """They write into the memory of the step, which the next step may be given."""
    monkeypatch.setattr("marl_pipeline.envs.trading.compiled.engine.THREAD_SHARE", 1)
    monkeypatch.setattr("marl_pipeline.envs.trading.compiled.engine.PIECE", 1)
    monkeypatch.setattr("marl_pipeline.envs.trading.compiled.engine.HEAD_START", 0)
    caller, writing, finished = threading.current_thread(), threading.Event(), threading.Event()

    def work(first: int, last: int, memory: Memory) -> int:
        if threading.current_thread() is caller:
            assert writing.wait(10)
            raise MemoryError
        writing.set()
        time.sleep(0.2)
        finished.set()
        return 0

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine = make(2, "portfolio", "compiled", {}, num_envs=2)._engine
        assert isinstance(engine, CompiledEngine)
        with pytest.raises(MemoryError):
            engine._share_out(2, work)
    finally:
        torch.set_num_threads(threads)
    assert finished.is_set()


def test_logarithms_are_right_to_two_units_in_the_last_place() -> None:
    rng = np.random.default_rng(0)
    near, far = 1.0 + rng.normal(0.0, 0.02, 200_000).clip(-0.9), np.exp(rng.uniform(-700.0, 700.0, 200_000))
    ratios = np.concatenate([near, far, [1.0, np.nextafter(1.0, 0.0), np.nextafter(1.0, 2.0), 0.5**0.5, 2.0**0.5]])
    w = Sums.empty(1, len(ratios))
    w.ratio[:] = ratios
    _log(w.ratio_bits, w.log, w.log_bits, w.exponent)
    expected = np.log(ratios)
    assert (np.abs(w.log - expected) <= 2.0 * np.spacing(np.abs(expected))).all()


def test_an_action_that_is_none_is_refused_and_nothing_happens() -> None:
    env = make(3, "portfolio", "compiled", {}, num_envs=2)
    env.reset()
    before = env.book
    for wrong in (7, -1):
        actions = {"symbols": torch.zeros(2, 9, dtype=torch.int64), "master": torch.zeros(2, 1, dtype=torch.int64)}
        actions["symbols"][1, 3] = wrong
        with pytest.raises(ValueError, match=r"must be 0\.\.6, found 1 others"):
            env.step(actions)
    assert env.book is before
