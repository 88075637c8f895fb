"""Rules trade in the one simulator: their accounts are those that their very orders leave in the plain reference."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.agents.rules import RULES, Inputs, Rule, rule
from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import Dataset, Panel, Signals
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.orders import Limits, TargetPortfolio, unlevered
from marl_pipeline.evaluation.rules import rule_accounts, trade_rule
from tests.envs.markets import hostile, market_params
from tests.envs.reference import PlainGame, PlainMarket
from tests.evaluation.evaluation_samples import dataset_of, signals_of

QUICK: dict[str, dict[str, Any]] = {
    "inverse_volatility": {"volatility_window": 4},
    "time_series_momentum": {"lookback": 8, "volatility_window": 4},
}
SPAN, STARTS = Span(10, 60), (10, 35)
MARKETS: dict[str, dict[str, Any]] = {
    "default": {},
    "costly": {"commission_bps_round_trip": 500.0, "impact": 5.0, "cash_rate": 0.5, "participation": 0.01},
    "thin": {"participation": 0.002, "slippage_bps": 30.0},
    "strict": {"open_positions": 2, "trades_per_day": 1, "turnover_per_day": 0.3, "min_cash": 0.1, "position": 0.4},
    "nervous": {"portfolio_drawdown": 0.02, "cool_down": 2, "gross_leverage": 2.0, "borrow_rate": 0.3},
}


def every_rule() -> dict[str, Rule]:
    return {name: rule(name, QUICK.get(name)) for name in RULES}


def case(seed: int, bars_per_session: int = 1) -> tuple[Dataset, Signals]:
    """A hostile market whose symbols vanish, pause and are thinly traded; the benchmark has a hole."""
    rng = np.random.default_rng(seed)
    dataset = dataset_of(hostile(rng, SPAN.stop, 5, bars_per_session))
    level = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, SPAN.stop)))
    level[: int(rng.integers(0, 15))] = np.nan
    return replace(dataset, benchmark=level), signals_of(dataset, rng.normal(0.1, 0.3, (SPAN.stop, 5)).clip(-0.6, 0.6))


class Remembered(PlainMarket):
    """The plain market with its slow look-ups kept."""

    def __init__(self, panel: Panel, params: MarketParams) -> None:
        super().__init__(panel, params)
        for name in ("last_tradable", "mark", "volume", "volatility", "date"):
            setattr(self, name, functools.cache(getattr(self, name)))


def replay(
    kind: Rule, dataset: Dataset, signals: Signals, params: MarketParams, limits: Limits, account: pd.DataFrame
) -> Counter[str]:
    """Plays `kind` bar by bar, hands its very orders to the plain reference, and holds `account` equal to what they
    leave there, to the cent. Returns what happened on the way."""
    panel = kind.panel(dataset)
    weights = kind.weights(Inputs(dataset, signals, params), SPAN, STARTS)
    environment = TargetPortfolio(Market.from_panel(panel, params), params, span=SPAN, limits=limits)
    environment.reset()
    own = unlevered(params, limits)
    plain = Remembered(panel, own)
    game = PlainGame(plain, True, SPAN.start, least=0.0 if limits == "none" else 0.001)
    (book,) = game.accounts
    seen: Counter[str] = Counter()
    close = {"rel": 1e-9, "abs": 1e-5}
    for row, target in enumerate(weights[:-1], start=1):
        assert environment.book.cash.min() >= -1e-6
        environment.step({"symbols": torch.from_numpy(target[None])})
        orders = environment.ordered[0].tolist()
        assert orders == pytest.approx(game.orders_for(target.tolist()), rel=1e-6, abs=1e-9)
        held = [game.held(book, n) for n in book.names]
        game.order(orders)
        equity = game.equity(book)
        line = account.iloc[row]
        assert line["equity"] == pytest.approx(equity, **close)
        assert line["exposure"] == pytest.approx(game.gross(book) / equity, rel=1e-9, abs=1e-9)
        ledger = environment.ledger
        assert ledger is not None
        assert line["commission"] == pytest.approx(float(ledger.commission.sum()), **close)
        assert line["slippage"] == pytest.approx(float(ledger.slippage.sum()), **close)
        assert float(environment.book.cash) == pytest.approx(book.cash, **close)
        for n in book.names:
            assert float(environment.book.shares[0, n]) == pytest.approx(game.held(book, n), rel=1e-9, abs=1e-12)
            traded = game.held(book, n) - held[n]
            closed = f"closed {n}" in book.events
            seen["orders"] += orders[n] != 0
            seen["vanished"] += closed
            seen["partial"] += not closed and 0 < abs(traded) < abs(orders[n]) * 0.999
            seen["missed"] += traded == 0 and orders[n] != 0
        seen["killed"] += "kill switch" in book.events
        seen["paid"] += line["commission"] > 0
    return seen


@pytest.mark.parametrize("limits", ["none", "market"])
@pytest.mark.parametrize("name", MARKETS)
@given(seed=st.integers(0, 1_000_000), bars_per_session=st.integers(1, 3))
@settings(max_examples=4, deadline=None)
def test_every_rule_earns_to_the_cent_what_its_orders_earn_in_the_simulator(
    name: str, limits: Limits, seed: int, bars_per_session: int
) -> None:
    params = market_params(volume_window=3, **MARKETS[name])
    dataset, signals = case(seed, bars_per_session)
    rules = every_rule()
    accounts = rule_accounts(rules, dataset, signals, params, SPAN, STARTS, limits=limits)
    for label, kind in rules.items():
        replay(kind, dataset, signals, params, limits, accounts[label])


def test_what_the_property_holds_equal_does_happen() -> None:
    seen: Counter[str] = Counter()
    rules = every_rule()
    orders = dict.fromkeys(rules, 0)
    for seed, changes in enumerate(MARKETS.values()):
        params = market_params(volume_window=3, **changes)
        dataset, signals = case(seed)
        accounts = rule_accounts(rules, dataset, signals, params, SPAN, STARTS, limits="market")
        for label, kind in rules.items():
            found = replay(kind, dataset, signals, params, "market", accounts[label])
            orders[label] += found["orders"]
            seen += found
    assert [label for label, count in orders.items() if count == 0] == ["cash"]
    assert min(seen[what] for what in ("vanished", "partial", "missed", "paid", "killed")) > 5, seen


def test_a_window_on_record_is_the_account_of_the_rule() -> None:
    params = market_params(volume_window=3, participation=0.002)
    dataset, signals = case(3)
    for label, kind in every_rule().items():
        record = trade_rule(kind, dataset, signals, params, SPAN, window=2, seed=7)
        account = rule_accounts({label: kind}, dataset, signals, params, SPAN, (SPAN.start,))[label]
        assert (record.window, record.seed, len(record.decisions)) == (2, 7, 0)
        for column in ("bar", "timestamp", "equity", "exposure", "turnover", "commission", "slippage", "interest"):
            pd.testing.assert_series_equal(record.equity[column], account[column], check_dtype=False)
        paid = record.trades[["commission", "slippage"]].sum()
        np.testing.assert_allclose(paid, record.equity[["commission", "slippage"]].sum())
        assert set(record.trades["action"]) <= {"REBALANCE", "FORCED_CLOSE"}


def test_limits_bind_a_rule_only_when_they_are_asked_for() -> None:
    dataset, signals = case(3)
    params = market_params(volume_window=3, position=0.05, open_positions=2, portfolio_drawdown=0.05)
    free, bound = (
        trade_rule(rule("equal_weight_monthly"), dataset, signals, params, SPAN, limits=limits)
        for limits in ("none", "market")
    )
    assert free.positions["weight"].max() > 0.15
    assert free.positions.groupby("bar").size().max() > 2
    bought = bound.positions.groupby("bar")["weight"].max().iloc[0]
    assert bought < 0.06  # 0.05 when it was bought; prices moved since
    assert bound.positions.groupby("bar").size().max() <= 2
