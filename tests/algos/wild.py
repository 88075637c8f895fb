"""An environment in which everything happens that the protocol allows, at random, and a record of it in plain lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Memory, Policy, forget
from marl_pipeline.envs.protocol import Continuous, Discrete, GroupSpec, GroupStep, Timestep


class Wild:
    """Environments terminate or are truncated at times of their own, agents die, wait for clocks or are away.

    Group `a`: 2 agents, 3 actions; group `b`: 1 agent, 2 continuous numbers. Every observation is a number that is
    never seen again, every reward is random and paid to whoever is there or not.
    """

    def __init__(self, num_envs: int, seed: int) -> None:
        self.num_envs, self.device, self.state_size = num_envs, torch.device("cpu"), 2
        self.groups = {
            "a": GroupSpec(2, {"number": (), "pair": (2,), "index": ()}, Discrete(3)),
            "b": GroupSpec(1, {"number": ()}, Continuous(2, -1.0, 1.0)),
        }
        self._generator = torch.Generator().manual_seed(seed)
        self._last: Timestep | None = None

    def _chance(self, probability: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator) < probability

    def _group(self, name: str, terminated: Tensor) -> GroupStep:
        spec, e = self.groups[name], self.num_envs
        shape = (e, spec.agents)
        number = torch.rand(shape, generator=self._generator)
        observation = {"number": number}
        if name == "a":
            index = torch.randint(0, 1000, shape, generator=self._generator)
            observation |= {"pair": torch.stack([number, -number], -1), "index": index}
        present = self._chance(0.9, *shape)
        mask = self._chance(0.6, *shape, spec.actions.mask_width)
        mask[..., :1] = True
        reward = torch.randn(shape, generator=self._generator)
        discount = torch.where(self._chance(0.9, *shape), 0.9, 0.0) * ~terminated.unsqueeze(-1)
        return GroupStep(observation, mask, present & self._chance(0.6, *shape), present, reward, discount)

    def reset(self, where: Tensor | None = None) -> Timestep:
        nothing = torch.zeros(self.num_envs, dtype=torch.bool)
        fresh = self._timestep(nothing, nothing)
        if where is None or self._last is None:
            self._last = fresh
        else:
            self._last = merged(where, fresh, self._last)
        return self._last

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        terminated = self._chance(0.1, self.num_envs)
        self._last = self._timestep(terminated, self._chance(0.15, self.num_envs) & ~terminated)
        return self._last

    def _timestep(self, terminated: Tensor, truncated: Tensor) -> Timestep:
        groups = {name: self._group(name, terminated) for name in self.groups}
        state = torch.rand(self.num_envs, 2, generator=self._generator)
        team = torch.randn(self.num_envs, generator=self._generator)
        return Timestep(groups, state, team, terminated, truncated, {})

    def state_dict(self) -> dict[str, Any]:
        """The protocol asks for it; here only the replay is tested, and a call would be a mistake of the test."""
        raise AssertionError("the state of this environment is nobody's business")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `state_dict`."""
        raise AssertionError("the state of this environment is nobody's business")


def merged(where: Tensor, fresh: Timestep, old: Timestep) -> Timestep:
    def pick(new: Tensor, kept: Tensor) -> Tensor:
        return torch.where(where.view(-1, *[1] * (new.dim() - 1)), new, kept)

    groups = {}
    for name, new in fresh.groups.items():
        kept = old.groups[name]
        groups[name] = GroupStep(
            {key: pick(value, kept.observation[key]) for key, value in new.observation.items()},
            pick(new.action_mask, kept.action_mask),
            pick(new.acts, kept.acts),
            pick(new.present, kept.present),
            torch.zeros_like(new.reward),
            torch.ones_like(new.discount),
        )
    return Timestep(
        groups,
        pick(fresh.state, old.state),
        torch.zeros_like(old.team_reward),
        old.terminated & ~where,
        old.truncated & ~where,
        {},
    )


@dataclass
class Step:
    """One step of one environment: the timestep before it, what was done, the timestep after it, the memory before
    it."""

    before: Timestep
    actions: dict[str, Tensor]
    after: Timestep
    memory: Memory


@dataclass
class EpisodeRecord:
    """`environments[e]` is the list of the steps of environment e."""

    environments: list[list[Step]] = field(default_factory=list)

    def write(self, before: Timestep, actions: dict[str, Tensor], after: Timestep, memory: Memory) -> None:
        envs = len(after.team_reward)
        self.environments = self.environments or [[] for _ in range(envs)]
        for e in range(envs):
            self.environments[e].append(
                Step(
                    one_environment(before, e),
                    {name: action[e] for name, action in actions.items()},
                    one_environment(after, e),
                    {name: kept[e] for name, kept in memory.items()},
                )
            )


def one_environment(step: Timestep, e: int) -> Timestep:
    groups = {
        name: GroupStep(
            {key: value[e] for key, value in group.observation.items()},
            group.action_mask[e], group.acts[e], group.present[e], group.reward[e], group.discount[e],
        )
        for name, group in step.groups.items()
    }  # fmt: skip
    return Timestep(groups, step.state[e], step.team_reward[e], step.terminated[e], step.truncated[e], {})


class Whim:
    """A policy that draws any action and counts, as its memory, the steps of the episode that it has seen."""

    def start(self, num_envs: int) -> Memory:
        return {"a": torch.zeros(num_envs, 2, 1)}

    def act(self, timestep: Timestep, memory: Memory, generator: torch.Generator | None):
        envs = len(timestep.team_reward)
        actions = {
            "a": torch.randint(0, 3, (envs, 2), generator=generator),
            "b": torch.rand(envs, 1, 2, generator=generator),
        }
        return actions, {"a": memory["a"] + 1}


def play(env: Wild, replay_of, steps: int, policy: Policy | None = None, seed: int = 0):
    """Fills a replay and a record with the same steps; `replay_of(env, first)` makes the replay."""
    policy = policy or Whim()
    timestep, memory, record = env.reset(), policy.start(env.num_envs), EpisodeRecord()
    replay = replay_of(env, timestep)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        actions, then = policy.act(timestep, memory, generator)
        after = env.step(actions)
        record.write(timestep, actions, after, memory)
        resumed = after
        if bool(after.done.any()):
            resumed, then = env.reset(after.done), forget(then, after.done)
        replay.add(actions, after, resumed, then)
        timestep, memory = resumed, then
    return replay, record
