"""A small environment with one of everything: all action spaces, masks, an agent that dies, one that comes late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import (
    ActionSpace,
    Continuous,
    Discrete,
    GroupSpec,
    GroupStep,
    MultiDiscrete,
    Timestep,
)

EPISODE = 9
DIES, JOINS = 4, 2


class Menagerie:
    """Every agent sees the clock and what was last played by its group, and is paid the sum of its own numbers.

    `pickers` (2 agents, two choices; the second choice's last option is never allowed) lose agent 1 after step DIES;
    `drivers` (1 agent, continuous) act at every other step; `late` (1 agent, discrete) comes at step JOINS.
    Environments with an odd first colour are terminated after EPISODE steps, the others truncated.
    """

    def __init__(self, num_envs: int, seed: int) -> None:
        self.num_envs, self.device, self.state_size = num_envs, torch.device("cpu"), 1
        self.groups = {
            "pickers": GroupSpec(2, {"clock": (), "played": (2,), "colour": ()}, MultiDiscrete((2, 3))),
            "drivers": GroupSpec(1, {"clock": (), "played": (2,), "colour": ()}, Continuous(2, -1.0, 3.0)),
            "late": GroupSpec(1, {"clock": (), "played": (1,), "colour": ()}, Discrete(3)),
        }
        self._generator = torch.Generator().manual_seed(seed)
        self._clock = torch.zeros(num_envs, dtype=torch.int64)
        self._colour = torch.zeros(num_envs, dtype=torch.int64)
        self._played = {
            name: torch.zeros(num_envs, spec.agents, spec.actions.shape[0] if spec.actions.shape else 1)
            for name, spec in self.groups.items()
        }

    def reset(self, where: Tensor | None = None) -> Timestep:
        where = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        drawn = torch.randint(4, (self.num_envs,), generator=self._generator)
        self._colour = torch.where(where, drawn, self._colour)
        self._clock = self._clock.masked_fill(where, 0)
        self._played = {name: kept.masked_fill(where[:, None, None], 0.0) for name, kept in self._played.items()}
        return self._timestep({name: torch.zeros(self.num_envs, spec.agents) for name, spec in self.groups.items()})

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        rewards = {}
        for name, spec in self.groups.items():
            acts, _ = self._roles(name)
            chosen = actions[name].float().reshape(self.num_envs, spec.agents, -1) * acts.unsqueeze(-1)
            self._played[name] = chosen
            rewards[name] = chosen.sum(-1)
        self._clock = self._clock + 1
        return self._timestep(rewards)

    def _roles(self, name: str) -> tuple[Tensor, Tensor]:
        """[E, A] who acts, who is present."""
        clock = self._clock.unsqueeze(-1)
        if name == "pickers":
            present = torch.cat([clock >= 0, clock < DIES], -1)
            return present, present
        if name == "drivers":
            return clock % 2 == 0, clock >= 0
        return clock >= JOINS, clock >= JOINS

    def _timestep(self, rewards: Mapping[str, Tensor]) -> Timestep:
        over, odd = self._clock >= EPISODE, self._colour % 2 == 1
        terminated = over & odd
        groups = {}
        for name, spec in self.groups.items():
            acts, present = self._roles(name)
            clock, colour = self._clock.unsqueeze(-1).expand_as(acts), self._colour.unsqueeze(-1).expand_as(acts)
            died = (self._clock >= DIES).unsqueeze(-1) & ~present
            groups[name] = GroupStep(
                {"clock": clock.float(), "played": self._played[name], "colour": colour},
                mask_of(spec.actions).expand(self.num_envs, spec.agents, -1),
                acts,
                present,
                rewards[name],
                (~(died | terminated.unsqueeze(-1))).float(),
            )
        team = torch.stack([reward.sum(-1) for reward in rewards.values()]).sum(0)
        return Timestep(groups, self._clock.float().unsqueeze(-1), team, terminated, over & ~odd, {})

    def state_dict(self) -> dict[str, Any]:
        return {
            "clock": self._clock, "colour": self._colour, "played": dict(self._played),
            "generator": self._generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._clock, self._colour, self._played = state["clock"], state["colour"], dict(state["played"])
        self._generator.set_state(state["generator"])


def mask_of(space: ActionSpace) -> Tensor:
    """[mask_width] all allowed, but the last option of a last choice that is one of several."""
    mask = torch.ones(space.mask_width, dtype=torch.bool)
    if isinstance(space, MultiDiscrete):
        mask[-1] = False
    return mask
