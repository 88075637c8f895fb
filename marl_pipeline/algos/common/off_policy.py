"""Collects steps of the environments for learners from a replay buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from pydantic import model_validator

from marl_pipeline.algos.common.acceleration import Acceleration
from marl_pipeline.algos.common.algorithm import Policy, forget
from marl_pipeline.algos.common.replay import Replay
from marl_pipeline.config import Count, Fraction, Positive, Section
from marl_pipeline.envs.protocol import Environment, Timestep


class OffPolicySettings(Section):
    """Attributes:
    reward_scale: factor on rewards, as they are learned.
    train_freq: steps of every environment per iteration; `gradient_steps` updates follow.
    buffer_size: environment steps kept; `learning_starts`: environment steps before the first update.
    """

    gamma: Fraction
    reward_scale: Positive
    batch: Count
    train_freq: Count
    gradient_steps: Count
    buffer_size: Count
    learning_starts: Count
    acceleration: Acceleration

    @model_validator(mode="after")
    def _learning_begins(self) -> Self:
        if self.learning_starts > self.buffer_size:
            raise ValueError(
                f"learning_starts {self.learning_starts} is more than a buffer_size of {self.buffer_size} ever holds"
            )
        return self


class Collector:
    """Plays `policy` with exploration in all environments and fills `replay`.

    Args:
        first: the timestep that `replay` starts with, from `environment.reset()`.
        generator: draws what exploration needs.
    """

    def __init__(
        self, environment: Environment, first: Timestep, policy: Policy, replay: Replay, generator: torch.Generator
    ) -> None:
        self.environment, self.policy, self.replay, self.generator = environment, policy, replay, generator
        self._timestep = first
        self._memory = policy.start(environment.num_envs)
        self._return = torch.zeros(environment.num_envs, device=environment.device)

    @torch.no_grad()
    def collect(self, steps: int) -> dict[str, float]:
        """Takes `steps` steps in every environment.

        Returns:
            train_return: mean undiscounted return, summed over all agents, of the episodes that ended; absent when none
            did.
        """
        ended, earned = torch.zeros_like(self._return), torch.zeros_like(self._return)
        for _ in range(steps):
            actions, memory = self.policy.act(self._timestep, self._memory, self.generator)
            after = self.environment.step(actions)
            done = after.done
            for step in after.groups.values():
                self._return = self._return + step.reward.sum(-1)
            resumed = after
            if bool(done.any()):
                ended, earned = ended + done, earned + torch.where(done, self._return, 0.0)
                self._return = self._return.masked_fill(done, 0.0)
                resumed, memory = self.environment.reset(done), forget(memory, done)
            self.replay.add(actions, after, resumed, memory)
            self._timestep, self._memory = resumed, memory
        episodes = float(ended.sum())
        return {"train_return": float(earned.sum()) / episodes} if episodes else {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "environment": self.environment.state_dict(),
            "replay": self.replay.state_dict(),
            "generator": self.generator.get_state(),
            "memory": {group: kept.cpu().clone() for group, kept in self._memory.items()},
            "return": self._return.cpu().clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where the saved collector was, bit for bit."""
        device = self.environment.device
        nobody = torch.zeros(self.environment.num_envs, dtype=torch.bool, device=device)
        self.environment.load_state_dict(state["environment"])
        self._timestep = self.environment.reset(nobody)
        self.environment.load_state_dict(state["environment"])  # that reset may have drawn from its generator
        self.replay.load_state_dict(state["replay"])
        self.generator.set_state(state["generator"].cpu())
        self._memory = {group: kept.to(device) for group, kept in state["memory"].items()}
        self._return = state["return"].to(device)
