"""A small environment of the protocol with known optimum: match the colour you are shown.

Two groups: `workers` (2 agents, 4 actions of which the last is never allowed) earn 1 for naming the
colour they see; `boss` (1 agent, 2 actions) decides
every 2nd step and earns 1 at each step while its last choice is 1. Episodes have 8 steps and are truncated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from marl_pipeline.envs.protocol import Discrete, GroupSpec, GroupStep, Timestep

EPISODE = 8


class Colours:
    def __init__(self, num_envs: int, seed: int) -> None:
        self.num_envs, self.device, self.state_size = num_envs, torch.device("cpu"), 1
        self.groups = {
            "workers": GroupSpec(2, {"colour": (3,)}, Discrete(4)),
            "boss": GroupSpec(1, {"clock": (1,)}, Discrete(2)),
        }
        self._generator = torch.Generator().manual_seed(seed)
        self._step = torch.zeros(num_envs, dtype=torch.int64)
        self._colour = torch.zeros(num_envs, 2, dtype=torch.int64)
        self._choice = torch.zeros(num_envs, dtype=torch.int64)

    def reset(self, where: Tensor | None = None) -> Timestep:
        where = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        self._step = self._step.masked_fill(where, 0)
        self._choice = self._choice.masked_fill(where, 0)
        return self._timestep(torch.zeros(self.num_envs, 2), torch.zeros(self.num_envs, 1))

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        decides = self._step % 2 == 0
        self._choice = torch.where(decides, actions["boss"][:, 0], self._choice)
        reward = (actions["workers"] == self._colour).float()
        self._colour = torch.randint(0, 3, (self.num_envs, 2), generator=self._generator)
        self._step = self._step + 1
        return self._timestep(reward, self._choice.float().unsqueeze(-1))

    def _timestep(self, worker_reward: Tensor, boss_reward: Tensor) -> Timestep:
        ones, e = torch.ones, self.num_envs
        clock = (1 - self._step % 2).float().reshape(e, 1, 1)
        return Timestep(
            groups={
                "workers": GroupStep(
                    {"colour": nn.functional.one_hot(self._colour, 3).float()},
                    (torch.arange(4) < 3).expand(e, 2, 4),
                    ones(e, 2, dtype=torch.bool),
                    ones(e, 2, dtype=torch.bool),
                    worker_reward,
                    ones(e, 2),
                ),
                "boss": GroupStep(
                    {"clock": clock},
                    ones(e, 1, 2, dtype=torch.bool),
                    (self._step % 2 == 0).unsqueeze(-1),
                    ones(e, 1, dtype=torch.bool),
                    boss_reward,
                    ones(e, 1),
                ),
            },
            state=self._step.float().unsqueeze(-1) / EPISODE,
            team_reward=worker_reward.sum(-1) + boss_reward.sum(-1),
            terminated=torch.zeros(e, dtype=torch.bool),
            truncated=self._step >= EPISODE,
            info={},
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self._step, "colour": self._colour, "choice": self._choice,
            "generator": self._generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step, self._colour, self._choice = state["step"], state["colour"], state["choice"]
        self._generator.set_state(state["generator"])
