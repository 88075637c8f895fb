"""What a reward pays for beside what the account earns: exact, on small markets whose every path is known.

No part of a reward needs to be Markov here: every sequence of actions is run in the simulator itself, a copy of the
environment for each, so that its costs, masks and limits and the reward's own memory are all in the figures. Dynamic
programming over the tree of (actions so far, prices so far) then finds the best policy, whatever it remembers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import FloatArray, IntArray, Panel
from marl_pipeline.data.windows import Span
from marl_pipeline.diagnostics.known_markets import KnownMarket, known_markets
from marl_pipeline.envs.trading.core.actions import ACTIONS
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.env import TradingEnv


@dataclass(frozen=True)
class Outcomes:
    """What each of the K^H sequences of H actions brings on each of the P paths: [K^H, P] float64, sequences in the
    order of numbers of base K, the first action leading.

    Attributes:
        paid: sum of the rewards, with what is owed when the future ends (`RewardShaper.settlement`).
        net: change of the log equity.
        turnover: traded over the horizon, as a multiple of equity.
    """

    paid: FloatArray
    net: FloatArray
    turnover: FloatArray


@dataclass(frozen=True)
class Best:
    """The policy that is best for one measure; expected figures over the horizon.

    Attributes:
        paid, net, turnover: as in `Outcomes`.
        actions: what it does on the most probable path.
    """

    paid: float
    net: float
    turnover: float
    actions: tuple[str, ...]


@dataclass(frozen=True)
class RewardGap:
    """On one market.

    Attributes:
        horizon, paths: H and P.
        by_pay, by_net: the policies that are best for the reward and for the account.
    """

    market: str
    meaning: str
    reward: str
    horizon: int
    paths: int
    by_pay: Best
    by_net: Best

    @property
    def gap(self) -> float:
        """Log growth that following the reward forgoes; never below 0 but for rounding."""
        return self.by_net.net - self.by_pay.net

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "gap": self.gap}


def reward_gaps(params: MarketParams, horizon: int) -> Iterator[RewardGap]:
    """The gap of `params.reward` on every known market, in turn."""
    for market in known_markets(horizon):
        outcomes = play_all(market, params)
        yield RewardGap(
            market=market.name,
            meaning=market.meaning,
            reward=params.reward,
            horizon=market.horizon,
            paths=len(market.close),
            by_pay=best(market, outcomes, outcomes.paid),
            by_net=best(market, outcomes, outcomes.net),
        )


@torch.no_grad()
def play_all(market: KnownMarket, params: MarketParams) -> Outcomes:
    """Every sequence of actions on every path: a copy of the environment for a sequence, an account for a path."""
    kinds, horizon = len(ACTIONS), market.horizon
    count = kinds**horizon
    environment = TradingEnv(
        Market.from_panel(_panel(market), params), params, mode="accounts", num_envs=count, span=Span(0, horizon + 1)
    )
    environment.reset()
    paid, turnover = (torch.zeros(count, len(market.close), dtype=torch.float64) for _ in range(2))
    sequence = torch.arange(count).unsqueeze(-1)
    for step in range(horizon):
        action = sequence // kinds ** (horizon - 1 - step) % kinds
        after = environment.step({"symbols": action.expand(-1, len(market.close))})
        paid += after.groups["symbols"].reward
        turnover += after.info["turnover"]
    shaper = environment.rewards.shaper
    if shaper is not None:
        paid += shaper.settlement(environment.book)
    net = (environment.book.equity.clamp(min=environment.game.floor) / params.initial_cash).log()
    return Outcomes(paid.numpy(), net.numpy(), turnover.numpy())


def best(market: KnownMarket, outcomes: Outcomes, measure: FloatArray) -> Best:
    """The best policy by `measure` [K^H, P], by backward induction; ties go to the lower action.

    The last action is chosen first: for every node (the actions before it, the prices so far) the one with the highest
    mean over the paths through the node. Its outcomes then stand for the node's, and so on to the first.
    """
    kinds, paths = len(ACTIONS), len(market.close)
    figures = {"measure": measure, **vars(outcomes)}
    choices: list[IntArray] = []
    for step in reversed(range(market.horizon)):
        node, chance = market.nodes(step)
        figures = {name: values.reshape(-1, kinds, paths) for name, values in figures.items()}
        choice: IntArray = _means(figures["measure"], chance).argmax(1)[:, node]
        figures = {name: np.take_along_axis(each, choice[:, None], 1)[:, 0] for name, each in figures.items()}
        choices.append(choice)
    likely, taken = int(market.probability.argmax()), 0
    actions = []
    for choice in reversed(choices):
        action = int(choice[taken, likely])
        actions.append(ACTIONS[action])
        taken = taken * kinds + action
    expected: Mapping[str, float] = {name: float(market.probability @ each[0]) for name, each in figures.items()}
    return Best(expected["paid"], expected["net"], expected["turnover"], tuple(actions))


def _means(values: FloatArray, chance: FloatArray) -> FloatArray:
    """[..., P] -> [..., nodes]. Summed by row: a matrix product may round equal rows differently and so undo a tie."""
    through = [weight > 0.0 for weight in chance]
    means = [(values[..., here] * weight[here]).sum(-1) for here, weight in zip(through, chance, strict=True)]
    return np.stack(means, -1)


def _panel(market: KnownMarket) -> Panel:
    """A symbol for every path; daily, close-only: an order decided at one close fills at the next."""
    close = np.ascontiguousarray(market.close.T)
    none = np.full_like(close, np.nan)
    days = (np.datetime64("2000-01-01") + np.arange(len(close))).astype("datetime64[us]")
    return Panel(
        symbols=tuple(f"path {number}" for number in range(close.shape[1])),
        timestamps=days,
        known_at=days,
        session=np.arange(len(close), dtype=np.int64),
        open=none,
        high=none,
        low=none,
        close=close,
        volume=none,
        tradable=np.ones(close.shape, dtype=np.bool_),
    )
