"""Accounts by segment: portfolios of some symbols each, beside one another in one environment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.conformance import check_environment, check_equal, tensors_of
from marl_pipeline.envs.trading.core.accounts import Ledger
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Partition
from marl_pipeline.envs.trading.env import TradingEnv
from tests.envs.markets import hostile, market_params
from tests.envs.test_trading_accounting import LIMITS, segmented

BARS, SIZE, ENVS = 30, 9, 6
MONEY = ("cash", "equity", "peak", "invested", "value")
DIRECTIVES = load_params().train_master.directives


def sector_env(cpu_step: str = "plain", **options: Any) -> TradingEnv:
    """Three sectors of four, two and one symbols on a hostile market."""
    changes = options.pop("changes", {})
    params = market_params(cpu_step=cpu_step, portfolio_drawdown=0.1, cool_down=3, **changes)
    market = Market.from_panel(hostile(np.random.default_rng(5), 80, 7, 2), params)
    given = {"num_envs": 6, "span": Span(10, 70), "episode": 12, "seed": 3, "account_of": [0, 1, 0, 2, 1, 0, 0]}
    return TradingEnv(market, params, DIRECTIVES, **(given | options))


def columns(market: Market, members: Tensor) -> Market:
    """The market of some symbols alone."""
    tables = ("mark", "tradable", "fill", "fillable", "gone", "capacity", "impact")
    names = tuple(market.symbols[n] for n in members.tolist())
    return replace(market, symbols=names, **{name: getattr(market, name)[:, members].contiguous() for name in tables})


def close(name: str, found: Tensor, wanted: Tensor, scale: Tensor, rounding: float) -> None:
    """Choices exactly, money and shares to `rounding` of the account's size [E, 1], what is observed to float32."""
    assert found.shape == wanted.shape, name
    if found.dtype == torch.float64:
        assert bool(((found - wanted).abs() <= rounding * torch.maximum(scale, wanted.abs())).all()), name
    elif found.dtype == torch.float32:
        assert torch.allclose(found, wanted, rtol=1e-5, atol=0.0 if rounding == 0.0 else 1e-5), name
    else:
        assert torch.equal(found, wanted), name


def compare(seed: int, cpu_step: str, accounts: int, changes: dict[str, Any], rounding: float) -> None:
    """Plays portfolios in one environment, and each in an environment of its own, by the same choices."""
    rng = np.random.default_rng(seed)
    params = market_params(cpu_step=cpu_step, volume_window=3, **changes)
    market = Market.from_panel(hostile(rng, BARS, SIZE, int(rng.choice([1, 3]))), params)
    split, common = segmented(rng, SIZE, accounts), {"num_envs": ENVS, "span": Span(0, BARS)}
    whole = TradingEnv(market, params, DIRECTIVES, **split, **common)
    members = [torch.from_numpy(np.flatnonzero(split["account_of"] == a)) for a in range(accounts)]
    alone = [
        TradingEnv(
            columns(market, own),
            market_params(cpu_step=cpu_step, volume_window=3, **changes, initial_cash=float(money)),
            DIRECTIVES,
            mode="portfolio",
            **common,
        )
        for own, money in zip(members, split["capital"], strict=True)
    ]
    generator = torch.Generator().manual_seed(seed)
    odds = torch.tensor(rng.dirichlet(np.ones(7)), dtype=torch.float32).expand(ENVS * SIZE, 7)
    step, steps = whole.reset(), [env.reset() for env in alone]
    for _ in range(BARS - 1):
        drawn = torch.multinomial(odds, 1, generator=generator).view(ENVS, SIZE)
        master = torch.randint(48, (ENVS, accounts), generator=generator)
        step = whole.step({"symbols": drawn, "master": master})
        for a, (env, own) in enumerate(zip(alone, members, strict=True)):
            steps[a] = env.step({"symbols": drawn[:, own], "master": master[:, a : a + 1]})
            assert env.ledger is not None
            scale = env.book.equity.abs() + env.ledger.gross + float(split["capital"][a])
            same_books(whole, env, own, a, scale, rounding)
            same_groups(step, steps[a], own, a, rounding)
            for name, figure in steps[a].info.items():
                close(name, step.info[name][:, a], figure, scale.squeeze(-1), rounding)
        assert torch.equal(step.truncated, steps[0].truncated)


def same_books(whole: TradingEnv, env: TradingEnv, own: Tensor, a: int, scale: Tensor, rounding: float) -> None:
    book, ledger = whole.book, whole.ledger
    assert ledger is not None
    assert env.ledger is not None
    for name, wanted in env.book.tensors().items():
        found = getattr(book, name)
        part = found if found.dim() == 1 else found[:, own] if found.shape[1] == SIZE else found[:, a : a + 1]
        if name == "shares":
            part, wanted = part * env.book.mark, wanted * env.book.mark
        close(name, part, wanted, scale if wanted.dim() > 1 else scale.squeeze(-1), rounding)
    per_symbol = ("shares", "price", "commission", "slippage", "price_pnl", "closed", "paid", "holding", "value")
    for name in Ledger._fields:
        found, wanted = getattr(ledger, name), getattr(env.ledger, name)
        part = found[:, own] if name in per_symbol else found[:, a : a + 1]
        if name in ("shares", "holding"):
            part, wanted = part * env.ledger.price, wanted * env.ledger.price
        close(name, part, wanted, scale, rounding)


