"""Networks of many agents as one batched product: per-agent weights side by side, or one set that all agents share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class StackedMLP(nn.Module):
    """K x A perceptrons with ReLU between their layers, of equal widths.

    With `shared` the A agents use one set of weights and have a first bias each: what a one-hot agent id among the
    inputs would add. Weights are [K, A or 1, in, out], the first bias [K, A, 1, out], the others [K, A or 1, 1, out].

    Args:
        copies: K, independent networks per agent (twin critics); 1 for an actor.
        agents: A.
        shared: one set of weights for all agents of a copy.
        widths: inputs, hidden layers, outputs.
        output_scale: factor on the last layer's initial weights; below 1 the first outputs are close to 0.
        generator: the initial weights are uniform in +-1/sqrt(in), as those of `nn.Linear`.
    """

    def __init__(
        self,
        copies: int,
        agents: int,
        *,
        shared: bool,
        widths: Sequence[int],
        output_scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sets = 1 if shared else agents
        layers = list(pairwise(widths))
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for index, (inputs, outputs) in enumerate(layers):
            bound = inputs**-0.5 * (output_scale if index == len(layers) - 1 else 1.0)
            for parameters, shape in (
                (self.weights, (copies, sets, inputs, outputs)),
                (self.biases, (copies, agents if index == 0 else sets, 1, outputs)),
            ):
                parameters.append(nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) * bound))

    def forward(self, rows: Tensor) -> Tensor:
        """[A, B, in], the rows of every agent, to [K, A, B, out]."""
        return self.finish(self._product(rows.unsqueeze(0), 0))

    def first(self, rows: Tensor) -> Tensor:
        """[B, in], rows that all agents see, to the first layer before its activation [K, A, B, width].

        A shared layer multiplies once for all agents.
        """
        bias: Tensor = self.biases[0]
        return torch.einsum("bi,ksio->ksbo", rows, self.weights[0]) + bias

    def finish(self, first: Tensor) -> Tensor:
        """From the first layer before its activation [K, A, B, width] to the outputs [K, A, B, out]."""
        hidden = first
        for layer in range(1, len(self.weights)):
            hidden = self._product(hidden.relu(), layer)
        return hidden

    def _product(self, rows: Tensor, layer: int) -> Tensor:
        weight: Tensor = self.weights[layer]
        bias: Tensor = self.biases[layer]
        if bias.shape[:2] == (1, 1):  # one set for all rows: a single large product
            return functional.linear(rows, weight[0, 0].T, bias[0, 0, 0])
        return rows @ weight + bias


class CentralCritics(StackedMLP):
    """The value of every agent of a group from what all agents of all groups see and do (Lowe et al. 2017, eq. 5).

    Args:
        width: of the joint row.
        slot: where this group's actions start in the joint row; agent i's are the `action_width` columns from
            `slot + i * action_width`.
    """

    def __init__(
        self,
        copies: int,
        agents: int,
        *,
        shared: bool,
        width: int,
        slot: int,
        action_width: int,
        hidden: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        super().__init__(
            copies, agents, shared=shared, widths=(width, *hidden, 1), output_scale=1.0, generator=generator
        )
        self._agents, self._shared, self._slot, self._action_width = agents, shared, slot, action_width

    def forward(self, rows: Tensor) -> Tensor:
        """[B, width], the joint rows, to [K, A, B]."""
        return self.finish(self.first(rows)).squeeze(-1)

    def deviating(self, rows: Tensor, change: Tensor) -> Tensor:
        """Values [K, A, B] when each agent alone deviates from the joint action of `rows` by its `change`.

        The first layer is linear, so agent i's deviation adds to it without a joint row per agent; a gradient reaches
        agent i's change through agent i's own value only.

        Args:
            rows: [B, width].
            change: [A, B, action_width].
        """
        stop = self._slot + self._agents * self._action_width
        weight = self.weights[0][:, :, self._slot : stop].unflatten(2, (self._agents, self._action_width))
        own = weight[:, 0] if self._shared else weight.diagonal(dim1=1, dim2=2).movedim(-1, 1)  # [K, A, action, width]
        return self.finish(self.first(rows) + change @ own).squeeze(-1)
