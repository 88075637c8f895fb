"""Layers of learners of action values, initialised as torch's own layers are: per agent, duelling, with memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from marl_pipeline.nn.layers import gated, per_agent


class AgentLinear(nn.Module):
    """A linear layer for each of A agents: [..., A, inputs] to [..., A, outputs], initialised as `nn.Linear` is."""

    def __init__(self, agents: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(agents, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(agents, 1, outputs).uniform_(-bound, bound))

    def forward(self, rows: Tensor) -> Tensor:
        return per_agent(rows, self.weight, self.bias)


def linear(inputs: int, outputs: int, agents: int | None) -> nn.Module:
    """One layer for all agents, or with `agents` one for each."""
    return nn.Linear(inputs, outputs) if agents is None else AgentLinear(agents, inputs, outputs)


def mlp(inputs: int, hidden: Sequence[int], *, layer_norm: bool, agents: int | None = None) -> nn.Sequential:
    """Linear layers, each followed by ReLU (and before it by LayerNorm), drawn from torch's global generator."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [linear(inputs, width, agents), *([nn.LayerNorm(width)] if layer_norm else []), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers)


class Duelling(nn.Module):
    """Action values as a state's value plus advantages of mean zero (Wang et al. 2016, eq. 9)."""

    def __init__(self, inputs: int, actions: int, agents: int | None = None) -> None:
        super().__init__()
        self.value = linear(inputs, 1, agents)
        self.advantage = linear(inputs, actions, agents)

    def forward(self, rows: Tensor) -> Tensor:
        value: Tensor = self.value(rows)
        advantage: Tensor = self.advantage(rows)
        return value + advantage - advantage.mean(-1, keepdim=True)


class GRU(nn.Module):
    """A gated recurrent unit along time, whose memory can start anew between two steps."""

    def __init__(self, inputs: int, width: int, agents: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.inner = linear(inputs, 3 * width, agents)
        self.recurrent = linear(width, 3 * width, agents)

    def forward(self, rows: Tensor, memory: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [L, B, A, H] for rows [L, B, A, inputs], and the memory [B, A, H] after the last of them.

        Args:
            memory: [B, A, H] before the first row.
            ends: [L - 1, B] bool, the episode ends with this row: the next one starts from zeros.
        """
        outputs: list[Tensor] = []
        for step, gates in enumerate(self.inner(rows)):
            if step > 0:
                memory = memory.masked_fill(ends[step - 1][:, None, None], 0.0)
            memory = gated(memory, gates, self.recurrent(memory))
            outputs.append(memory)
        return torch.stack(outputs), memory
