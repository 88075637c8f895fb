"""Short positions: answers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from marl_pipeline.data.dataset import Panel
from marl_pipeline.envs.trading.core.actions import Action
from marl_pipeline.envs.trading.core.limits import grant_slots, unpacked
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from tests.envs.markets import market_params, panel
from tests.envs.test_trading_known_answers import ADD, ALL, HOLD, LARGE, PARTIAL, column, equity, game, play

FREE = {"commission_bps_round_trip": 0.0, "slippage_bps": 0.0, "borrow_rate": 0.0}


@pytest.fixture(params=["plain", "compiled"])
def cpu_step(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def short_game(data: Panel, cpu_step: str, mode: Mode = "accounts", **changes: Any) -> TradingEnv:
    return game(data, market_params(**{"allow_short": True, "cpu_step": cpu_step} | changes), mode)


def allowed(env: TradingEnv) -> list[bool]:
    return list(unpacked(env._view.allowed)[0, 0].tolist())


def shares(env: TradingEnv) -> float:
    return float(env.book.shares[0, 0])


def test_a_round_trip_at_a_constant_price_loses_the_costs_and_the_fee_of_the_weekend(cpu_step: str) -> None:
    data = panel(np.full((4, 1), 20.0), start="2024-01-04")  # Thursday, Friday, Monday, Tuesday
    env = short_game(data, cpu_step, borrow_rate=0.365)
    rate = 7.5e-4 + 1e-4
    sold = 100_000 / (1 + rate)  # exposure is all of the equity that is left after costs
    after = play(env, ALL, LARGE, HOLD)
    assert after[0] == pytest.approx(100_000 - sold * rate, rel=1e-8)  # sold on Friday
    fee = 3 * 0.001 * sold
    assert after[1] == pytest.approx(after[0] - fee - sold * rate, rel=1e-8)  # bought back on Monday
    assert after[2] == after[1]
    assert shares(env) == 0.0
    assert float(env.book.invested[0, 0]) == 0.0


def test_a_falling_price_is_a_gain_and_a_rising_one_a_loss(cpu_step: str) -> None:
    env = short_game(panel(column(10, 10, 8, 11)), cpu_step, account_drawdown=1.0, **FREE)
    assert play(env, ALL, HOLD, HOLD) == pytest.approx([100_000, 120_000, 90_000])
    assert shares(env) == pytest.approx(-10_000)
    assert float(env.book.cash[0, 0]) == pytest.approx(200_000)  # the proceeds are there, and locked up
    assert env.book.value.tolist() == [[pytest.approx(-110_000)]]


def test_sell_partial_opens_a_small_short_and_sell_all_a_large_one(cpu_step: str) -> None:
    sizes = {}
    for action in (PARTIAL, ALL):
        env = short_game(panel(np.full((4, 1), 10.0)), cpu_step, **FREE)
        play(env, action)
        sizes[action] = shares(env)
    assert sizes[PARTIAL] == pytest.approx(-2500)  # the first of the entry sizes, 25%
    assert sizes[ALL] == pytest.approx(-10_000)


def test_sells_add_to_a_short_up_to_its_cap_and_buys_cover_parts_of_it(cpu_step: str) -> None:
    env = short_game(panel(np.full((12, 1), 10.0)), cpu_step, position=0.2, mode="portfolio", **FREE)
    held = []
    for action in (PARTIAL, PARTIAL, ALL, Action.BUY_SMALL, Action.BUY_MEDIUM, LARGE):
        play(env, action)
        held.append(shares(env))
    # a quarter of the cap of 2,000 shares, twice, then as much as the cap allows; back by 25%, 50% and all
    assert held == pytest.approx([-500, -1000, -2000, -1500, -750, 0])


def test_a_short_is_covered_as_capacity_allows_and_never_beyond_flat(cpu_step: str) -> None:
    volume = column(1e6, 30_000, 30_000, 30_000, 30_000, 1e6, 1e6)
    env = short_game(
        panel(np.full((7, 1), 10.0), volume=volume), cpu_step, volume_window=1, participation=0.1, impact=0.0, **FREE
    )
    held = []
    for action in (ALL, LARGE, LARGE, LARGE, LARGE, LARGE):
        play(env, action)
        held.append(shares(env))
    assert held == pytest.approx([-10_000, -7000, -4000, -1000, 0, 10_000])  # long only from flat


def test_a_squeeze_trips_the_kill_switch_and_the_short_is_bought_back(cpu_step: str) -> None:
    close = column(100, 100, 130, 140, 140, 140, 140, 140)
    env = short_game(panel(close), cpu_step, account_drawdown=0.25, cool_down=2, **FREE)
    after, held, tripped = [], [], []
    for _ in range(7):
        step = env.step({"symbols": torch.full((1, 1), int(ALL))})
        after.append(equity(env))
        held.append(shares(env))
        tripped.append(bool(step.info["kill_switch"][0, 0]))
    # 1,000 short at 100; 130 trips at 70,000; bought back at 140; two decisions flat; back with half
    assert after[:3] == pytest.approx([100_000, 70_000, 60_000], rel=1e-6)
    assert tripped == [False, True, False, False, False, False, False]
    assert held == pytest.approx([-1000, -1000, 0, 0, 0, -0.5 * 60_000 / 140, -0.5 * 60_000 / 140], rel=1e-6)


def test_a_short_that_outgrows_the_leverage_is_cut_at_the_next_fill(cpu_step: str) -> None:
    env = short_game(panel(column(10, 10, 11, 11, 11)), cpu_step, account_drawdown=1.0, **FREE)
    play(env, ALL, HOLD)
    assert float(env.book.value[0, 0]) == pytest.approx(-110_000)  # on an equity of 90,000
    after = play(env, HOLD)
    assert float(env.book.value[0, 0]) == pytest.approx(-90_000, rel=1e-6)
    assert after == pytest.approx([90_000], rel=1e-6)


def test_a_jump_beyond_the_equity_ends_the_account(cpu_step: str) -> None:
    env = short_game(panel(column(10, 10, 25, 25, 25)), cpu_step, **FREE)
    env.step({"symbols": torch.full((1, 1), int(ALL))})
    step = env.step({"symbols": torch.zeros(1, 1, dtype=torch.int64)})
    assert equity(env) == pytest.approx(-50_000, rel=1e-6)
    assert bool(step.terminated.all())
    assert step.groups["symbols"].discount.tolist() == [[0.0]]
    floor = math.log(1e-6) * env.params.reward_scale
    assert float(step.groups["symbols"].reward[0, 0]) == pytest.approx(floor, rel=1e-6)
    play(env, LARGE, LARGE)
    assert shares(env) == 0.0  # bought back, and nothing since


def test_a_short_in_a_symbol_that_is_gone_is_closed_at_its_last_price(cpu_step: str) -> None:
    close = column(10, 8, *[math.nan] * 7)
    env = short_game(panel(close), cpu_step, commission_bps_round_trip=20.0, slippage_bps=0.0, borrow_rate=0.0)
    after = play(env, ALL, *[HOLD] * 7)
    closed_at = next(k for k in range(1, 8) if after[k] < after[k - 1])
    assert closed_at == 5
    value = 10_000 * 8.0  # ordered at 10, filled at 8
    assert after[0] - after[5] == pytest.approx(value * 1e-3, rel=1e-6)
    assert shares(env) == 0.0


def test_a_winning_short_is_added_to_and_a_losing_one_is_not(cpu_step: str) -> None:
    for price, winning in ((9.0, True), (11.0, False)):
        env = short_game(panel(column(10, 10, price, price, price)), cpu_step, account_drawdown=1.0, **FREE)
        play(env, PARTIAL, HOLD)
        assert allowed(env)[int(ADD)] == winning
        before = shares(env)
        play(env, ADD)
        expected = -0.25 * equity(env) / price if winning else 0.0
        assert shares(env) - before == pytest.approx(expected, rel=1e-6)


def test_a_short_is_refused_by_mask_and_by_execution_unless_allowed(cpu_step: str) -> None:
    data = panel(np.full((4, 1), 10.0))
    env = game(data, market_params(cpu_step=cpu_step))
    assert allowed(env) == [True, True, True, True, False, False, False]
    play(env, ALL)
    assert env.executed.tolist() == [[int(HOLD)]]
    assert shares(env) == 0.0
    assert allowed(short_game(data, cpu_step)) == [True, True, True, True, True, True, False]


def test_the_proceeds_of_a_short_pay_for_no_long(cpu_step: str) -> None:
    """Long 150,000 and short 50,000 on 100,000 leave no cash, yet 50,000 are owed for the longs and 50,000 borrowed."""
    rates = {"borrow_rate": 0.365, "cash_rate": 0.0365, "commission_bps_round_trip": 0.0, "slippage_bps": 0.0}
    limits = {"gross_leverage": 2.0, "position": 0.75, "entry_sizes": (2 / 3, 1, 1)}
    data = panel(np.full((5, 3), 10.0), start="2024-01-05")  # Friday: bought on Monday
    env = short_game(data, cpu_step, "portfolio", **rates, **limits)
    env.step({"symbols": torch.tensor([[int(LARGE), int(LARGE), int(PARTIAL)]])})
    assert env.book.value[0].tolist() == pytest.approx([75_000, 75_000, -50_000])
    assert float(env.book.cash) == pytest.approx(30, abs=1e-3)  # three days of interest on 100,000
    play(env, HOLD)
    assert env.ledger is not None
    assert float(env.ledger.borrow) == pytest.approx((50_000 - 30) * 0.001 + 50_000 * 0.001, abs=1e-3)
    assert float(env.ledger.interest) == 0.0


def test_the_proceeds_of_a_short_earn_no_interest(cpu_step: str) -> None:
    env = short_game(panel(np.full((4, 1), 10.0)), cpu_step, **FREE | {"cash_rate": 0.0365})
    after = play(env, ALL, HOLD)
    assert float(env.book.cash[0, 0]) > 200_000  # the sale brought as much as there was
    assert env.ledger is not None
    assert float(env.ledger.interest) == pytest.approx(after[0] * 1e-4, rel=1e-6)


def test_open_positions_and_gross_count_both_sides(cpu_step: str) -> None:
    data = panel(np.full((4, 3), 10.0))
    env = short_game(data, cpu_step, "portfolio", position=0.5, open_positions=2, **FREE)
    step = env.step({"symbols": torch.tensor([[int(LARGE), int(ALL), int(PARTIAL)]])})
    assert env.book.value[0].tolist() == pytest.approx([50_000, -50_000, 0], rel=1e-6)
    assert float(step.info["gross"][0]) == pytest.approx(100_000, rel=1e-6)
    assert not unpacked(env._view.allowed)[0, 2, 1:].any()


def test_large_shorts_are_served_before_small_ones() -> None:
    action = torch.tensor([[int(PARTIAL), int(Action.BUY_MEDIUM), int(ALL)]])
    opening = torch.ones(1, 3, dtype=torch.bool)
    for slots, granted in ((1, [2]), (2, [1, 2]), (3, [0, 1, 2])):
        given = grant_slots(opening, action, torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[float(slots)]]))
        assert torch.nonzero(given[0]).flatten().tolist() == granted


def test_shaped_rewards_refuse_shorts() -> None:
    for reward in ("guide_v3_2", "net_shaped"):
        with pytest.raises(ValidationError, match="allow_short needs reward net"):
            market_params(allow_short=True, reward=reward)
