"""A game of two in which the second may leave for good, and the team earns more once it has.

Half a point a step while both are there, one point after. Episodes end after ten steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Discrete, GroupSpec, GroupStep, Timestep

EPISODE = 10


class Leaving:
    """Observes the share of the episode that is over; the state says, besides, whether the second has left."""

    def __init__(self, num_envs: int, seed: int = 0) -> None:
        del seed
        self.num_envs, self.device, self.state_size = num_envs, torch.device("cpu"), 2
        self.groups = {"pair": GroupSpec(2, {"clock": (2,)}, Discrete(2))}
        self._step = torch.zeros(num_envs, dtype=torch.int64)
        self._left = torch.zeros(num_envs, dtype=torch.bool)

    def reset(self, where: Tensor | None = None) -> Timestep:
        where = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        self._step, self._left = self._step.masked_fill(where, 0), self._left & ~where
        return self._timestep(torch.zeros(self.num_envs))

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        self._left = self._left | (actions["pair"][:, 1] == 1)
        self._step = self._step + 1
        return self._timestep(torch.where(self._left, 1.0, 0.5))

    def _timestep(self, earned: Tensor) -> Timestep:
        ended = self._step >= EPISODE
        present = torch.stack([torch.ones_like(self._left), ~self._left], -1)
        over = self._step / EPISODE
        seen = torch.stack([torch.ones_like(over), over], -1).unsqueeze(1).expand(-1, 2, -1)
        pair = GroupStep(
            observation={"clock": seen.contiguous()},
            action_mask=torch.ones(self.num_envs, 2, 2, dtype=torch.bool),
            acts=present,
            present=present,
            reward=torch.stack([earned, torch.zeros_like(earned)], -1),
            discount=(present & ~ended.unsqueeze(-1)).float(),
        )
        state = torch.stack([over, self._left.float()], -1)
        return Timestep({"pair": pair}, state, earned, ended, torch.zeros_like(ended), {})

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step.clone(), "left": self._left.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step, self._left = state["step"].clone(), state["left"].clone()
