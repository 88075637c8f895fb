"""A gated recurrent unit over the agents of a group, along time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from marl_pipeline.nn.linear import AgentLinear, Initialisation


@dataclass(frozen=True)
class RecurrentState:
    """What a recurrent network reads besides its rows [T, B, A, ...], which are B sequences of T steps.

    Attributes:
        memory: [B, A, H] before the first step.
        fresh: [T, B] bool, an episode starts at this step, so that nothing before it is remembered.
        present: [T, B, A] bool; an absent agent remembers nothing.
    """

    memory: Tensor
    fresh: Tensor
    present: Tensor


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014) with 1 or A sets of weights."""

    def __init__(
        self, inputs: int, width: int, *, sets: int, initial: Initialisation, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.of_input = AgentLinear(inputs, 3 * width, sets=sets, initial=initial, generator=generator)
        self.of_memory = AgentLinear(width, 3 * width, sets=sets, initial=initial, generator=generator)

    def forward(self, rows: Tensor, state: RecurrentState) -> Tensor:
        """Rows [T, B, A, inputs] to the memory after each step [T, B, A, H]."""
        memory, steps = state.memory, []
        for gates, fresh, present in zip(self.of_input(rows), state.fresh, state.present, strict=True):
            memory = memory.masked_fill(fresh[:, None, None], 0.0)
            memory = _gated(memory, gates, self.of_memory(memory)).masked_fill(~present.unsqueeze(-1), 0.0)
            steps.append(memory)
        return torch.stack(steps)


def _gated(memory: Tensor, of_input: Tensor, of_memory: Tensor) -> Tensor:
    """The next memory [..., H] from the linear maps [..., 3 H] of the input and of `memory`: reset, update and
    candidate. The memory keeps its precision, whatever that of the maps."""
    reset_in, update_in, new_in = of_input.to(memory.dtype).chunk(3, -1)
    reset_mem, update_mem, new_mem = of_memory.to(memory.dtype).chunk(3, -1)
    candidate = torch.tanh(new_in + torch.sigmoid(reset_in + reset_mem) * new_mem)
    return torch.lerp(candidate, memory, torch.sigmoid(update_in + update_mem))
