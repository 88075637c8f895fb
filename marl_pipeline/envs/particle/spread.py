"""Cooperative navigation (Lowe et al. 2017, `simple_spread`) with the dynamics and rewards of MPE2's version 3.

N agents are to cover N landmarks without touching each other. All environments step in a few tensor operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from marl_pipeline.envs.protocol import Continuous, Discrete, GroupSpec, GroupStep, Timestep
from marl_pipeline.errors import UserError

DT = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
AGENT_RADIUS = 0.15
SENSITIVITY = 5.0
MESSAGE = 2
"""Width of an agent's message to each other, as many as a point has; in this world all are silent and say zeros."""


class SimpleSpread:
    """Implements `envs.protocol.Environment`: one group `agents` of N.

    Observation `seen` [E, N, 2 + 2 + 2N + 2(N-1) + 2(N-1)]: own velocity, own position, landmarks and other agents
    relative to oneself, the others' messages (zeros). Actions: none, left, right, down, up; with `continuous` the five
    strengths in [0, 1]. Every agent is paid `1 - local_ratio` of the team's term (minus the distance of every landmark
    to its nearest agent) and `local_ratio` of its own (minus 1 for every agent that it touches). The state is all
    observations side by side. Episodes are truncated after `episode` steps.

    `info` of a step: `uncovered` [E], the distances of all landmarks to their nearest agents added up, and `touching`
    [E, N], how many others an agent touches.
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
        pairs = [pair for agent in range(agents) for pair in _seen_entities(agent, agents)]
        self._to, self._from = torch.tensor(pairs, device=self.device).unbind(-1)
        self._all = torch.ones(num_envs, agents, dtype=torch.bool, device=self.device)
        self._mask = torch.ones(num_envs, agents, space.mask_width, dtype=torch.bool, device=self.device)
        self._never = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._discount = torch.ones(num_envs, agents, device=self.device)
        self._nothing = torch.zeros(num_envs, agents, device=self.device)
        self._origin = torch.zeros(num_envs, 1, 2, device=self.device)
        self._velocity = torch.zeros(num_envs, agents, 2, device=self.device)
        self._position = torch.zeros(num_envs, agents, 2, device=self.device)
        self._landmark = torch.zeros(num_envs, agents, 2, device=self.device)
        self._clock = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._update_views()

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
        self._update_views()
        return self._timestep(self._nothing, {})

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol. Forces act at the old positions, and positions move at the old velocity."""
        force = self._driven(actions["agents"]) + self._contact()
        self._position = self._position + self._velocity * DT
        self._velocity = self._velocity * (1 - DAMPING) + force * DT
        self._clock = self._clock + 1
        self._update_views()
        to_landmarks, to_others = torch.split(self._distance, [self._agents, self._agents - 1], dim=-1)
        uncovered = to_landmarks.amin(1).sum(-1, keepdim=True)
        touching = (to_others < 2 * AGENT_RADIUS).sum(-1)
        info = {"uncovered": uncovered.squeeze(-1), "touching": touching}
        return self._timestep(-(1 - self._local_ratio) * uncovered - self._local_ratio * touching, info)

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
        self._update_views()

    def _update_views(self) -> None:
        """Writes down what the agents see from where they are now, and how far the landmarks and the others are."""
        bodies = torch.cat([self._velocity, self._position, self._landmark, self._origin], dim=1)
        seen = bodies.index_select(1, self._to) - bodies.index_select(1, self._from)
        seen = seen.view(self.num_envs, self._agents, -1, 2)
        self._seen = seen.flatten(2)
        near = seen[:, :, 2 : 1 + 2 * self._agents]
        self._others = near[:, :, self._agents :]
        self._distance = torch.hypot(near[..., 0], near[..., 1])

    def _driven(self, action: Tensor) -> Tensor:
        """[E, N, 2] the forces that the agents apply to themselves."""
        return action @ self._thrust if action.is_floating_point() else self._thrust[action]

    def _contact(self) -> Tensor:
        """[E, N, 2] the forces of bodies that overlap: a soft maximum of 0 and the depth of penetration."""
        distance = self._distance[:, :, self._agents :]
        depth = softplus(2 * AGENT_RADIUS - distance, beta=1 / CONTACT_MARGIN)
        return (self._others * (-CONTACT_FORCE * depth / distance).unsqueeze(-1)).sum(2)

    def _timestep(self, reward: Tensor, info: Mapping[str, Tensor]) -> Timestep:
        step = GroupStep({"seen": self._seen}, self._mask, self._all, self._all, reward, self._discount)
        truncated = self._clock >= self._episode
        return Timestep({"agents": step}, self._seen.flatten(1), reward.sum(-1), self._never, truncated, info)


def _seen_entities(agent: int, agents: int) -> list[tuple[int, int]]:
    """The entries of an agent's observation as (body, body it is seen from).

    Bodies are numbered: velocities, positions, landmarks, the origin. Own velocity and position and the messages
    (zeros) are seen from the origin.
    """
    origin, self_ = 3 * agents, agents + agent
    others = [agents + other for other in range(agents) if other != agent]
    own = [(agent, origin), (self_, origin)]
    relative = [(2 * agents + landmark, self_) for landmark in range(agents)] + [(other, self_) for other in others]
    return own + relative + [(origin, origin)] * len(others)
