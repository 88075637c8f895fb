"""Other views of an environment: one reward for all agents, and one agent in the place of a group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import (
    ActionSpace,
    Continuous,
    Discrete,
    Environment,
    GroupSpec,
    GroupStep,
    MultiDiscrete,
    Timestep,
    close_environment,
)
from marl_pipeline.errors import UserError

JOINED = "agent"
"""The group of the one agent of `JoinedAgents`."""

STATE = "state"
"""The field of its observation that holds the global state."""


class View(ABC):
    """An environment whose timesteps are shown differently; its state is that of the environment below."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    @property
    def unwrapped(self) -> Environment:
        """The environment below all views."""
        below = self._environment
        return below.unwrapped if isinstance(below, View) else below

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
        return self._shown(self._environment.reset(where))

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        return self._shown(self._environment.step(actions))

    def state_dict(self) -> dict[str, Any]:
        return self._environment.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._environment.load_state_dict(state)

    def close(self) -> None:
        close_environment(self._environment)

    @abstractmethod
    def _shown(self, timestep: Timestep) -> Timestep:
        """What is seen of a timestep of the environment below."""


class SharedReward(View):
    """An environment in which every agent earns `team_reward`: a fully cooperative game (Dec-POMDP).

    What the team earns goes on after an agent's death or truncation, so the discount is 0 where the episode terminated
    and 1 elsewhere.
    """

    def _shown(self, timestep: Timestep) -> Timestep:
        reward, discount = timestep.team_reward.unsqueeze(-1), (~timestep.terminated).float().unsqueeze(-1)
        groups = {
            name: replace(
                step,
                reward=reward.expand_as(step.reward),
                discount=discount.expand_as(step.discount),
                truncated=None,
            )
            for name, step in timestep.groups.items()
        }
        return replace(timestep, groups=groups)


class JoinedAgents(View):
    """An environment of one group, seen as one agent that decides for all: the single-agent view of a team.

    The group `agent` has one agent. It observes every field of the A agents, [E, 1, A, *shape], and the global state,
    `state` [E, 1, S], where there is one. Its action is theirs side by side: `MultiDiscrete` of A choices of n, or
    A x D numbers; so are the masks. It earns `team_reward`. An agent that does not act now is left one choice, which
    the environment ignores, so that it adds nothing to the probability of the joint action.

    Raises:
        UserError: the environment has several groups.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        if len(environment.groups) != 1:
            raise UserError(f"one agent can stand for one group, here are {', '.join(sorted(environment.groups))}")
        self._group, self._spec = next(iter(environment.groups.items()))
        agents = self._spec.agents
        fields = {field: (agents, *shape) for field, shape in self._spec.observation.items()}
        if environment.state_size:
            fields[STATE] = (environment.state_size,)
        self._groups = {JOINED: GroupSpec(1, fields, _side_by_side(self._spec.actions, agents))}

    @property
    def groups(self) -> Mapping[str, GroupSpec]:
        return self._groups

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol: `actions["agent"]` is [E, 1, A] or [E, 1, A x K]."""
        spec = self._spec
        chosen = actions[JOINED].reshape(self.num_envs, spec.agents, *spec.actions.shape)
        return self._shown(self._environment.step({self._group: chosen}))

    def _shown(self, timestep: Timestep) -> Timestep:
        step = timestep.groups[self._group]
        observation = {field: value.unsqueeze(1) for field, value in step.observation.items()}
        if self.state_size:
            observation[STATE] = timestep.state.unsqueeze(1)
        joined = GroupStep(
            observation=observation,
            action_mask=self._mask(step).flatten(1).unsqueeze(1),
            acts=step.acts.any(-1, keepdim=True),
            present=step.present.any(-1, keepdim=True),
            reward=timestep.team_reward.unsqueeze(-1),
            discount=(~timestep.terminated).float().unsqueeze(-1),
        )
        return replace(timestep, groups={JOINED: joined})

    def _mask(self, step: GroupStep) -> Tensor:
        """[E, A, W]: that of the agents who act; the first allowed choice alone of the others."""
        sizes = _choices(self._spec.actions)
        if not sizes:
            return step.action_mask
        idle = ~step.acts.unsqueeze(-1)
        parts = []
        for mask in torch.split(step.action_mask, sizes, -1):
            first = torch.zeros_like(mask).scatter(-1, mask.int().argmax(-1, keepdim=True), True)
            parts.append(torch.where(idle, first, mask))
        return torch.cat(parts, -1)


def _choices(space: ActionSpace) -> list[int]:
    """The number of options of every choice of an agent."""
    match space:
        case Discrete(n):
            return [n]
        case MultiDiscrete(sizes):
            return list(sizes)
        case Continuous():
            return []


def _side_by_side(space: ActionSpace, agents: int) -> ActionSpace:
    if isinstance(space, Continuous):
        return Continuous(space.size * agents, space.low, space.high)
    return MultiDiscrete(tuple(_choices(space)) * agents)
