"""The master's risk-adjusted reward: return less a price of risk, a spread-out book, excess over the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Partition
from marl_pipeline.envs.trading.rewards.component_log import ComponentLog

MASTER_COMPONENTS: tuple[str, ...] = ("return", "diversification", "excess")


@dataclass(frozen=True)
class MasterRewardConfig:
    """`return_weight` x (g - risk_aversion / 2 x g^2) + `diversification` x (1 - H) + `excess` x (g - b) per step: g is
    the change of the account's log equity, b that of the benchmark, H the Herfindahl index of its gross exposure (1
    when flat)."""

    return_weight: float = 1.0
    risk_aversion: float = 10.0
    diversification: float = 1e-4
    excess: float = 0.5


class MasterReward:
    """The master's risk-adjusted reward, with its three components logged.

    Args:
        benchmark: [T] float64, change of the log benchmark from bar `t - 1` to `t`.
    """

    def __init__(
        self,
        config: MasterRewardConfig,
        benchmark: Tensor,
        *,
        partition: Partition,
        reward_scale: float,
        num_envs: int,
    ) -> None:
        self.config, self._partition, self._scale = config, partition, reward_scale
        self._benchmark = torch.nan_to_num(benchmark.double(), nan=0.0)
        self.log = ComponentLog(MASTER_COMPONENTS, num_envs, partition.accounts, benchmark.device)

    def step(self, before: Book, after: Book, growth: Tensor) -> Tensor:
        """[E, A] float32 from the change of log equity [E, A]."""
        config, active = self.config, (before.bar < before.end).unsqueeze(-1) & before.alive
        gross = self._partition.pool(after.value.abs())
        herfindahl = self._partition.pool(after.value**2) / (gross**2).clamp(min=1e-18)
        spread = torch.where(gross > 0.0, 1.0 - herfindahl, 0.0)
        benchmark = self._benchmark.index_select(0, after.bar).unsqueeze(-1)
        gain = growth.double()
        components = torch.stack(
            [
                config.return_weight * (gain - 0.5 * config.risk_aversion * gain**2),
                config.diversification * spread,
                config.excess * (gain - benchmark),
            ],
            dim=-1,
        )
        components = components * active.unsqueeze(-1)
        self.log.add(components, active)
        return (components.sum(-1) * self._scale).float()


def equal_weight_growth(market: Market) -> Tensor:
    """[T] change of the log level of the equal-weight market from bar `t - 1` to `t`, of what was tradable before."""
    mark, tradable = market.mark, market.tradable
    growth = torch.zeros(mark.shape[0], dtype=torch.float64, device=mark.device)
    known = tradable[:-1].double()
    mean = ((mark[1:] / mark[:-1] - 1.0) * known).sum(-1) / known.sum(-1).clamp(min=1.0)
    growth[1:] = torch.log1p(mean)
    return growth