def same_groups(step: Any, alone: Any, own: Tensor, a: int, rounding: float) -> None:
    nothing = torch.zeros(ENVS, 1)
    for group, agents in (("symbols", own), ("master", torch.tensor([a]))):
        found, wanted = step.groups[group], alone.groups[group]
        for name in ("action_mask", "acts", "present", "reward", "discount"):
            close(name, getattr(found, name)[:, agents], getattr(wanted, name), nothing, rounding)
        for name, field in wanted.observation.items():
            if name != "symbol":
                close(name, found.observation[name][:, agents], field, nothing, rounding)
    width = alone.state.shape[1]
    close("state", step.state[:, a * width : (a + 1) * width], alone.state, nothing, rounding)


@pytest.mark.parametrize("allow_short", [False, True])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), accounts=st.integers(2, SIZE - 1), changes=LIMITS)
def test_portfolios_in_one_environment_are_those_of_environments_of_their_own(
    allow_short: bool, seed: int, accounts: int, changes: dict[str, Any]
) -> None:
    compare(seed, "plain", accounts, {**changes, "allow_short": allow_short}, rounding=1e-12)


@pytest.mark.parametrize("allow_short", [False, True])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), accounts=st.integers(2, SIZE - 1), changes=LIMITS)
def test_the_compiled_step_plays_them_bit_for_bit(
    allow_short: bool, seed: int, accounts: int, changes: dict[str, Any]
) -> None:
    compare(seed, "compiled", accounts, {**changes, "allow_short": allow_short}, rounding=0.0)


@pytest.mark.parametrize("cpu_step", ["plain", "compiled"])
def test_an_environment_of_sectors_keeps_the_protocol(cpu_step: str) -> None:
    check_environment(lambda: sector_env(cpu_step), steps=60)
    check_environment(lambda: sector_env(cpu_step, random_directives=True), steps=30)


@pytest.mark.parametrize("reward", ["guide_v3_2", "net_shaped"])
def test_shaped_rewards_are_paid_in_sectors(reward: str) -> None:
    changes = {"reward": reward, "master_reward": "risk_adjusted"}
    check_environment(lambda: sector_env(changes=changes), steps=30)


def test_the_two_modes_are_values_of_the_table() -> None:
    generator = torch.Generator().manual_seed(0)
    for mode, table in (("accounts", range(7)), ("portfolio", [0] * 7)):
        named, tabled = sector_env(mode=mode, account_of=None), sector_env(account_of=list(table))
        named.reset(), tabled.reset()
        for _ in range(12):
            actions = {"symbols": torch.randint(7, (6, 7), generator=generator), "master": torch.full((6, 1), 40)}
            check_equal(tensors_of(named.step(actions)), tensors_of(tabled.step(actions)), mode)


def test_every_account_has_a_master_and_a_share_of_the_cash() -> None:
    env = sector_env()
    step = env.reset()
    assert env.groups["master"].agents == 3
    assert step.state.shape == (6, env.state_size)
    assert env.book.cash[0].tolist() == pytest.approx([env.params.initial_cash / 3] * 3)
    assert sector_env(capital=[1.0, 2.0, 3e6]).book.equity[0].tolist() == [1.0, 2.0, 3e6]
    with pytest.raises(ValueError, match=r"actions of 'master' must be \[6, 3\], found \(6, 1\)"):
        env.step({"symbols": torch.zeros(6, 7, dtype=torch.int64), "master": torch.zeros(6, 1, dtype=torch.int64)})


def test_what_is_no_partition_is_refused() -> None:
    for table, wrong in (
        ([0, 1, 0], r"must be \[7\] whole numbers"),
        ([0.0] * 7, "must be .7. whole numbers"),
        ([0, 2, 0, 2, 2, 0, 0], r"with a symbol in each, found \[0, 2\]"),
        ([0, -1, 0, 1, 1, 0, 0], "must number the accounts"),
    ):
        with pytest.raises(ValueError, match=wrong):
            sector_env(account_of=table)
    with pytest.raises(ValueError, match="every symbol has an account of its own"):
        sector_env(account_of=[0, 0, 1, 2, 3, 4, 5], mode="accounts")
    with pytest.raises(ValueError, match="either mode or account_of"):
        sector_env(account_of=None)
    for capital in ([1.0, 2.0], [1.0, 0.0, 1.0], [1.0, float("nan"), 1.0]):
        with pytest.raises(ValueError, match=r"capital must be \[3\] positive amounts"):
            sector_env(capital=capital)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_sums_repeats_and_rows_follow_the_table(table: list[int], seed: int) -> None:
    account_of = np.unique(table, return_inverse=True)[1]
    partition = Partition.of(account_of, len(table), "portfolio", "cpu")
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, len(table))))
    names = [[n for n, account in enumerate(account_of) if account == a] for a in range(partition.accounts)]
    for a, own in enumerate(names):
        assert torch.allclose(partition.pool(values)[:, a], values[:, own].sum(-1), rtol=0.0, atol=1e-14)
        assert torch.equal(partition.count(values > 0.0)[:, a], (values[:, own] > 0.0).sum(-1))
        assert torch.equal(partition.largest(values.abs())[:, a], values[:, own].abs().amax(-1))
        assert partition.order[partition.bounds[a] : partition.bounds[a + 1]].tolist() == own
    assert partition.sizes.tolist() == [len(own) for own in names]
    numbers = torch.arange(partition.accounts).expand(3, -1)
    assert torch.equal(partition.spread(numbers).expand(3, len(table)), torch.from_numpy(account_of).expand(3, -1))
    assert torch.equal(partition.symbols(partition.rows(values)), values)
