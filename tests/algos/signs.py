"""A small environment of the protocol where the level of an observation is all that matters: name the sign you see.

Every agent sees one number, +1 or -1, or `width` equal ones, and earns 1 for naming its sign. Episodes are truncated
after 10 steps: 10 is the most that can be earned, and an agent that sees nothing earns 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Discrete, GroupSpec, GroupStep, Timestep

EPISODE = 10


class Signs:
    def __init__(self, num_envs: int, seed: int, width: int = 1, agents: int = 1) -> None:
        self.num_envs, self.device, self.state_size = num_envs, torch.device("cpu"), agents
        self.groups = {"seers": GroupSpec(agents, {"seen": (width,)}, Discrete(2))}
        self._width, self._agents = width, agents
        self._generator = torch.Generator().manual_seed(seed)
        self._step = torch.zeros(num_envs, dtype=torch.int64)
        self._draw()

    def _draw(self) -> None:
        self._sign = torch.randint(2, (self.num_envs, self._agents), generator=self._generator).float() * 2 - 1

    def reset(self, where: Tensor | None = None) -> Timestep:
        where = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        self._step = self._step.masked_fill(where, 0)
        return self._timestep(torch.zeros(self.num_envs, self._agents))

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        right = (actions["seers"] == (self._sign > 0)).float()
        self._step = self._step + 1
        self._draw()
        return self._timestep(right)

    def _timestep(self, reward: Tensor) -> Timestep:
        everyone = torch.ones(self.num_envs, self._agents, dtype=torch.bool)
        seen = self._sign.unsqueeze(-1).repeat(1, 1, self._width)
        step = GroupStep(
            {"seen": seen}, everyone.unsqueeze(-1).repeat(1, 1, 2), everyone, everyone, reward, torch.ones_like(reward)
        )
        return Timestep(
            {"seers": step}, self._sign, reward.sum(-1), torch.zeros(self.num_envs, dtype=torch.bool),
            self._step >= EPISODE, {},
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "sign": self._sign, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step, self._sign = state["step"], state["sign"]
        self._generator.set_state(state["generator"])
