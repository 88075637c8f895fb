"""What a policy draws its actions from: one distribution for each action space of the protocol.

A network says the `parameters` [..., P] of a distribution (`parameter_count` of them); a mask says what is allowed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from marl_pipeline.envs.protocol import ActionSpace, Continuous, Discrete, MultiDiscrete

QUADRATURE = 32
"""Nodes of the Gauss-Hermite rule behind the entropy of a squashed Gaussian."""

EDGE = 1e-6
"""How near to its bounds a squashed action is taken to be at most: float32 has no finite pre-image of the bound."""

LOG_STD = (-5.0, 2.0)
"""Where the logarithm of a Gaussian's deviation is held."""


class Distribution(Protocol):
    """Over one agent's actions; leading dimensions are a batch."""

    def sample(self, generator: torch.Generator) -> Tensor:
        """One action each, [..., *shape]."""
        ...

    def mode(self) -> Tensor:
        """The greedy action, [..., *shape]."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: logarithm of the probability, or of the density in units of the action space."""
        ...

    def entropy(self) -> Tensor:
        """[...] in nats; differentiable."""
        ...


def parameter_count(space: ActionSpace) -> int:
    """P: logits side by side, or means and log deviations."""
    match space:
        case Discrete(n):
            return n
        case MultiDiscrete(sizes):
            return sum(sizes)
        case Continuous(size):
            return 2 * size


def distribution(space: ActionSpace, parameters: Tensor, mask: Tensor) -> Distribution:
    """The distribution with these parameters [..., P] over the actions that `mask` [..., mask_width] allows."""
    match space:
        case Discrete():
            return Categorical(parameters, mask)
        case MultiDiscrete(sizes):
            return Categoricals(parameters, mask, sizes)
        case Continuous(_, low, high):
            return SquashedGaussian(parameters, low, high)


def masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Log probabilities over the allowed actions; -inf elsewhere (Huang & Ontanon 2022)."""
    return logits.masked_fill(~mask, -torch.inf).log_softmax(-1)


def sample(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Categorical sample by the Gumbel-max trick; the mode when there is no generator.

    Args:
        logits: [..., actions], -inf where not allowed.
    """
    if generator is None:
        return logits.argmax(-1)
    exponential = torch.empty(logits.shape, device=logits.device).exponential_(generator=generator)
    gumbel = -exponential.clamp(min=1e-30).log()
    return (logits + gumbel).argmax(-1)


class Categorical:
    """One of n, from masked logits [..., n]."""

    def __init__(self, logits: Tensor, mask: Tensor) -> None:
        self.log_probs = masked_log_softmax(logits, mask)
        self._mask = mask

    def sample(self, generator: torch.Generator) -> Tensor:
        return sample(self.log_probs, generator)

    def mode(self) -> Tensor:
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        allowed = torch.where(self._mask, self.log_probs, 0.0)  # before the product: -inf x 0 has no gradient
        return -(allowed.exp() * allowed).sum(-1)


class Categoricals:
    """K independent choices: logits and mask [..., sum(sizes)] of all of them side by side."""

    def __init__(self, logits: Tensor, mask: Tensor, sizes: tuple[int, ...]) -> None:
        parts = zip(torch.split(logits, list(sizes), -1), torch.split(mask, list(sizes), -1), strict=True)
        self._choices = [Categorical(part, allowed) for part, allowed in parts]

    def sample(self, generator: torch.Generator) -> Tensor:
        return torch.stack([choice.sample(generator) for choice in self._choices], -1)

    def mode(self) -> Tensor:
        return torch.stack([choice.mode() for choice in self._choices], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        chosen = zip(self._choices, action.unbind(-1), strict=True)
        return torch.stack([choice.log_prob(part) for choice, part in chosen]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([choice.entropy() for choice in self._choices]).sum(0)


class SquashedGaussian:
    """D independent numbers in (low, high): a Gaussian through tanh, moved to the bounds (Haarnoja et al. 2018,
    appendix C).

    `parameters` [..., 2D] are means, then log deviations, both before the squashing. `mode` is the squashed mean. The
    entropy has no closed form: that of the Gaussian plus the mean log slope of the squashing, by Gauss-Hermite
    quadrature.
    """

    def __init__(self, parameters: Tensor, low: float, high: float) -> None:
        self._mean, log_std = parameters.chunk(2, -1)
        self._log_std = log_std.clamp(*LOG_STD)
        self._low, self._high, self._half = low, high, (high - low) / 2

    def sample(self, generator: torch.Generator) -> Tensor:
        mean = self._mean
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return self._squash(mean + self._log_std.exp() * noise)

    def mode(self) -> Tensor:
        return self._squash(self._mean)

    def log_prob(self, action: Tensor) -> Tensor:
        unit = ((action - self._low) / self._half - 1.0).clamp(EDGE - 1.0, 1.0 - EDGE)
        before = unit.atanh()
        standard = (before - self._mean) / self._log_std.exp()
        density = -0.5 * standard.square() - self._log_std - 0.5 * math.log(2 * math.pi)
        return (density - self._log_slope(before)).sum(-1)

    def entropy(self) -> Tensor:
        nodes, weights = _gauss_hermite(self._mean.device, self._mean.dtype)
        before = self._mean.unsqueeze(-1) + self._log_std.exp().unsqueeze(-1) * nodes
        gaussian = self._log_std + 0.5 * math.log(2 * math.pi * math.e)
        return (gaussian + (self._log_slope(before) * weights).sum(-1)).sum(-1)

    def _squash(self, before: Tensor) -> Tensor:
        return (self._low + self._half * (before.tanh() + 1.0)).clamp(self._low, self._high)  # rounding may leave them

    def _log_slope(self, before: Tensor) -> Tensor:
        """Of the action by the number before the squashing: log(half (1 - tanh^2)), without cancellation."""
        return math.log(self._half) + 2.0 * (math.log(2.0) - before - functional.softplus(-2.0 * before))


@lru_cache(maxsize=4)
def _gauss_hermite(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Nodes and weights [QUADRATURE] of the mean over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
    weights = weights / weights.sum()
    return torch.as_tensor(nodes, device=device, dtype=dtype), torch.as_tensor(weights, device=device, dtype=dtype)
