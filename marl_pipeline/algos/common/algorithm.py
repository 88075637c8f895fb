"""The two roles of learning: a policy acts, an algorithm improves it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.errors import UserError

Memory = dict[str, Tensor]
"""What a recurrent policy remembers: group -> [E, A, H]; empty for a policy without memory."""


Weights = Mapping[str, Tensor]
"""Learned tensors by name."""


class Policy(Protocol):
    """Decides for every group of an environment."""

    @property
    def module(self) -> nn.Module:
        """All weights; its `state_dict` is what a saved policy holds."""
        ...

    def start(self, num_envs: int) -> Memory:
        """The memory at the start of an episode: zeros."""
        ...

    def act(
        self, timestep: Timestep, memory: Memory, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Memory]:
        """One action per agent, [E, A, *shape] by group, and the memory after having seen this timestep.

        Explores as training does with `generator`; decides greedily (the mode) without one. The caller forgets the
        memory of environments that start a new episode (`forget`).
        """
        ...


def forget(memory: Memory, where: Tensor) -> Memory:
    """Returns the memory with the environments of the [E] mask back at the start."""
    return {group: kept.masked_fill(where[:, None, None], 0.0) for group, kept in memory.items()}


@dataclass(frozen=True)
class Iteration:
    """What one iteration of an algorithm did.

    Attributes:
        steps: environment steps taken, summed over the environments.
        metrics: figures of the iteration by name; names use the field's terms.
    """

    steps: int
    metrics: Mapping[str, float]


def load_into(module: nn.Module, weights: Weights, what: str) -> None:
    """Raises:
    UserError: the weights are not those of this module.
    """
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the weights of {what} do not fit ({reason})") from None


def require_finite(figures: Mapping[str, float]) -> None:
    """Raises:
    UserError: training diverged.
    """
    bad = [name for name, value in figures.items() if not math.isfinite(value)]
    if bad:
        listed = ", ".join(f"{name} {figures[name]}" for name in bad)
        raise UserError(f"training diverged ({listed}): lower the learning rate, or clip gradients more")


class Algorithm(Protocol):
    """One learner bound to one training environment: collects experience of its own and learns from it."""

    @property
    def policy(self) -> Policy: ...

    def iterate(self) -> Iteration:
        """Collects the next piece of experience and makes the updates that go with it."""
        ...

    def weights(self) -> Weights:
        """All that was learned, on its device, apart from later training: the policy's weights and whatever else a run
        can start from (critics, mixers, units of values)."""
        ...

    def load_weights(self, weights: Weights) -> None:
        """Starts from weights that another run of the algorithm has learned; optimizers and experience are fresh.

        Raises:
            UserError: they do not fit.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs to end in the same bytes: weights, targets, optimizers, replay, random
        generators, environment, memory and counters."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
