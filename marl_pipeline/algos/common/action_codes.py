"""Actions as the numbers a critic reads and a gradient passes through: one-hot choices, or ranges scaled to [-1, 1]."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from marl_pipeline.envs.protocol import ActionSpace, Continuous, Discrete


class ActionCode(Protocol):
    """How an actor's raw outputs [..., width] become a code [..., width], and a code an action [..., *shape]."""

    width: int

    def encode(self, action: Tensor) -> Tensor: ...

    def decode(self, code: Tensor) -> Tensor: ...

    def noise(self, shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
        """What one draw needs of chance, for raw outputs of that shape."""
        ...

    def sample(self, raw: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """The code of the action that `noise` leads to, differentiable with respect to `raw`.

        Without noise (zeros) it is the greedy action. The mask is [..., mask_width].
        """
        ...

    def uniform(self, mask: Tensor, noise: Tensor) -> Tensor:
        """The code of the allowed action that `noise` picks, each as likely as the next."""
        ...


class Choices:
    """K choices of `sizes[k]` each, as one-hot rows side by side.

    A draw is a straight-through Gumbel-softmax (Jang et al. 2017, section 2.2): forwards the one-hot row of
    `argmax(logits + gumbel)`, which follows the softmax of the logits; backwards the gradient of
    `softmax((logits + gumbel) / temperature)`. What the mask forbids has probability 0 and no gradient.

    Args:
        scalar: the action is one choice [...], not [..., K].
    """

    def __init__(self, sizes: tuple[int, ...], *, scalar: bool, temperature: float) -> None:
        self.width = sum(sizes)
        self._sizes, self._scalar, self._temperature = sizes, scalar, temperature

    def encode(self, action: Tensor) -> Tensor:
        parts = [action] if self._scalar else action.unbind(-1)
        rows = [functional.one_hot(part, size) for part, size in zip(parts, self._sizes, strict=True)]
        return torch.cat(rows, dim=-1).float()

    def decode(self, code: Tensor) -> Tensor:
        chosen = [part.argmax(-1) for part in code.split_with_sizes(self._sizes, dim=-1)]
        return chosen[0] if self._scalar else torch.stack(chosen, dim=-1)

    def noise(self, shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
        """Gumbel's distribution."""
        exponential = torch.empty(shape, device=device).exponential_(generator=generator)
        return -exponential.clamp(min=1e-30).log()

    def sample(self, raw: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        noisy = (raw + noise).masked_fill(~mask, -torch.inf)
        soft = torch.cat(
            [(part / self._temperature).softmax(-1) for part in noisy.split_with_sizes(self._sizes, dim=-1)], dim=-1
        )
        return self.encode(self.decode(noisy)) + (soft - soft.detach())

    def uniform(self, mask: Tensor, noise: Tensor) -> Tensor:
        return self.encode(self.decode(noise.masked_fill(~mask, -torch.inf)))


class Ranges:
    """D numbers in [low, high]: tanh of the raw outputs plus the noise, which is in units of half the range."""

    def __init__(self, space: Continuous) -> None:
        self.width = space.size
        self._space = space
        self._middle, self._half = (space.high + space.low) / 2, (space.high - space.low) / 2

    def encode(self, action: Tensor) -> Tensor:
        return (action - self._middle) / self._half

    def decode(self, code: Tensor) -> Tensor:
        return (code * self._half + self._middle).clamp(self._space.low, self._space.high)

    def noise(self, shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
        """The standard normal distribution; the caller scales it."""
        return torch.empty(shape, device=device).normal_(generator=generator)

    def sample(self, raw: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        return (raw.tanh() + noise).clamp(-1.0, 1.0)

    def uniform(self, mask: Tensor, noise: Tensor) -> Tensor:
        share: Tensor = torch.special.ndtr(noise)
        return share * 2 - 1


def action_code(space: ActionSpace, *, temperature: float) -> Choices | Ranges:
    """The code of a space; `temperature` is that of the relaxed choices."""
    if isinstance(space, Continuous):
        return Ranges(space)
    if isinstance(space, Discrete):
        return Choices((space.n,), scalar=True, temperature=temperature)
    return Choices(space.sizes, scalar=False, temperature=temperature)
