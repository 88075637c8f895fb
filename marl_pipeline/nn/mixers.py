"""From the utilities of single agents to one value of the team that every agent can climb alone.

The greedy action of each agent by its own utility is the greedy joint action by the team's value whenever that value
does not fall as a utility rises. A sum has this property, and so has any network with weights that are not negative.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_pipeline.nn.linear import AgentLinear, uniform


class Sum(nn.Module):
    """Value decomposition network (Sunehag et al. 2018): the team's value is the sum of the utilities."""

    def forward(self, utilities: Tensor, state: Tensor) -> Tensor:
        """[..., N] to [...]; the state is not looked at."""
        return utilities.sum(-1)


class Monotonic(nn.Module):
    """QMIX's mixing network (Rashid et al. 2020, section 4.1): two layers with weights |w(s)| from hypernetworks.

    Its size grows linearly with the number of agents.

    Args:
        agents: N, of all groups.
        state: S, width of the state.
        width: of the mixing network's hidden layer.
        hyper: width of the hypernetworks' hidden layers.
        generator: draws the initial weights.
    """

    def __init__(self, agents: int, state: int, *, width: int, hyper: int, generator: torch.Generator) -> None:
        super().__init__()
        self.agents, self.width = agents, width

        def linear(inputs: int, outputs: int) -> AgentLinear:
            return AgentLinear(inputs, outputs, sets=1, initial=uniform(), generator=generator)

        self.hidden = linear(state, 2 * hyper)  # the hidden layers of both weight networks side by side
        self.first_weight = linear(hyper, agents * width)
        self.second_weight = linear(hyper, width)
        self.bias = linear(state, 2 * width)  # the first layer's bias, and the hidden layer of the state's value
        self.value = linear(width, 1)

    def forward(self, utilities: Tensor, state: Tensor) -> Tensor:
        """Utilities [..., N] in the state [..., S] to the team's value [...]."""
        for_first, for_second = functional.relu(self.hidden(state)).chunk(2, -1)
        first = self.first_weight(for_first).abs().unflatten(-1, (self.agents, self.width))
        second = self.second_weight(for_second).abs()
        bias, value = self.bias(state).chunk(2, -1)
        mixed = functional.elu(torch.einsum("...n,...nw->...w", utilities, first) + bias)
        total: Tensor = (mixed * second).sum(-1) + self.value(functional.relu(value)).squeeze(-1)
        return total
