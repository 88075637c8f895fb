"""A small environment with choices and ranges, clocks, deaths and both kinds of ends: repeat what is observed.

Two groups: `speakers` (2 agents) hear two symbols and earn a half for each that they repeat; the first choice has a
fourth option that is never allowed, and the second speaker dies after 3 steps. `driver` (1 agent) observes two numbers
in [-2, 3] at every 2nd step, sets its two levers then, and loses the mean square of their distance at each step.
Episodes are truncated after 6 steps and terminate before with probability 0.05 per step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from marl_pipeline.envs.protocol import Continuous, GroupSpec, GroupStep, MultiDiscrete, Timestep

EPISODE = 6


class Echo:
    def __init__(self, num_envs: int, seed: int) -> None:
        self.num_envs, self.device, self.state_size = num_envs, torch.device("cpu"), 1
        self.groups = {
            "speakers": GroupSpec(2, {"heard": (5,)}, MultiDiscrete((4, 2))),
            "driver": GroupSpec(1, {"targets": (2,), "clock": ()}, Continuous(2, -2.0, 3.0)),
        }
        self._generator = torch.Generator().manual_seed(seed)
        self._step = torch.zeros(num_envs, dtype=torch.int64)
        self._heard = torch.zeros(num_envs, 2, 2, dtype=torch.int64)
        self._targets = torch.zeros(num_envs, 2)
        self._levers = torch.zeros(num_envs, 2)
        self._terminated = torch.zeros(num_envs, dtype=torch.bool)

    def reset(self, where: Tensor | None = None) -> Timestep:
        where = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        self._step = self._step.masked_fill(where, 0)
        self._terminated = self._terminated & ~where
        return self._timestep(torch.zeros(self.num_envs, 2), torch.zeros(self.num_envs, 1))

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        decides = (self._step % 2 == 0).unsqueeze(-1)
        self._levers = torch.where(decides, actions["driver"][:, 0], self._levers)
        present = self._present()
        said = (actions["speakers"] == self._heard).float().mean(-1) * present
        lost = -(self._levers - self._targets).square().mean(-1, keepdim=True)
        self._step = self._step + 1
        self._terminated = torch.rand(self.num_envs, generator=self._generator) < 0.05
        symbols = [torch.randint(0, n, (self.num_envs, 2), generator=self._generator) for n in (3, 2)]
        self._heard = torch.stack(symbols, -1)
        numbers = torch.rand(self.num_envs, 2, generator=self._generator) * 5 - 2
        self._targets = torch.where((self._step % 2 == 0).unsqueeze(-1), numbers, self._targets)
        return self._timestep(said, lost)

    def _present(self) -> Tensor:
        return torch.stack([torch.ones_like(self._terminated), self._step < 3], -1)

    def _timestep(self, said: Tensor, lost: Tensor) -> Timestep:
        e, present = self.num_envs, self._present()
        heard = torch.cat([one_hot(self._heard[..., 0], 3), one_hot(self._heard[..., 1], 2)], -1).float()
        allowed = torch.tensor([True, True, True, False, True, True]).expand(e, 2, 6)
        future = (~self._terminated).float().unsqueeze(-1)
        clock = (1 - self._step % 2).unsqueeze(-1)
        one = torch.ones(e, 1, dtype=torch.bool)
        targets = self._targets.unsqueeze(1)
        return Timestep(
            groups={
                "speakers": GroupStep({"heard": heard}, allowed, present, present, said, future * present),
                "driver": GroupStep(
                    {"targets": targets, "clock": clock.float()}, torch.ones(e, 1, 0, dtype=torch.bool), clock.bool(),
                    one, lost, future,
                ),
            },
            state=self._step.float().unsqueeze(-1) / EPISODE,
            team_reward=said.sum(-1) + lost.sum(-1),
            terminated=self._terminated,
            truncated=(self._step >= EPISODE) & ~self._terminated,
            info={},
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self._step, "heard": self._heard, "targets": self._targets, "levers": self._levers,
            "terminated": self._terminated, "generator": self._generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step, self._heard, self._targets = state["step"], state["heard"], state["targets"]
        self._levers, self._terminated = state["levers"], state["terminated"]
        self._generator.set_state(state["generator"])
