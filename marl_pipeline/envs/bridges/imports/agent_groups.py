"""The named agents of an outside environment as groups: which group an agent belongs to, and its place in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_pipeline.envs.bridges.imports.spaces import Outward, action_space, observation_space
from marl_pipeline.envs.protocol import GroupSpec
from marl_pipeline.errors import UserError

FIELD = "observation"
"""The one field of an outside agent's observation: all it sees as a row of numbers."""


class ParallelWorld(Protocol):
    """One outside environment: the part of PettingZoo's `ParallelEnv` that is used here; it may have a `close()`."""

    @property
    def possible_agents(self) -> Sequence[str]: ...

    @property
    def agents(self) -> Sequence[str]: ...

    def observation_space(self, agent: str) -> spaces.Space[Any]: ...

    def action_space(self, agent: str) -> spaces.Space[Any]: ...

    def reset(self, seed: int | None = None) -> tuple[Mapping[str, Any], Mapping[str, Any]]: ...

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, float], Mapping[str, bool], Mapping[str, bool], Mapping[str, Any]]: ...


class AgentGroups:
    """Agents of equal spaces form one group, in the order of `possible_agents`.

    A group is called by the stem that its agents' names share (`adversary` for `adversary_0`, `adversary_1`), by
    `agents` if they share none, and by its first agent if another group has that name already.

    Attributes:
        groups: the specs by name.
        place: agent -> (group, index).
        spaces: agent -> its outside observation and action space, as they were at first.
        seen: group -> the outside observation space, without the mask.
        outward: group -> turns an action of the protocol into an outside one.

    Raises:
        UserError: spaces that the protocol has no word for, or agents that are not known before an episode starts.
    """

    def __init__(self, name: str, world: ParallelWorld) -> None:
        if not getattr(world, "possible_agents", None):
            raise UserError(f"environment '{name}': its possible_agents must be known before an episode starts")
        alike: list[tuple[tuple[spaces.Space[Any], spaces.Space[Any]], list[str]]] = []
        for agent in world.possible_agents:
            both = world.observation_space(agent), world.action_space(agent)
            members = next((members for known, members in alike if known == both), None)
            if members is None:
                alike.append((both, [agent]))
            else:
                members.append(agent)
        self.groups: dict[str, GroupSpec] = {}
        self.spaces = {agent: both for both, members in alike for agent in members}
        self.place: dict[str, tuple[str, int]] = {}
        self.seen: dict[str, spaces.Space[Any]] = {}
        self.outward: dict[str, Outward] = {}
        for (observation, action), members in alike:
            where = f"environment '{name}', agent '{members[0]}'"
            group = _name(members, self.groups)
            self.seen[group] = observation_space(observation, where)
            chosen, self.outward[group] = action_space(action, where)
            width = spaces.flatdim(self.seen[group])
            self.groups[group] = GroupSpec(len(members), {FIELD: (width,)}, chosen)
            self.place |= {agent: (group, index) for index, agent in enumerate(members)}


def _name(members: Sequence[str], taken: Mapping[str, GroupSpec]) -> str:
    stems = {re.sub(r"_?\d+$", "", str(agent)) for agent in members}
    name = stems.pop() if len(stems) == 1 else "agents"
    return name if name and name not in taken else str(members[0])


class GroupArrays:
    """The last timestep of one group, of all environments, in arrays that are written row by row.

    Attributes:
        observation: [E, A, F] float32, zeros of those who are not there.
        mask: [E, A, mask_width] bool.
        present, acts, truncated: [E, A] bool, as in `GroupStep`.
        gone: [E, A] bool, the agent's future in this episode has ended.
        reward: [E, A] float32.
    """

    def __init__(self, spec: GroupSpec, envs: int) -> None:
        shape = (envs, spec.agents)
        self.observation: NDArray[np.float32] = np.zeros((*shape, *spec.observation[FIELD]), dtype=np.float32)
        self.mask: NDArray[np.bool_] = np.ones((*shape, spec.actions.mask_width), dtype=np.bool_)
        self.present: NDArray[np.bool_] = np.zeros(shape, dtype=np.bool_)
        self.acts: NDArray[np.bool_] = np.zeros(shape, dtype=np.bool_)
        self.truncated: NDArray[np.bool_] = np.zeros(shape, dtype=np.bool_)
        self.gone: NDArray[np.bool_] = np.zeros(shape, dtype=np.bool_)
        self.reward: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)

    def clear(self, index: int) -> None:
        """Before a new episode of that environment."""
        self.observation[index], self.reward[index], self.mask[index] = 0.0, 0.0, True
        for flags in (self.present, self.acts, self.truncated, self.gone):
            flags[index] = False

    def leave(self, index: int) -> None:
        """Before a step of that environment: whoever was truncated by the last one has no future any more."""
        self.gone[index] |= self.truncated[index]
        self.truncated[index] = False
