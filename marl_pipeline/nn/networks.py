"""Building blocks of the trading agents, with the initialisation that on-policy learners are sensitive to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def orthogonal_linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights and zero bias (Yu et al. 2022, table 7)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def trunk(inputs: int, hidden: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """LayerNorm on the input, then linear layers, each followed by tanh."""
    layers: list[nn.Module] = [nn.LayerNorm(inputs)]
    for width in hidden:
        layers += [orthogonal_linear(inputs, width, 2**0.5, generator), nn.Tanh()]
        inputs = width
    return nn.Sequential(*layers)
