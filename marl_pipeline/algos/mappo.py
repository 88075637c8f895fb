"""Multi-agent PPO (Yu et al. 2022): PPO whose critic sees the global state and learns normalised values.

The central value function is the policy's own affair (`ActorCritic.evaluate` feeds the state to its critic); this
learner adds the value normalisation around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from marl_pipeline.algos.common.acceleration import Acceleration
from marl_pipeline.algos.common.rollout import Experience
from marl_pipeline.algos.ppo import PPO, ActorCritic, PPOSettings
from marl_pipeline.config import PPOParams
from marl_pipeline.nn.distributions import Categorical, Distribution
from marl_pipeline.nn.reduction import ALONE, Reduction
from marl_pipeline.nn.value_norm import ValueNorm


class MAPPOSettings(PPOSettings):
    """PPO's settings, and what the central critic sees.

    Attributes:
        critic: `state`, the global state alone: one value for all agents of a group, computed once per state (one for
            each agent where they share no parameters). `agent_state`, besides it the agent's own observation and which
            agent it is (the agent-specific state): right where agents of a group are paid differently.
    """

    critic: Literal["state", "agent_state"]


class MAPPO(PPO):
    """PPO on a central critic whose output is a value normalised by `norm`.

    `norm` belongs to the policy's module, so that a checkpoint of the critic carries the units it speaks in. None
    turns the normalisation off.
    """

    def __init__(
        self,
        policy: ActorCritic,
        params: PPOParams | PPOSettings,
        *,
        norm: ValueNorm | None,
        learning_rate: float | None = None,
        distribution: Callable[[Tensor, Tensor], Distribution] = Categorical,
        chunk: int = 1,
        acceleration: Acceleration | None = None,
        fused: bool = False,
        reduction: Reduction = ALONE,
    ) -> None:
        super().__init__(
            policy,
            params,
            learning_rate=learning_rate,
            distribution=distribution,
            chunk=chunk,
            acceleration=acceleration,
            fused=fused,
            reduction=reduction,
        )
        self.norm = norm

    def real_values(self, experience: Experience) -> tuple[Tensor, Tensor, Tensor]:
        value, cut_value, last_value = super().real_values(experience)
        if self.norm is None:
            return value, cut_value, last_value
        return self.norm.denormalise(value), self.norm.denormalise(cut_value), self.norm.denormalise(last_value)

    def value_targets(self, targets: Tensor, valued: Tensor) -> Tensor:
        if self.norm is None:
            return targets
        self.norm.update(targets[valued], self.reduction)
        return self.norm.normalise(targets)
