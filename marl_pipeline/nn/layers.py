"""The arithmetic that networks over the agents of a group share, however their weights were drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def per_agent(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Rows [..., A, inputs], each agent's by its own weight [A, inputs, outputs] and bias [A, 1, outputs]: one batched
    product, whatever the number of agents."""
    by_agent = rows.reshape(-1, *rows.shape[-2:]).transpose(0, 1)
    return torch.baddbmm(bias, by_agent, weight).transpose(0, 1).reshape(*rows.shape[:-1], -1)


def gated(memory: Tensor, of_input: Tensor, of_memory: Tensor) -> Tensor:
    """The next memory [..., H] of a gated recurrent unit (Cho et al. 2014) from the linear maps [..., 3 H] of the input
    and of `memory`: reset, update and candidate. What is remembered keeps its precision, whatever that of the maps."""
    reset_in, update_in, new_in = of_input.to(memory.dtype).chunk(3, -1)
    reset_mem, update_mem, new_mem = of_memory.to(memory.dtype).chunk(3, -1)
    candidate = torch.tanh(new_in + torch.sigmoid(reset_in + reset_mem) * new_mem)
    return torch.lerp(candidate, memory, torch.sigmoid(update_in + update_mem))
