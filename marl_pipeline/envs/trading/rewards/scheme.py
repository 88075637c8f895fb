"""What an environment pays whom: `net` as it is, or what `market.reward` and `market.master_reward` name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from marl_pipeline.config import MarketParams
from marl_pipeline.envs.trading.core.accounts import Ledger
from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.game import Game
from marl_pipeline.envs.trading.rewards.component_log import ComponentLog
from marl_pipeline.envs.trading.rewards.master import MasterReward, MasterRewardConfig, equal_weight_growth
from marl_pipeline.envs.trading.rewards.shaped import RewardConfig, RewardShaper, Step


@dataclass
class RewardScheme:
    """Attributes:
    shaper, master: what pays the symbols and the master; None where that is `net`.
    net: [E, A] float32, `reward_scale` x the change of the log equity in the last step, whatever is paid.
    own: [E, N] float32, what `net` pays the symbols for the last step, whatever is paid.
    """

    shaper: RewardShaper | None
    master: MasterReward | None
    game: Game
    reward_scale: float
    net: Tensor
    own: Tensor

    @classmethod
    def of(
        cls,
        params: MarketParams,
        game: Game,
        *,
        num_envs: int,
        gamma: float,
        benchmark: ArrayLike | None,
    ) -> RewardScheme:
        market, rules, shaper = game.market, game.rules, None
        if params.reward != "net":
            shaper = RewardShaper(
                params.reward,
                RewardConfig.of(params.guide),
                cap=rules.cap,
                capital=game.capital,
                partition=rules.partition,
                reward_scale=params.reward_scale,
                gamma=gamma,
                num_envs=num_envs,
                size=market.size,
                device=market.device,
            )
        master = None
        if params.master_reward != "net" and game.decide_every is not None:
            growth = equal_weight_growth(market) if benchmark is None else _growth(benchmark, market.device)
            master = MasterReward(
                MasterRewardConfig(),
                growth,
                partition=rules.partition,
                reward_scale=params.reward_scale,
                num_envs=num_envs,
            )
        net = torch.zeros(num_envs, game.accounts, device=market.device)
        own = torch.zeros(num_envs, market.size, device=market.device)
        return cls(shaper, master, game, params.reward_scale, net, own)

    @property
    def logs(self) -> dict[str, ComponentLog]:
        """The components of what is paid, by group of agents; none for `net`."""
        paid = {"symbols": self.shaper, "master": self.master}
        return {group: scheme.log for group, scheme in paid.items() if scheme is not None}

    def reset(self, where: Tensor) -> None:
        """Starts new episodes in the environments where the [E] mask is True."""
        self.net, self.own = (last * (~where).unsqueeze(-1) for last in (self.net, self.own))
        if self.shaper is not None:
            self.shaper.reset(where)
        if self.master is not None:
            self.master.log.reset(where)

    def pay(
        self, before: Book, after: Book, ledger: Ledger, executed: Tensor, allowed: Tensor, own: Tensor, growth: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rewards of one step: of the symbols [E, N] and of the books [E, A].

        Args:
            allowed: [E, N] int64, the packed mask at `t` (`limits.Permissions.packed`).
            own: [E, N] float32 what `net` pays the symbols; growth: [E, A] the books.
        """
        self.net, self.own = growth, own
        if self.shaper is not None:
            running = (before.bar < before.end).unsqueeze(-1)
            active = self.game.rules.spread(before.alive) & running & self.game.in_universe
            net = own.double() / self.reward_scale
            own = self.shaper.step(Step(before, after, ledger, executed, net, active, allowed != 1))
        if self.master is not None:
            growth = self.master.step(before, after, growth.double() / self.reward_scale)
        return own, growth

    def info(self) -> dict[str, Tensor]:
        """Components of the last step, `<group>_<component>`: [E, A] float32."""
        return {
            f"{group}_{name}": log.last[..., column]
            for group, log in self.logs.items()
            for column, name in enumerate(log.names)
        }

    def get_episode_stats(self) -> dict[str, dict[str, dict[str, float]]]:
        """Group -> component -> figures of the episodes under way (`ComponentLog.episode_stats`)."""
        return {group: log.episode_stats() for group, log in self.logs.items()}

    @property
    def component_history(self) -> dict[str, dict[str, Tensor]]:
        """Group -> component -> [steps] means at each of the last steps (`ComponentLog.history`)."""
        return {group: log.history for group, log in self.logs.items()}

    def state_dict(self) -> dict[str, Any]:
        """Empty for `net`."""
        state: dict[str, Any] = {}
        if self.shaper is not None:
            state["shaper"] = self.shaper.state_dict()
        if self.master is not None:
            state["master"] = {name: tensor.cpu().clone() for name, tensor in self.master.log.tensors().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.shaper is not None:
            self.shaper.load_state_dict(state["shaper"])
        if self.master is not None:
            self.master.log.load(state["master"])


def _growth(level: ArrayLike, device: torch.device) -> Tensor:
    """[T] change of the log level; 0 before it is known."""
    log = np.log(np.asarray(level, dtype=np.float64))
    growth = np.nan_to_num(np.diff(log, prepend=log[:1]), nan=0.0)
    return torch.from_numpy(growth).to(device)
