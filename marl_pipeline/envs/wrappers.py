"""Every agent is paid what the team earned: the reward of a fully cooperative game (Dec-POMDP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Environment, GroupSpec, Timestep


class SharedReward:
    """An environment seen with `team_reward` in the place of every agent's own.

    What the team earns goes on after an agent's death, so the discount is 0 where the episode terminated and 1
    elsewhere.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    @property
    def groups(self) -> Mapping[str, GroupSpec]:
        return self._environment.groups

    @property
    def state_size(self) -> int:
        return self._environment.state_size

    @property
    def num_envs(self) -> int:
        return self._environment.num_envs

    @property
    def device(self) -> torch.device:
        return self._environment.device

    def reset(self, where: Tensor | None = None) -> Timestep:
        return _shared(self._environment.reset(where))

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        return _shared(self._environment.step(actions))

    def state_dict(self) -> dict[str, Any]:
        return self._environment.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._environment.load_state_dict(state)


def _shared(timestep: Timestep) -> Timestep:
    reward, discount = timestep.team_reward.unsqueeze(-1), (~timestep.terminated).float().unsqueeze(-1)
    groups = {
        name: replace(step, reward=reward.expand_as(step.reward), discount=discount.expand_as(step.discount))
        for name, step in timestep.groups.items()
    }
    return replace(timestep, groups=groups)
