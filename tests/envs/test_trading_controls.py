"""Positive and negative control: an agent that is shown what its decision will earn takes nearly all of it; shown the
return of the bar before, which no order can catch any more, it takes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.algos.ppo import PPOSettings
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import GroupSpec
from marl_pipeline.envs.trading.core.actions import Action
from marl_pipeline.envs.trading.core.costs import base_slippage_rate, commission_rate
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.observation import POSITION_FIELDS
from marl_pipeline.envs.trading.env import TradingEnv
from tests.envs.markets import market_params, panel

BARS, SYMBOLS, VOLATILITY = 1200, 4, 0.015
TRAIN, TEST = Span(0, 900), Span(900, 1198)
ENVS, HORIZON, ITERATIONS = 8, 64, 60
"""122,880 symbol-steps."""

SETTINGS = PPOSettings.model_validate(
    {
        "horizon": HORIZON, "epochs": 4, "minibatches": 4, "chunk": 1, "learning_rate": 3e-3, "gamma": 0.9,
        "gae_lambda": 0.9, "clip": 0.2, "entropy": 0.003, "value_coefficient": 0.5, "huber_delta": 10.0,
        "normalise_values": False, "max_grad_norm": 0.5, "target_kl": 0.05, "reward": "agent",
        "network": {
            "hidden": [32, 32], "activation": "tanh", "normalise_inputs": False, "layer_norm": False,
            "actor_gain": 0.01, "log_std": 0.0,
            "recurrence": "none", "share_parameters": True,
            "agent_heads": False,
        },
        "acceleration": {"precision": "float32", "compile": False},
    }
)  # fmt: skip

MARKET_PARAMS = market_params()


def closes() -> npt.NDArray[np.float64]:
    """Close-only and without drift: an order decided at `t` fills at the close of `t + 1` and earns from there on."""
    rng = np.random.default_rng(0)
    return 100.0 * np.exp(np.cumsum(rng.normal(0.0, VOLATILITY, (BARS, SYMBOLS)), 0))


def returns(offset: int) -> Tensor:
    """[T, N] the return from the close of `t + offset - 1` to that of `t + offset`, in standard deviations."""
    close = closes()
    shown = np.zeros_like(close)
    shown[:-offset] = close[offset:] / np.roll(close, 1, 0)[offset:] - 1.0
    return torch.from_numpy(shown / VOLATILITY).float()


@dataclass(frozen=True)
class Shown:
    """Implements `Inputs`: one return, [T, N], and the agent's own position."""

    returns: Tensor

    def width(self, group: str) -> int:
        return 1 + len(POSITION_FIELDS)

    def of(self, groups: Mapping[str, GroupSpec]) -> Shown:
        return self

    def __call__(self, group: str, observation: Mapping[str, Tensor]) -> Tensor:
        coming = self.returns[observation["bar"], observation["symbol"]].unsqueeze(-1)
        return torch.cat([coming, observation["position"]], -1)


def environment(span: Span, num_envs: int, episode: int | None, seed: int) -> TradingEnv:
    market = Market.from_panel(panel(closes()), MARKET_PARAMS)
    return TradingEnv(market, MARKET_PARAMS, mode="accounts", num_envs=num_envs, span=span, episode=episode, seed=seed)


@dataclass(frozen=True)
class Oracle:
    """The best of {flat, invested} over the test span, the whole path known.

    Attributes:
        growth: mean change of log equity over the symbols.
        actions: [T, N].
    """

    growth: float
    actions: Tensor


def oracle() -> Oracle:
    """Backward induction. Log equity moves by the return while invested, by the costs at a purchase and at a sale.

    All is linear in the share invested, so that to be invested in part is never better. The market's orders are shares
    counted at the price of the decision: they invest a little less than all when the price falls until the fill. Here
    they invest all, so this bounds from above what the market can pay.
    """
    rate = commission_rate(MARKET_PARAMS) + base_slippage_rate(MARKET_PARAMS)
    buy, sell = -np.log1p(rate), np.log1p(-rate)
    log = np.log(closes())
    value = np.zeros((2, SYMBOLS))  # of being flat or invested at the close of the bar at hand, decisions to come
    moves = np.zeros((BARS, 2, SYMBOLS), dtype=bool)  # whether to change between the two at bar t
    for t in range(TEST.stop - 2, TEST.start - 1, -1):
        move = log[t + 1] - log[t]  # earned by what is held at t; an order of t fills at t + 1
        moves[t] = np.stack([value[1] + buy > value[0], value[0] + sell > value[1]])
        flat, held = np.maximum(value[0], value[1] + buy), np.maximum(value[1], value[0] + sell)
        value = np.stack([flat, move + held])
    actions, invested = np.zeros((BARS, SYMBOLS), dtype=np.int64), np.zeros(SYMBOLS, dtype=np.int64)
    for t in range(TEST.start, TEST.stop - 1):
        change = moves[t, invested, np.arange(SYMBOLS)]
        actions[t] = np.where(change, np.where(invested == 1, int(Action.SELL_ALL), int(Action.BUY_LARGE)), 0)
        invested = np.where(change, 1 - invested, invested)
    return Oracle(float(value[0].mean()), torch.from_numpy(actions))


def growth(env: TradingEnv) -> float:
    """Mean change of log equity over the accounts."""
    return float((env.book.equity / MARKET_PARAMS.initial_cash).log().mean())


def earned_by(policy: Policy) -> float:
    env = environment(TEST, 1, None, 0)
    step = env.reset()
    while not bool(step.done.all()):
        actions, _ = policy.act(step, {}, None)
        step = env.step(actions)
    return growth(env)


def trained(shown: Tensor, seed: int) -> Policy:
    env = environment(TRAIN, ENVS, 128, seed)
    timesteps = ITERATIONS * HORIZON * ENVS
    algorithm = OnPolicy(env, Shown(shown), SETTINGS, seed=seed, timesteps=timesteps)
    for _ in range(ITERATIONS):
        algorithm.iterate()
    return algorithm.policy


def test_the_oracle_plays_the_markets_own_game() -> None:
    """Its actions, replayed in the market, earn its value but for the orders that invest a little less than all."""
    found = oracle()
    env = environment(TEST, 1, None, 0)
    step = env.reset()
    while not bool(step.done.all()):
        step = env.step({"symbols": found.actions[step.groups["symbols"].observation["bar"][:, 0]]})
    assert 0.98 * found.growth < growth(env) <= found.growth
    assert found.growth > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shown_the_return_it_will_earn_ppo_earns_nearly_all_of_it(seed: int) -> None:
    assert earned_by(trained(returns(2), seed)) >= 0.95 * oracle().growth


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shown_the_return_before_its_fill_ppo_earns_nothing(seed: int) -> None:
    assert earned_by(trained(returns(1), seed)) < 0.15 * oracle().growth
