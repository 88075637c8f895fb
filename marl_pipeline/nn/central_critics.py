"""Critics that see what all agents see and do."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_pipeline.nn.mlp import MLP
from marl_pipeline.nn.settings import NetworkSettings


class CentralCritics(MLP):
    """The value of every agent of a group from what all agents of all groups see and do (Lowe et al. 2017, eq. 5).

    Args:
        width: of the joint row.
        slot: where this group's actions start in the joint row; agent i's are the `action_width` columns from
            `slot + i * action_width`.
        replicas: K, independent critics of each agent.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        width: int,
        slot: int,
        action_width: int,
        agents: int,
        replicas: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(width, 1, settings, agents=agents, output_scale=1.0, replicas=replicas, generator=generator)
        self._agents, self._slot, self._action_width = agents, slot, action_width

    def forward(self, rows: Tensor) -> Tensor:
        """[B, width], the joint rows, to [K, B, A]."""
        return self.finish(self.first.seen_by_all(rows)).squeeze(-1)

    def deviating(self, rows: Tensor, change: Tensor) -> Tensor:
        """Values [K, B, A] when each agent alone deviates from the joint action of `rows` by its `change`.

        The first layer is linear, so agent i's deviation adds to it without a joint row per agent; a gradient reaches
        agent i's change through agent i's own value only.

        Args:
            rows: [B, width].
            change: [B, A, action_width].
        """
        stop = self._slot + self._agents * self._action_width
        weight = self.first.weight[..., self._slot : stop]
        weight = weight.reshape(*weight.shape[:-1], self._agents, self._action_width)
        own = weight[:, 0].transpose(1, 2) if weight.shape[1] == 1 else weight.diagonal(dim1=1, dim2=3).movedim(-1, 1)
        # own: [K, A, hidden, action]
        added = change.transpose(0, 1) @ own.transpose(-1, -2)
        return self.finish(self.first.seen_by_all(rows) + added.transpose(1, 2)).squeeze(-1)
