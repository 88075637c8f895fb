"""What simple_spread pays without learning: a policy that assigns landmarks to agents and steers each to its own.

It sees all agents at once, so no decentralised policy need reach it; it is a yardstick, as random play is
(`envs.sampling.RandomPolicy`).
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from marl_pipeline.envs.protocol import Timestep

AHEAD = 0.3
"""Time for which the speed is counted on before a push must turn it: coasting carries 0.4 (DT over DAMPING) times the
speed, but pushes brake too. This and REACH are the best of a few tried on episodes of their own."""
REACH = 0.1
"""How far a push is taken to carry: an agent that is off by less than half of it does not push."""
PUSHES = ((0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))


class GreedyAssignment:
    """Each agent heads for its landmark under the assignment of least total distance, chosen anew at every step.

    It plays the push that brings where the agent is going nearest to its landmark. Acts as
    `algos.algorithm.Policy` does, without memory, weights or exploration; for discrete actions.
    """

    module = nn.Module()

    def start(self, num_envs: int) -> dict[str, Tensor]:
        return {}

    def act(
        self, timestep: Timestep, memory: dict[str, Tensor], generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        seen = timestep.groups["agents"].observation["seen"]
        velocity, agents = seen[..., :2], seen.shape[1]
        landmarks = seen[..., 4 : 4 + 2 * agents].reshape(*seen.shape[:2], agents, 2)
        mine = _assigned(landmarks.norm(dim=-1)).view(*seen.shape[:2], 1, 1).expand(-1, -1, -1, 2)
        missing = landmarks.gather(2, mine).squeeze(2) - AHEAD * velocity
        pushes = REACH * torch.tensor(PUSHES, device=seen.device)
        left = (missing.unsqueeze(2) - pushes).norm(dim=-1)
        return {"agents": left.argmin(-1)}, {}


def _assigned(distance: Tensor) -> Tensor:
    """[E, N] the landmark of each agent for the distances [E, N agents, N landmarks]."""
    columns = [torch.from_numpy(linear_sum_assignment(copy)[1]) for copy in distance.cpu().numpy()]
    return torch.stack(columns).to(distance.device)
