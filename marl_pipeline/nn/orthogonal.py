"""Layers over the agents of a group, with the orthogonal weights that on-policy learners are sensitive to (Yu et al.
2022, table 7). A layer has `copies` sets of weights: 1 that all agents share, or A, one for each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_pipeline.nn.layers import gated, per_agent


class AgentNorm(nn.Module):
    """LayerNorm of rows [..., A, width] with `copies` sets of weights: 1 for all agents, or A, one for each."""

    def __init__(self, width: int, copies: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(copies, width))
        self.bias = nn.Parameter(torch.zeros(copies, width))

    def forward(self, rows: Tensor) -> Tensor:
        copies, width = self.weight.shape
        if copies == 1:
            return functional.layer_norm(rows, (width,), self.weight[0], self.bias[0])
        return functional.layer_norm(rows, (width,)) * self.weight + self.bias


class OrthogonalLinear(nn.Module):
    """A linear map of rows [..., A, inputs] with `copies` sets of weights: 1 for all agents, or A, one for each."""

    def __init__(self, inputs: int, outputs: int, copies: int, gain: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(copies, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(copies, outputs))
        for weight in self.weight.unbind():
            nn.init.orthogonal_(weight, gain, generator=generator)

    def forward(self, rows: Tensor) -> Tensor:
        if len(self.weight) == 1:
            return functional.linear(rows, self.weight[0], self.bias[0])
        return per_agent(rows, self.weight.transpose(1, 2), self.bias.unsqueeze(1))


class OrthogonalGRU(nn.Module):
    """A gated recurrent unit over sequences of rows, with 1 or A sets of weights."""

    def __init__(self, inputs: int, width: int, copies: int, generator: torch.Generator) -> None:
        super().__init__()
        self.of_input = OrthogonalLinear(inputs, 3 * width, copies, 1.0, generator)
        self.of_memory = OrthogonalLinear(width, 3 * width, copies, 1.0, generator)

    def forward(self, rows: Tensor, memory: Tensor, fresh: Tensor, present: Tensor) -> Tensor:
        """What it remembers after each step, [M, C, A, width].

        Args:
            rows: [M, C, A, inputs], M sequences of C steps.
            memory: [M, A, width] before the first step.
            fresh: [M, C] bool, an episode starts at this step, so that nothing before it is remembered.
            present: [M, C, A] bool; an absent agent remembers nothing.
        """
        steps = []
        for of_input, starts, there in zip(
            self.of_input(rows).unbind(1), fresh.unbind(1), present.unbind(1), strict=True
        ):
            memory = memory.masked_fill(starts[:, None, None], 0.0)
            memory = gated(memory, of_input, self.of_memory(memory)).masked_fill(~there.unsqueeze(-1), 0.0)
            steps.append(memory)
        return torch.stack(steps, 1)
