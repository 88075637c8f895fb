"""What learners of action values share: their turn, their target, and what a checkpoint of them holds."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from marl_pipeline.algos.acceleration import Acceleration
from marl_pipeline.algos.action_values import EpsilonGreedy
from marl_pipeline.algos.algorithm import Advance
from marl_pipeline.algos.descent import Descent, DescentSettings, TargetSettings, follow
from marl_pipeline.algos.off_policy import Collector
from marl_pipeline.algos.reduction import Reduction
from marl_pipeline.algos.replay import Replay
from marl_pipeline.algos.schedules import Schedule
from marl_pipeline.config import Count, Fraction, Positive, Section
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.seeding import stream


class ValueSettings(Section):
    """Attributes:
    double: the learned network picks the next action, the target network values it (van Hasselt et al. 2016).
    collect: steps of every copy per turn; `updates` follow.
    capacity: environment steps kept; `learn_from`: environment steps before the first update.
    """

    descent: DescentSettings
    target: TargetSettings
    epsilon: Schedule
    gamma: Fraction
    double: bool
    reward_scale: Positive
    batch: Count
    collect: Count
    updates: Count
    capacity: Count
    learn_from: Count
    acceleration: Acceleration


class ValueLearner(ABC):
    """Implements `algorithm.Algorithm` but for the update.

    Args:
        learned: all that is learned.
        replay: filled from here on; it starts with `first`.
        rows: consecutive rows of the replay that an update needs.
        seed: of exploration and of the draws from the replay.
    """

    def __init__(
        self,
        environment: Environment,
        settings: ValueSettings,
        *,
        learned: nn.Module,
        policy: EpsilonGreedy,
        replay: Replay,
        collector: Collector,
        rows: int,
        seed: int,
        timesteps: int,
        reduction: Reduction,
    ) -> None:
        self.policy = policy
        self._environment, self._turn, self._rows, self._timesteps = environment, settings, rows, timesteps
        self._learned, self._target = learned, copy.deepcopy(learned).requires_grad_(False)
        self._descent = Descent(learned.parameters(), settings.descent, reduction)
        self._replay, self._collector = replay, collector
        self._generator = stream(seed, "replay")
        self._steps = self._updates = 0

    @property
    def progress(self) -> float:
        """Share of the run that is over."""
        return self._steps / self._timesteps

    def advance(self) -> Advance:
        """`collect` steps of every copy, then `updates` updates if there is enough to learn from."""
        turn = self._turn
        self.policy.epsilon = turn.epsilon.at(self.progress)
        metrics = self._collector.collect(turn.collect) | {"epsilon": self.policy.epsilon}
        steps = turn.collect * self._environment.num_envs
        self._steps += steps
        if self._steps >= turn.learn_from and len(self._replay) >= self._rows:
            self._take_in()
            history = torch.stack([self._updated() for _ in range(turn.updates)])
            metrics |= dict(zip(("loss", "q_mean", "grad_norm"), history.mean(0).tolist(), strict=True))
        return Advance(steps, metrics)

    def _updated(self) -> Tensor:
        figures = self._update()
        self._updates += 1
        if self._updates % self._turn.target.every == 0:
            follow(self._target, self._learned, self._turn.target.rate)
        return figures

    def _take_in(self) -> None:  # noqa: B027 - most have nothing to do
        """Before the updates of a turn: what was collected is in the replay."""

    @abstractmethod
    def _update(self) -> Tensor:
        """One gradient step; loss, mean value and gradient norm [3]."""

    def state_dict(self) -> dict[str, Any]:
        return {
            "learned": self._learned.state_dict(),
            "target": self._target.state_dict(),
            "descent": self._descent.state_dict(),
            "collector": self._collector.state_dict(),
            "generator": self._generator.get_state(),
            "steps": self._steps,
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where the saved run was, bit for bit."""
        self._learned.load_state_dict(state["learned"])
        self._target.load_state_dict(state["target"])
        self._descent.load_state_dict(state["descent"])
        self._collector.load_state_dict(state["collector"])
        self._generator.set_state(state["generator"].cpu())
        self._steps, self._updates = state["steps"], state["updates"]
