"""The gap is exact: all policies enumerated by hand agree, and only a reward that changes the best policy has one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from marl_pipeline.data.windows import Span
from marl_pipeline.diagnostics.known_markets import KnownMarket, known_markets
from marl_pipeline.diagnostics.reward_gap import Outcomes, RewardGap, _panel, best, play_all, reward_gaps
from marl_pipeline.envs.trading.core.actions import ACTIONS
from marl_pipeline.envs.trading.core.costs import base_slippage_rate, commission_rate
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.envs.trading.rewards.shaped import RewardShaper
from tests.envs.markets import market_params

KINDS = len(ACTIONS)


def gaps(reward: str, horizon: int = 4) -> dict[str, RewardGap]:
    return {gap.market: gap for gap in reward_gaps(market_params(reward=reward), horizon)}


def named(name: str, horizon: int) -> KnownMarket:
    return next(market for market in known_markets(horizon) if market.name == name)


def test_the_best_policy_is_the_best_of_all_policies() -> None:
    """Two decisions, the second of which may look at the first move: 7 x 7 x 7 policies."""
    market = named("trends", 3)
    rng = np.random.default_rng(0)
    measure, net, turnover = (rng.normal(size=(KINDS**2, 4)) for _ in range(3))
    up, down = market.close[:, 1] > 100.0, market.close[:, 1] < 100.0
    assert up.sum() == down.sum() == 2
    best_value, expected_net = -np.inf, 0.0
    for first, after_up, after_down in itertools.product(range(KINDS), repeat=3):
        row = first * KINDS + np.where(up, after_up, after_down)
        value = float(market.probability @ measure[row, np.arange(4)])
        if value > best_value:
            best_value, expected_net = value, float(market.probability @ net[row, np.arange(4)])
    found = best(market, Outcomes(measure, net, turnover), measure)
    assert found.paid == pytest.approx(best_value, rel=1e-12)
    assert found.net == pytest.approx(expected_net, rel=1e-12)


def test_a_policy_sees_prices_so_far_and_no_further() -> None:
    """Distinguished at bar 1 already, the paths would be worth more."""
    market = named("trends", 3)
    nodes = [market.nodes(bar)[0].max() + 1 for bar in range(3)]
    assert nodes == [1, 2, 4]
    assert market.probability.sum() == pytest.approx(1.0)
    for bar in range(3):
        assert np.allclose(market.nodes(bar)[1].sum(1), 1.0)
    number, chance = market.nodes(1)
    assert chance[number[0], 0] == pytest.approx(0.8)  # up again


@pytest.mark.parametrize("reward", ["guide_v3_2", "net_shaped"])
def test_every_sequence_is_what_it_is_when_played_alone(reward: str) -> None:
    params, market = market_params(reward=reward), named("swings", 4)
    outcomes = play_all(market, params)
    for row in np.random.default_rng(1).integers(0, KINDS**4, 12):
        env = TradingEnv(
            Market.from_panel(_panel(market), params), params, mode="accounts", num_envs=1, span=Span(0, 5)
        )
        env.reset()
        paid = 0.0
        for step in range(4):
            action = int(row) // KINDS ** (3 - step) % KINDS
            paid += float(env.step({"symbols": torch.tensor([[action]])}).groups["symbols"].reward)
        assert env.rewards.shaper is not None
        paid += float(env.rewards.shaper.settlement(env.book))
        assert outcomes.paid[row, 0] == pytest.approx(paid, abs=1e-9)
        assert outcomes.net[row, 0] == pytest.approx(
            float(env.book.equity.log()) - np.log(params.initial_cash), abs=1e-12
        )


def test_the_best_that_can_be_earned_is_known() -> None:
    params = market_params()
    rate = commission_rate(params) + base_slippage_rate(params)
    found = gaps("guide_v3_2", 5)
    for name in ("constant", "slow rise", "fall", "ripples"):
        assert found[name].by_net.net == 0.0
        assert found[name].by_net.actions == ("HOLD",) * 5
    assert found["rise"].by_net.net == pytest.approx(4 * np.log(1.01) - np.log(1.0 + rate), abs=1e-6)
    assert found["rise"].by_net.actions == ("BUY_LARGE", *("HOLD",) * 4)
    assert found["jump"].by_net.net == pytest.approx(np.log(1.1) - np.log(1.0 + rate), abs=1e-6)
    trends = found["trends"]
    assert 0.0 < trends.by_net.net < trends.horizon * 0.01 * 0.6


def test_potentials_leave_no_gap_and_the_guides_preset_does() -> None:
    shaped, guide = gaps("net_shaped"), gaps("guide_v3_2")
    assert set(shaped) == set(guide)
    assert all(abs(gap.gap) < 1e-7 for gap in shaped.values())
    assert all(gap.by_pay.paid >= gap.by_net.paid for gap in guide.values())
    assert all(gap.gap > -1e-12 for gap in guide.values())
    assert guide["constant"].gap > 1e-3
    assert guide["constant"].by_pay.turnover > 1.0 > guide["constant"].by_net.turnover == 0.0
    assert guide["trends"].gap > 1e-3


def test_a_potential_left_at_the_end_would_change_the_best_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the end of the horizon settles: the diversity still held would be worth trading for."""
    monkeypatch.setattr(RewardShaper, "settlement", lambda self, book: torch.zeros_like(book.value))
    assert gaps("net_shaped", 3)["constant"].gap > 1e-4


def test_coefficients_decide_the_gap() -> None:
    params = market_params(reward="guide_v3_2")
    none = dict.fromkeys(params.guide.weights.model_dump(), 0.0) | {"pnl": 10.0}
    plain = {"weights": none, "entry_multipliers": (1.0,) * 3, "exit_multipliers": (1.0,) * 3}
    honest = market_params(reward="guide_v3_2", guide={**params.guide.model_dump(), **plain})
    found = {gap.market: gap for gap in reward_gaps(honest, 3)}
    assert found["constant"].gap == 0.0
    assert gaps("guide_v3_2", 3)["constant"].gap > 1e-3


def test_a_horizon_without_a_decision_to_take_is_refused() -> None:
    with pytest.raises(ValueError, match="two decisions or more, found 1"):
        known_markets(1)
