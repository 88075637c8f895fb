"""A small environment with every kind of action space, agents that die, and both ends of an episode.

Everybody is shown a target and earns by hitting it: `choosers` name one of 3, `pickers` a pair, `movers` a point in
[-1, 1]^2 (minus the squared distance). With `recall` the choosers are shown it in the first step of an episode only
and must remember it. From the `death`-th step on the second mover of every other environment is dead. Episodes have 5
steps: environments with an even number terminate, the others are truncated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from marl_pipeline.envs.protocol import Continuous, Discrete, GroupSpec, GroupStep, MultiDiscrete, Timestep

EPISODE = 5


class Targets:
    def __init__(self, num_envs: int, seed: int, *, agents: int = 2, recall: bool = False, death: int = 4) -> None:
        self.num_envs, self.device, self.state_size = num_envs, torch.device("cpu"), 3 * agents + 1
        self.groups = {
            "choosers": GroupSpec(agents, {"shown": (3,)}, Discrete(3)),
            "pickers": GroupSpec(1, {"shown": (5,)}, MultiDiscrete((3, 2))),
            "movers": GroupSpec(2, {"shown": (2,)}, Continuous(2, -1.0, 1.0)),
        }
        self._agents, self._recall, self._death = agents, recall, death
        self._generator = torch.Generator().manual_seed(seed)
        self._step = torch.zeros(num_envs, dtype=torch.int64)
        self._even = torch.arange(num_envs) % 2 == 0
        self._draw()

    def _draw(self) -> dict[str, Tensor]:
        envs, generator = self.num_envs, self._generator
        self._targets = {
            "choosers": torch.randint(3, (envs, self._agents), generator=generator),
            "pickers": torch.stack([torch.randint(n, (envs, 1), generator=generator) for n in (3, 2)], -1),
            "movers": torch.rand(envs, 2, 2, generator=generator) - 0.5,
        }
        return self._targets

    def reset(self, where: Tensor | None = None) -> Timestep:
        where = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        self._step = self._step.masked_fill(where, 0)
        old = dict(self._targets)
        new = self._draw()
        for name in new:
            fresh = where.reshape(-1, *[1] * (new[name].dim() - 1))
            self._targets[name] = torch.where(fresh, new[name], old[name])
        zeros = {name: torch.zeros(self.num_envs, spec.agents) for name, spec in self.groups.items()}
        return self._timestep(zeros)

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        targets, alive = self._targets, self._alive()
        reward = {
            "choosers": (actions["choosers"] == targets["choosers"]).float(),
            "pickers": (actions["pickers"] == targets["pickers"]).all(-1).float(),
            "movers": -(actions["movers"] - targets["movers"]).square().sum(-1) * alive,
        }
        self._step = self._step + 1
        if not self._recall:
            self._draw()
        return self._timestep(reward)

    def _alive(self) -> Tensor:
        dead = (self._step >= self._death) & self._even
        return torch.stack([torch.ones_like(dead), ~dead], -1)

    def _timestep(self, reward: dict[str, Tensor]) -> Timestep:
        envs = self.num_envs
        over = self._step >= EPISODE
        terminated, truncated = over & self._even, over & ~self._even
        chosen = one_hot(self._targets["choosers"], 3).float()
        if self._recall:
            chosen = chosen * (self._step == 0)[:, None, None]
        picked = self._targets["pickers"]
        shown = {
            "choosers": chosen,
            "pickers": torch.cat([one_hot(picked[..., 0], 3), one_hot(picked[..., 1], 2)], -1).float(),
            "movers": self._targets["movers"].float(),
        }
        present = {name: torch.ones(envs, spec.agents, dtype=torch.bool) for name, spec in self.groups.items()}
        present["movers"] = self._alive()
        groups = {}
        for name, spec in self.groups.items():
            lives = (present[name] & ~terminated.unsqueeze(-1)).float()
            mask = torch.ones(envs, spec.agents, spec.actions.mask_width, dtype=torch.bool)
            groups[name] = GroupStep({"shown": shown[name]}, mask, present[name], present[name], reward[name], lives)
        state = torch.cat([chosen.flatten(1), self._step.float().unsqueeze(-1) / EPISODE], -1)
        team = torch.stack([part.sum(-1) for part in reward.values()]).sum(0)
        return Timestep(groups, state, team, terminated, truncated, {})

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "targets": dict(self._targets), "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step, self._targets = state["step"], dict(state["targets"])
        self._generator.set_state(state["generator"])
