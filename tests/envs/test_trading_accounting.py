"""Properties on random and hostile markets: the accounting identity, the limits, no money from nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from tests.envs.markets import hostile, market_params

LIMITS = st.fixed_dictionaries(
    {
        "position": st.sampled_from([0.02, 0.2, 1.0]),
        "open_positions": st.sampled_from([1, 3, 50]),
        "min_cash": st.sampled_from([0.0, 0.1, 0.9]),
        "gross_leverage": st.sampled_from([0.5, 1.0]),
        "trades_per_day": st.sampled_from([1, 2, 50]),
        "turnover_per_day": st.sampled_from([0.1, 0.7, 2.0]),
        "portfolio_drawdown": st.sampled_from([0.02, 0.2, 1.0]),
        "account_drawdown": st.sampled_from([0.02, 0.2, 1.0]),
        "cool_down": st.sampled_from([1, 3, 20]),
        "impact": st.sampled_from([0.0, 0.1, 20.0]),
        "participation": st.sampled_from([0.01, 1.0]),
        "commission_bps_round_trip": st.sampled_from([0.0, 15.0, 900.0]),
        "cash_rate": st.sampled_from([0.0, 0.1]),
    }
)


def play(
    seed: int, mode: Mode, changes: dict[str, Any], envs: int, size: int, bars: int, *, segments: int | None = None
) -> None:
    rng = np.random.default_rng(seed)
    params = market_params(**changes)
    market = Market.from_panel(hostile(rng, bars, size, int(rng.choice([1, 3]))), params)
    directives = load_params().train_master.directives
    settings: dict[str, Any] = {} if segments is None else segmented(rng, size, segments)
    env = TradingEnv(market, params, directives, mode=mode, num_envs=envs, span=Span(0, bars), seed=seed, **settings)
    generator = torch.Generator().manual_seed(seed)
    env.reset()
    odds = torch.tensor(rng.dirichlet(np.ones(7)), dtype=torch.float32).expand(envs * size, 7)
    for _ in range(bars - 1):
        drawn = torch.multinomial(odds, 1, generator=generator).view(envs, size)
        master = torch.randint(48, (envs, env.game.accounts), generator=generator)
        before, caps, slots = env.book, env._view.caps, env._view.directive.slots
        env.step({"symbols": drawn, "master": master})
        check_step(env, before, caps, slots)


def segmented(rng: np.random.Generator, size: int, accounts: int) -> dict[str, Any]:
    """A random partition of the symbols into portfolios, and their capital."""
    table = np.concatenate([np.arange(accounts), rng.integers(accounts, size=size - accounts)])
    return {"account_of": rng.permutation(table), "capital": rng.lognormal(10.0, 2.0, accounts)}


def check_step(env: TradingEnv, before: Any, caps: torch.Tensor, slots: torch.Tensor | None) -> None:
    rules, book, ledger, limits = env.rules, env.book, env.ledger, env.params.limits
    assert ledger is not None
    gain = rules.pool(ledger.price_pnl - ledger.commission - ledger.slippage) - ledger.borrow + ledger.interest
    size = torch.maximum(before.equity, ledger.equity).abs() + rules.pool((ledger.shares * ledger.price).abs())
    size = size + ledger.gross + rules.pool(before.value.abs())
    assert bool(((ledger.equity - before.equity - gain).abs() <= 1e-11 * size).all()), "identity"
    assert bool((ledger.slippage >= 0).all())
    assert bool((ledger.commission >= 0).all())
    if not rules.leveraged:
        assert bool((book.cash >= 0).all()), "cash"
        assert not bool(ledger.borrow.any())
    if not rules.shorting:
        assert bool((book.shares >= 0).all()), "shares"
    worth = book.cash.abs() + rules.pool(book.value.abs())
    assert bool(((book.equity - book.cash - rules.pool(book.value)).abs() <= 1e-12 * worth).all())
    assert torch.equal(ledger.gross, rules.pool(book.value.abs()))
    assert bool((before.shares * book.shares >= 0).all()), "a fill across zero"

    at_fill = book.shares.abs() * ledger.price
    equity = ledger.cash + rules.pool(book.shares * ledger.price)
    grown = book.shares.abs() > before.shares.abs()
    each = rules.spread
    assert bool((~grown | (at_fill <= each(caps * equity))).all()), "position cap"
    any_grown = rules.pool(grown.float()) > 0
    assert bool((~any_grown | (rules.pool(at_fill) <= rules.exposure * equity)).all()), "exposure"
    if slots is not None:
        was, now = before.shares != 0, book.shares != 0
        opened = rules.partition.count(now & ~was) > 0
        count = rules.partition.count(was | now)
        assert bool((~opened | (count <= slots)).all()), "open positions"
    forced = (before.halt == rules.liquidating) | (rules.pool(ledger.closed.float()) > 0)
    turnover_left = (limits.turnover_per_day - before.turnover).clamp(min=0) * ledger.fill_equity
    exempt = forced | torch.full_like(forced, rules.leveraged)  # liquidation, a closed symbol, deleveraging
    assert bool((exempt | (ledger.notional <= turnover_left * (1 + 1e-9) + 1e-9)).all()), "turnover"
    assert bool((book.trades <= limits.trades_per_day).all()), "trades"
    capacity = env.market.capacity[before.bar]
    assert bool((ledger.closed | (ledger.shares.abs() <= capacity * (1 + 1e-12))).all()), "participation"
    fillable = env.market.fillable[book.bar]
    assert bool((ledger.closed | fillable | (ledger.shares == 0)).all()), "a trade where nothing fills"
    cooling = each(before.halt > rules.cool_down).expand_as(grown)
    assert not bool((grown & cooling).any()), "a position grows while the kill switch is on"


@pytest.mark.parametrize("allow_short", [False, True])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), mode=st.sampled_from(["accounts", "portfolio"]), changes=LIMITS)
def test_identity_and_limits_hold_on_hostile_markets(
    allow_short: bool, seed: int, mode: Mode, changes: dict[str, Any]
) -> None:
    play(seed, mode, {**changes, "allow_short": allow_short}, envs=8, size=12, bars=40)


@pytest.mark.parametrize("allow_short", [False, True])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), segments=st.integers(2, 12), changes=LIMITS)
def test_identity_and_limits_hold_for_every_portfolio_of_a_partition(
    allow_short: bool, seed: int, segments: int, changes: dict[str, Any]
) -> None:
    play(seed, "portfolio", {**changes, "allow_short": allow_short}, envs=8, size=12, bars=40, segments=segments)


@pytest.mark.parametrize("allow_short", [False, True])
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), changes=LIMITS)
def test_identity_and_limits_hold_with_leverage(allow_short: bool, seed: int, changes: dict[str, Any]) -> None:
    changes = {**changes, "gross_leverage": 2.0, "borrow_rate": 0.5, "allow_short": allow_short}
    play(seed, "portfolio", changes, envs=8, size=12, bars=40)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_identity_and_limits_hold_over_a_million_symbol_steps(seed: int) -> None:
    mode: Mode = "accounts" if seed % 2 else "portfolio"
    play(seed, mode, {"allow_short": seed % 4 > 1}, envs=32, size=40, bars=150)
