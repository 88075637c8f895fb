"""Target weights as orders: sizes by hand, what is refused, and the protocol."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from marl_pipeline.data.windows import Span
from marl_pipeline.envs.conformance import check_environment
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.orders import Limits, TargetPortfolio
from tests.envs.markets import hostile, market_params, panel

FREE = {"commission_bps_round_trip": 0.0, "slippage_bps": 0.0, "impact": 0.0, "cash_rate": 0.0}


def portfolio(close: list[list[float]], **changes: float) -> TargetPortfolio:
    params = market_params(**FREE, **changes)
    environment = TargetPortfolio(Market.from_panel(panel(close), params), params, span=Span(0, len(close)))
    environment.reset()
    return environment


def asked(environment: TargetPortfolio, *weights: float) -> list[float]:
    environment.step({"symbols": torch.tensor([weights], dtype=torch.float64)})
    return environment.ordered[0].tolist()


def test_an_order_is_the_weight_of_the_equity_at_the_close_less_what_is_held() -> None:
    environment = portfolio([[10.0, 20.0], [10.0, 20.0], [12.0, 20.0], [12.0, 20.0]])
    assert asked(environment, 0.5, 0.25) == [5000.0, 1250.0]
    assert asked(environment, 0.5, 0.25) == [0.0, 0.0]
    orders = asked(environment, 0.5, math.nan)  # 5,000 at 12, 1,250 at 20 and 25,000 in cash: 110,000 of equity
    assert orders == pytest.approx([55_000 / 12 - 5000, 0.0])
    assert environment.book.cash.item() == pytest.approx(30_000)


def test_weights_above_the_whole_are_scaled_down_together() -> None:
    environment = portfolio([[10.0, 20.0], [10.0, 20.0]])
    assert asked(environment, 1.0, 3.0) == [2500.0, 3750.0]


def test_what_does_not_trade_at_the_close_can_not_be_ordered() -> None:
    environment = portfolio([[10.0, math.nan], [10.0, 20.0], [10.0, 20.0]])
    assert asked(environment, 0.5, 0.5) == [5000.0, 0.0]
    assert asked(environment, 0.5, 0.5) == [0.0, 2500.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(1, 3), "weights must be"),
        (torch.tensor([[0.5, -0.1]]), "not negative"),
        (torch.tensor([[0.5, math.inf]]), "shares of equity"),
    ],
)
def test_weights_that_are_none_are_refused(weights: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        portfolio([[10.0, 20.0], [10.0, 20.0]]).step({"symbols": weights})


@pytest.mark.parametrize("limits", ["none", "market"])
def test_it_is_an_environment_like_any_other(limits: Limits) -> None:
    params = market_params(volume_window=3)
    market = Market.from_panel(hostile(np.random.default_rng(1), 40, 5), params)
    check_environment(lambda: TargetPortfolio(market, params, span=Span(0, 40), num_envs=3, limits=limits))
