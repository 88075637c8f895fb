"""The one linear layer of all learners: over the agents of a group, with weights that they share or own.

Rows are [..., A, inputs]. A layer has `sets` sets of weights, 1 that all agents share or A, one for each; and for twin
critics `replicas` of all that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Initialisation = Callable[[Tensor, Tensor, torch.Generator], None]
"""Fills one set of weights [outputs, inputs] and its biases [..., outputs] in place."""


def orthogonal(gain: float = 1.0) -> Initialisation:
    """Orthogonal weights and zero biases, which on-policy learners are sensitive to (Yu et al. 2022, table 7)."""

    def fill(weight: Tensor, bias: Tensor, generator: torch.Generator) -> None:
        nn.init.orthogonal_(weight, gain, generator=generator)
        nn.init.zeros_(bias)

    return fill


def uniform(scale: float = 1.0) -> Initialisation:
    """Weights and biases uniform in +-scale/sqrt(inputs); with `scale` 1 as `torch.nn.Linear` is initialised."""

    def fill(weight: Tensor, bias: Tensor, generator: torch.Generator) -> None:
        bound = scale * weight.shape[-1] ** -0.5
        nn.init.uniform_(weight, -bound, bound, generator=generator)
        nn.init.uniform_(bias, -bound, bound, generator=generator)

    return fill


class AgentLinear(nn.Module):
    """A linear map of rows [..., A, inputs]: one product, whatever the number of agents.

    Args:
        sets: 1, shared by all agents (rows may then have any leading dimensions), or A.
        biases: how many biases a replica has, 1 or A; as many as sets by default. A biases beside a shared set of
            weights are what a one-hot agent id among the inputs adds.
        replicas: K; rows then have a first dimension of K, one for each replica. None for a layer without it.
        generator: draws the initial weights.

    Attributes:
        weight: [K, sets, outputs, inputs].
        bias: [K, biases, outputs].
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        sets: int,
        initial: Initialisation,
        generator: torch.Generator,
        biases: int | None = None,
        replicas: int | None = None,
    ) -> None:
        super().__init__()
        self.replicated, k = replicas is not None, replicas or 1
        self.weight = nn.Parameter(torch.empty(k, sets, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(k, biases or sets, outputs))
        with torch.no_grad():
            for weights, bias in zip(self.weight, self.bias, strict=True):
                share = bias.view(sets, -1, outputs)
                for index in range(sets):
                    initial(weights[index], share[index], generator)

    def forward(self, rows: Tensor) -> Tensor:
        """[..., A, inputs] to [..., A, outputs]; with replicas [K, ..., A, inputs] to [K, ..., A, outputs]."""
        k, sets, outputs, inputs = self.weight.shape
        one_bias = self.bias.shape[1] == sets
        if k == sets == 1:
            weight = self.weight[0, 0]
            if one_bias:
                return functional.linear(rows, weight, self.bias[0, 0])
            return functional.linear(rows, weight) + self.bias[0]
        shape = (*rows.shape[:-1], outputs)
        by_set = rows.reshape(k, -1, sets, inputs).transpose(1, 2).flatten(0, 1)  # [K sets, rows, inputs]
        weight = self.weight.flatten(0, 1).transpose(1, 2)
        if one_bias:
            product = torch.baddbmm(self.bias.reshape(k * sets, 1, outputs), by_set, weight)
            return product.view(k, sets, -1, outputs).transpose(1, 2).reshape(shape)
        product = torch.bmm(by_set, weight).reshape(k, -1, self.bias.shape[1], outputs)
        return (product + self.bias.unsqueeze(1)).reshape(shape)

    def seen_by_all(self, rows: Tensor) -> Tensor:
        """Rows [..., inputs] that all agents see, multiplied once: [..., biases, outputs], with replicas [K, ...].

        A layer that is shared whole gives one row for all agents, otherwise there is one for each.
        """
        k, sets, outputs, _ = self.weight.shape
        product = (
            functional.linear(rows, self.weight.flatten(0, 2)).view(*rows.shape[:-1], k, sets, outputs) + self.bias
        )
        return product.movedim(-3, 0) if self.replicated else product.squeeze(-3)


class AgentLayerNorm(nn.Module):
    """Layer normalisation of rows [..., A, width] (Ba et al. 2016) with 1 or A sets of weights.

    For hidden layers: of a row of inputs it would hide the level and the scale.
    """

    def __init__(self, width: int, sets: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(sets, width))
        self.bias = nn.Parameter(torch.zeros(sets, width))

    def forward(self, rows: Tensor) -> Tensor:
        sets, width = self.weight.shape
        if sets == 1:
            return functional.layer_norm(rows, (width,), self.weight[0], self.bias[0])
        return functional.layer_norm(rows, (width,)) * self.weight + self.bias


class AgentHead(nn.Module):
    """A shared output layer plus a correction for every agent, which starts at zero: [..., A, inputs] to
    [..., A, outputs].

    An agent that was never seen acts by the shared layer, and one that goes leaves nothing behind.

    Attributes:
        correction: [A, inputs, outputs].
    """

    def __init__(self, shared: AgentLinear, agents: int) -> None:
        super().__init__()
        outputs, inputs = shared.weight.shape[2:]
        self.shared = shared
        self.correction = nn.Parameter(torch.zeros(agents, inputs, outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """One batched product for all agents; one row [..., 1, inputs] is seen by all of them."""
        agents, inputs, outputs = self.correction.shape
        rows = rows.expand(*rows.shape[:-2], agents, inputs)
        shared: Tensor = self.shared(rows)
        by_agent = rows.reshape(-1, agents, inputs).transpose(0, 1)
        both = torch.baddbmm(shared.reshape(-1, agents, outputs).transpose(0, 1), by_agent, self.correction)
        return both.transpose(0, 1).reshape(shared.shape)
