"""Answers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import Panel
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.trading.core.actions import Action
from marl_pipeline.envs.trading.core.costs import slippage_rate
from marl_pipeline.envs.trading.core.limits import unpacked
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from tests.envs.markets import market_params, panel

HOLD, LARGE, PARTIAL, ALL, ADD = (
    Action.HOLD,
    Action.BUY_LARGE,
    Action.SELL_PARTIAL,
    Action.SELL_ALL,
    Action.ADD_TO_WINNER,
)


def game(data: Panel, params: MarketParams, mode: Mode = "accounts") -> TradingEnv:
    env = TradingEnv(Market.from_panel(data, params), params, mode=mode, num_envs=1, span=Span(0, len(data.timestamps)))
    env.reset()
    return env


def play(env: TradingEnv, *actions: int) -> list[float]:
    """Every symbol does the same; equity of the first account after each step."""
    after = []
    for action in actions:
        env.step({"symbols": torch.full((1, env.market.size), int(action))})
        after.append(equity(env))
    return after


def equity(env: TradingEnv) -> float:
    return float(env.book.equity[0, 0])


def column(*values: float) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)[:, None]


def test_a_round_trip_at_a_constant_price_loses_exactly_the_costs() -> None:
    params = market_params(slippage_bps=1.0, commission_bps_round_trip=15.0)
    env = game(panel(np.full((4, 2), 20.0)), params)
    rate = 7.5e-4 + 1e-4
    bought = 100_000 / (1 + rate)  # all of the cash, costs included
    after = play(env, LARGE, ALL)
    assert after[0] == pytest.approx(bought, rel=1e-8)
    assert after[1] == pytest.approx(bought * (1 - rate), rel=1e-8)
    assert float(env.book.shares.sum()) == 0.0


def test_buy_and_hold_equals_the_price_index_less_one_entry_cost() -> None:
    close = column(10, 11, 12, 9, 15)
    env = game(panel(close, opened=close * 0.99), market_params(account_drawdown=1.0))
    after = play(env, LARGE, HOLD, HOLD, HOLD)
    # 10,000 shares were ordered at the close of 10; the open is 10.89 and cash pays for fewer
    shares = 100_000 / (10.89 * (1 + 8.5e-4))
    assert after == pytest.approx([shares * price for price in (11, 12, 9, 15)], rel=1e-8)


def test_an_order_is_sized_at_the_close_before_the_fill() -> None:
    close = column(10, 8, 8)
    env = game(panel(close, opened=close), market_params())
    play(env, LARGE)
    assert float(env.book.shares[0, 0]) == pytest.approx(10_000)  # 100,000 / 10, though 8 would buy more
    assert float(env.book.cash[0, 0]) == pytest.approx(100_000 - 80_000 * (1 + 8.5e-4))


def test_close_only_orders_fill_at_the_next_close_and_earn_from_then_on() -> None:
    env = game(panel(column(10, 20, 30)), market_params(commission_bps_round_trip=0.0, slippage_bps=0.0))
    assert play(env, LARGE, HOLD) == pytest.approx([100_000, 150_000])


def test_a_large_order_is_filled_in_parts() -> None:
    params = market_params(participation=0.1, volume_window=2, impact=0.0)
    env = game(panel(np.full((5, 1), 10.0), volume=column(30_000, 10_000, 10_000, 0, 0)), params)
    filled = []
    for _ in range(4):
        play(env, LARGE)
        assert env.ledger is not None
        filled.append(float(env.ledger.shares[0, 0]))
    # 10% of the trailing means 30,000; 20,000; 10,000; 5,000
    assert filled == pytest.approx([3000, 2000, 1000, 500])


def test_one_large_order_pays_more_impact_than_four_small_ones() -> None:
    params = market_params(impact=0.1, slippage_bps=0.0)
    assert slippage_rate(params, 0.02, 0.04) == pytest.approx(0.1 * 0.02 * 0.2)
    large = 0.04 * slippage_rate(params, 0.02, 0.04)
    small = 4 * 0.01 * slippage_rate(params, 0.02, 0.01)
    assert large / small == pytest.approx(2.0)


def test_one_large_order_costs_the_impact_of_eight_quarters() -> None:
    """Four quarters cost half of the whole: each a quarter of the notional at half of the rate."""
    params = market_params(volume_window=1, participation=1.0, impact=0.1, slippage_bps=0.0, account_drawdown=1.0)
    close = column(*np.cumprod([10.0, 1.01, 0.99, 1.01, 0.99, 1.01]))  # a bar's volatility is 1%, up or down
    data = panel(close, volume=np.full((6, 1), 1e6))
    paid = {}
    for name, actions in (("large", [LARGE]), ("small", [Action.BUY_SMALL] * 4)):
        env, shares = game(data, params), []
        play(env, HOLD)
        paid[name] = 0.0
        for action in actions:
            play(env, action)
            assert env.ledger is not None
            shares.append(float(env.ledger.shares[0, 0]))
            notional = shares[-1] * float(env.ledger.price[0, 0])
            assert float(env.ledger.slippage[0, 0]) == pytest.approx(notional * 1e-3 * math.sqrt(shares[-1] / 1e6))
            paid[name] += float(env.ledger.slippage[0, 0])
        assert sum(shares) == pytest.approx(10_000, rel=0.02)
    assert paid["large"] / paid["small"] == pytest.approx(2.0, rel=0.02)


def test_the_simulator_charges_the_square_root_law() -> None:
    params = market_params(volume_window=20, participation=0.5, impact=0.1, slippage_bps=1.0)
    close = column(10.0, 10.1, 10.1, 10.1)
    env = game(panel(close, volume=np.full((4, 1), 50_000.0)), params)
    play(env, HOLD, LARGE)
    assert env.ledger is not None
    shares = float(env.ledger.shares[0, 0])
    rate = 1e-4 + 0.1 * 0.01 * math.sqrt(shares / 50_000)  # one return of 1% so far: volatility 1%
    assert float(env.ledger.slippage[0, 0]) == pytest.approx(shares * 10.1 * rate, rel=1e-9)


def test_margin_debit_is_charged_for_the_weekend() -> None:
    params = market_params(
        gross_leverage=2.0, position=0.75, borrow_rate=0.365, commission_bps_round_trip=0.0, slippage_bps=0.0
    )
    data = panel(np.full((8, 2), 10.0), start="2024-01-04")  # Thursday, Friday, Monday, Tuesday
    env = game(data, params, "portfolio")
    after = play(env, LARGE, HOLD, HOLD)
    assert after[0] == pytest.approx(100_000)  # bought on Friday: 150,000 on 100,000
    assert float(env.book.shares.sum()) * 10 == pytest.approx(150_000)
    assert after[1] == pytest.approx(100_000 - 3 * 50, abs=1e-3)  # 50,000 x 0.365 / 365 a day
    assert after[2] == pytest.approx(after[1] - 50.15, abs=1e-3)


def test_a_book_beyond_its_leverage_is_brought_back_at_the_next_fill() -> None:
    params = market_params(
        gross_leverage=2.0, position=1.0, portfolio_drawdown=1.0, commission_bps_round_trip=0.0, slippage_bps=0.0
    )
    env = game(panel(np.column_stack([column(10, 10, 8, 8, 8)] * 2)), params, "portfolio")
    after = play(env, LARGE, HOLD)
    assert after[1] == pytest.approx(60_000, rel=1e-3)  # 160,000 held: leverage 2.67
    after = play(env, HOLD)
    assert float(env.book.value.sum()) / after[0] == pytest.approx(2.0, rel=1e-3)


def test_cash_earns_interest_by_the_calendar_day() -> None:
    env = game(panel(np.full((3, 1), 10.0), start="2024-01-05"), market_params(cash_rate=0.0365))
    assert play(env, HOLD, HOLD) == pytest.approx([100_000 * 1.0003, 100_000 * 1.0003 * 1.0001])


def test_a_halted_symbol_is_frozen_and_sold_when_it_is_back() -> None:
    close = column(10, 10, math.nan, math.nan, 8, 8)
    env = game(panel(close), market_params(commission_bps_round_trip=0, slippage_bps=0, account_drawdown=1.0))
    play(env, LARGE)
    assert play(env, ALL, ALL) == pytest.approx([100_000, 100_000])  # no fill on the way, marked at the last price
    assert unpacked(env._view.allowed)[0, 0].tolist() == [True] + [False] * 6
    assert float(env.book.shares[0, 0]) > 0
    assert play(env, HOLD)[0] == pytest.approx(80_000)
    play(env, ALL)
    assert float(env.book.shares[0, 0]) == 0.0


def test_a_position_in_a_symbol_that_is_gone_is_closed_at_its_last_price() -> None:
    close = column(10, 12, *[math.nan] * 7)
    env = game(panel(close), market_params(commission_bps_round_trip=20.0, slippage_bps=0.0))
    after = play(env, LARGE, *[HOLD] * 7)
    assert after[3] == pytest.approx(after[0])
    closed_at = next(k for k in range(1, 8) if after[k] < after[k - 1])
    assert closed_at == 5  # five sessions after its last bar
    assert after[5] == pytest.approx(after[0] * (1 - 1e-3))
    assert float(env.book.shares[0, 0]) == 0.0
    assert not bool(env.step({"symbols": torch.full((1, 1), int(LARGE))}).info["executed"].any())


@pytest.mark.parametrize("opens", [True, False])
def test_a_position_that_leaves_the_index_is_sold_at_its_next_price(opens: bool) -> None:
    """Bought at 10, in the index up to the bar at 12; 100,000 become 90,000 at an open of 9 (110,000 at a close of 11),
    less 10 basis points."""
    close = column(10, 10, 12, 11, 20, 20)
    opened = column(10, 10, 12, 9, 20, 20)
    inside = column(1, 1, 1, 0, 0, 0).astype(bool)
    params = market_params(
        commission_bps_round_trip=20.0, slippage_bps=0.0, account_drawdown=1.0, portfolio_drawdown=1.0
    )
    env = game(panel(close, opened=opened if opens else None, tradable=inside), params)
    after = play(env, LARGE, HOLD, HOLD, HOLD)
    shares = 100_000 / (10 * 1.001)
    price = 9.0 if opens else 11.0
    assert after[1] == pytest.approx(shares * 12, rel=1e-6)
    assert after[2] == pytest.approx(shares * price * 0.999, rel=1e-6)
    assert after[3] == after[2], "what it does after it left is no longer ours"
    assert float(env.book.shares[0, 0]) == 0.0


def test_a_position_that_leaves_the_index_on_a_day_without_a_bar_waits_for_one() -> None:
    close = column(10, 10, math.nan, 14, 20)
    inside = column(1, 1, 0, 0, 0).astype(bool)
    params = market_params(commission_bps_round_trip=0.0, slippage_bps=0.0)
    after = play(game(panel(close, tradable=inside), params), LARGE, HOLD, HOLD, HOLD)
    assert after == pytest.approx([100_000, 100_000, 140_000, 140_000])


def test_the_kill_switch_liquidates_cools_down_and_lets_back_in_small() -> None:
    free = {"commission_bps_round_trip": 0.0, "slippage_bps": 0.0}
    params = market_params(account_drawdown=0.25, cool_down=2, reentry_scale=0.5, **free)
    close = column(100, 100, 70, 60, 50, 50, 50, 50, 50, 50)
    env = game(panel(close), params)
    held, events = [], []
    for _ in range(8):
        step = env.step({"symbols": torch.full((1, 1), int(LARGE))})
        held.append(float(env.book.value[0, 0]))
        events.append((bool(step.info["kill_switch"][0, 0]), bool(step.info["reentry"][0, 0])))
    # 100,000 -> 70,000 trips at the mark of bar 2; sold at 60; flat for two decisions; back with half
    assert held == pytest.approx([100_000, 70_000, 0, 0, 0, 30_000, 30_000, 60_000], rel=1e-6)
    assert [k for k, (tripped, _) in enumerate(events) if tripped] == [1]
    assert [k for k, (_, back) in enumerate(events) if back] == [4]


def test_a_winner_is_added_to_and_a_loser_is_not() -> None:
    free = {"commission_bps_round_trip": 0.0, "slippage_bps": 0.0, "account_drawdown": 1.0}
    for price, allowed in ((11.0, True), (9.0, False)):
        env = game(panel(column(10, 10, price, price, price)), market_params(**free))
        play(env, Action.BUY_SMALL, HOLD)
        assert bool(unpacked(env._view.allowed)[0, 0, int(ADD)]) == allowed
        before = float(env.book.shares[0, 0])
        play(env, ADD)
        expected = 0.25 * equity(env) / price if allowed else 0.0
        assert float(env.book.shares[0, 0]) - before == pytest.approx(expected)


def test_a_partial_sale_that_would_leave_dust_sells_all() -> None:
    env = game(panel(np.full((20, 1), 10.0)), market_params())
    play(env, LARGE, *[PARTIAL] * 11)
    assert float(env.book.shares[0, 0]) == 0.0


def test_cash_is_shared_pro_rata() -> None:
    params = market_params(position=0.8, commission_bps_round_trip=0.0, slippage_bps=0.0)
    env = game(panel(np.full((3, 4), 10.0)), params, "portfolio")
    play(env, LARGE)
    assert env.book.value[0].tolist() == pytest.approx([25_000] * 4)


def test_what_a_sale_brings_pays_for_a_buy_of_the_same_bar() -> None:
    params = market_params(position=1.0, commission_bps_round_trip=0.0, slippage_bps=0.0)
    env = game(panel(np.full((4, 2), 10.0)), params, "portfolio")
    env.step({"symbols": torch.tensor([[int(LARGE), int(HOLD)]])})
    env.step({"symbols": torch.tensor([[int(PARTIAL), int(LARGE)]])})
    # a full book masks buys: the funds of the sale are there from the next decision on
    assert env.book.value[0].tolist() == pytest.approx([50_000, 0])
    env.step({"symbols": torch.tensor([[int(PARTIAL), int(LARGE)]])})
    assert env.book.value[0].tolist() == pytest.approx([25_000, 75_000])


@pytest.mark.parametrize("allow_short", [False, True])
@pytest.mark.parametrize("initial_cash", [1e5, 2e7], ids=["small account", "larger than the market"])
@pytest.mark.parametrize("cpu_step", ["plain", "compiled"])
def test_the_future_moves_nothing_that_was_decided_before(
    cpu_step: str, initial_cash: float, allow_short: bool
) -> None:
    """From bar 25 on all prices and volumes are others: what was played up to the fills at 24 must not notice, nor,
    at 25, the shares filled where capacity, known at 24, is what limits them."""
    rng = np.random.default_rng(0)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (40, 3)), 0))
    volume = rng.lognormal(10, 1, close.shape)
    params = market_params(
        cpu_step=cpu_step, initial_cash=initial_cash, allow_short=allow_short, volume_window=3, turnover_per_day=1e6
    )
    seen, last = [], []
    for changes in (False, True):
        changed, noise = close.copy(), volume.copy()
        if changes:
            changed[25:] *= rng.lognormal(0, 0.5, changed[25:].shape)
            noise[25:] = rng.lognormal(2, 1, noise[25:].shape)
            changed[30:, 0] = math.nan
        env = game(panel(changed, volume=noise), params, "portfolio")
        generator = torch.Generator().manual_seed(1)
        steps = [env.step({"symbols": torch.randint(7, (1, 3), generator=generator)}) for _ in range(24)]
        seen.append(torch.cat([step.groups["symbols"].observation["position"] for step in steps]))
        assert env.ledger is not None
        play(env, LARGE)
        last.append(env.ledger.shares[0])
    assert torch.equal(seen[0], seen[1])
    if initial_cash > 1e6:  # every order is larger than its capacity, so that a look ahead at the volume would show
        assert bool((last[0] != 0).any())
        assert torch.allclose(last[0], last[1], rtol=1e-12)
