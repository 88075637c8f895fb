"""Cooperative navigation (Lowe et al. 2017, `simple_spread`) with the dynamics and rewards of MPE2's version 3.

N agents are to cover N landmarks without touching each other. All copies step in a few tensor operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Continuous, Discrete, GroupSpec, GroupStep, Timestep
from marl_pipeline.errors import UserError

DT = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
AGENT_RADIUS = 0.15
SENSITIVITY = 5.0
MESSAGE = 2
"""Width of an agent's message to each other; in this world all are silent and say zeros."""


class SimpleSpread:
    """Implements `envs.protocol.Environment`: one group `agents` of N.

    Observation `seen` [E, N, 2 + 2 + 2N + 2(N-1) + 2(N-1)]: own velocity, own position, landmarks and other agents
    relative to oneself, the others' messages (zeros). Actions: none, left, right, down, up; with `continuous` the five
    strengths in [0, 1]. Every agent is paid `1 - local_ratio` of the team's term (minus the distance of every landmark
    to its nearest agent) and `local_ratio` of its own (minus 1 for every agent that it touches). The state is all
    observations side by side. Episodes are truncated after `episode` steps.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        agents: int = 3,
        episode: int = 25,
        local_ratio: float = 0.5,
        continuous: bool = False,
    ) -> None:
        if agents < 1 or episode < 1 or not 0.0 <= local_ratio <= 1.0:
            raise UserError(
                "mpe/simple_spread: at least 1 agent, 1 step and a local ratio in [0, 1] are needed, found "
                f"agents={agents}, episode={episode}, local_ratio={local_ratio}"
            )
        self.num_envs = num_envs
        self.device = torch.device(device)
        width = 2 * MESSAGE + 2 * agents + (2 + MESSAGE) * (agents - 1)
        space = Continuous(5, 0.0, 1.0) if continuous else Discrete(5)
        self.groups = {"agents": GroupSpec(agents, {"seen": (width,)}, space)}
        self.state_size = agents * width
        self._agents, self._episode, self._local_ratio = agents, episode, local_ratio
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._thrust = SENSITIVITY * torch.tensor(
            [[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]], device=self.device
        )
        others = [[j for j in range(agents) if j != i] for i in range(agents)]
        self._others = torch.tensor(others, dtype=torch.int64, device=self.device).reshape(agents, agents - 1)
        self._self = torch.eye(agents, dtype=torch.bool, device=self.device)
        self._all = torch.ones(num_envs, agents, dtype=torch.bool, device=self.device)
        self._mask = torch.ones(num_envs, agents, space.mask_width, dtype=torch.bool, device=self.device)
        self._silence = torch.zeros(num_envs, agents, MESSAGE * (agents - 1), device=self.device)
        self._never = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._discount = torch.ones(num_envs, agents, device=self.device)
        self._velocity = torch.zeros(num_envs, agents, 2, device=self.device)
        self._position = torch.zeros(num_envs, agents, 2, device=self.device)
        self._landmark = torch.zeros(num_envs, agents, 2, device=self.device)
        self._clock = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    def reset(self, where: Tensor | None = None) -> Timestep:
        """See the protocol. What is drawn does not depend on `where`, so a seed fixes it."""
        drawn = torch.rand(self.num_envs, 2 * self._agents, 2, generator=self._generator, device=self.device) * 2 - 1
        position, landmark = drawn[:, : self._agents], drawn[:, self._agents :]
        if where is None:
            where = torch.ones_like(self._never)
        fresh = where[:, None, None]
        self._position = torch.where(fresh, position, self._position)
        self._landmark = torch.where(fresh, landmark, self._landmark)
        self._velocity = self._velocity.masked_fill(fresh, 0.0)
        self._clock = self._clock.masked_fill(where, 0)
        return self._timestep(torch.zeros_like(self._discount), self._apart())

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol. Forces act at the old positions, and positions move at the old velocity."""
        apart = self._apart()
        force = self._driven(actions["agents"]) + self._contact(apart)
        self._position = self._position + self._velocity * DT
        self._velocity = self._velocity * (1 - DAMPING) + force * DT
        self._clock = self._clock + 1
        apart = self._apart()
        uncovered = torch.cdist(self._landmark, self._position, compute_mode=EXACT).amin(-1).sum(-1)
        touching = (apart.norm(dim=-1) < 2 * AGENT_RADIUS) & ~self._self
        shared = -(1 - self._local_ratio) * uncovered.unsqueeze(-1)
        return self._timestep(shared - self._local_ratio * touching.sum(-1), apart)

    def state_dict(self) -> dict[str, Any]:
        return {
            "velocity": self._velocity.cpu().clone(),
            "position": self._position.cpu().clone(),
            "landmark": self._landmark.cpu().clone(),
            "clock": self._clock.cpu().clone(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._velocity, self._position = state["velocity"].to(self.device), state["position"].to(self.device)
        self._landmark, self._clock = state["landmark"].to(self.device), state["clock"].to(self.device)
        self._generator.set_state(state["generator"].cpu())

    def _apart(self) -> Tensor:
        """[E, N, N, 2]: [e, i, j] is where j is, seen from i."""
        return self._position.unsqueeze(1) - self._position.unsqueeze(2)

    def _driven(self, action: Tensor) -> Tensor:
        """[E, N, 2] the forces that the agents apply to themselves."""
        return action @ self._thrust if action.is_floating_point() else self._thrust[action]

    def _contact(self, apart: Tensor) -> Tensor:
        """[E, N, 2] the forces of bodies that overlap: a soft maximum of 0 and the depth of penetration."""
        distance = apart.norm(dim=-1)
        gap = (distance - 2 * AGENT_RADIUS) / CONTACT_MARGIN
        depth = torch.logaddexp(torch.zeros_like(gap), -gap) * CONTACT_MARGIN
        push: Tensor = (CONTACT_FORCE * depth / distance).masked_fill(self._self, 0.0)
        return -(push.unsqueeze(-1) * apart).sum(2)

    def _timestep(self, reward: Tensor, apart: Tensor) -> Timestep:
        envs, agents = self.num_envs, self._agents
        index = self._others.unsqueeze(-1).expand(envs, agents, agents - 1, 2)
        seen = torch.cat(
            [
                self._velocity,
                self._position,
                (self._landmark.unsqueeze(1) - self._position.unsqueeze(2)).flatten(2),
                apart.gather(2, index).flatten(2),
                self._silence,
            ],
            dim=-1,
        )
        step = GroupStep({"seen": seen}, self._mask, self._all, self._all, reward, self._discount)
        truncated = self._clock >= self._episode
        return Timestep({"agents": step}, seen.flatten(1), reward.sum(-1), self._never, truncated, {})


EXACT = "donot_use_mm_for_euclid_dist"
"""Distances without the cancellation of the expanded square."""
