"""One optimizer step at a time, and the soft update of a target network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from marl_pipeline.algos.common.schedules import Rate
from marl_pipeline.config import Count, Fraction, Positive, Section
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction


class OptimizerSettings(Section):
    """`epsilon` is the optimizer's term against division by zero; gradients are clipped to `max_grad_norm`."""

    kind: Literal["adam", "rmsprop"]
    learning_rate: Rate
    epsilon: Positive
    max_grad_norm: Positive


class OptimizerStep:
    """Steps an optimizer along clipped gradients, averaged over all workers, at the learning rate of a schedule."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], settings: OptimizerSettings, reduction: Reduction = NO_REDUCTION
    ) -> None:
        self._reduction = reduction
        self._parameters, self._settings = list(parameters), settings
        rate = settings.learning_rate.start
        self._optimizer: torch.optim.Optimizer
        if settings.kind == "adam":
            self._optimizer = torch.optim.Adam(self._parameters, lr=rate, eps=settings.epsilon, fused=True)
        else:
            self._optimizer = torch.optim.RMSprop(self._parameters, lr=rate, eps=settings.epsilon, foreach=True)

    def step(self, loss: Tensor, progress: float, rows: Tensor) -> Tensor:
        """Steps once down the gradient of `loss` at the rate of this `progress` of the run; other parameters get none.

        Args:
            rows: how many live rows (a scalar) the loss is a mean of.

        Returns:
            the gradient's norm before clipping.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate.at(progress)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=self._parameters)  # type: ignore[no-untyped-call]
        self._reduction.average_gradients(self._parameters, rows)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._settings.max_grad_norm, foreach=True)
        self._optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(dict(state))


class TargetSettings(Section):
    """After every `every` updates the target moves by `rate` towards the learned weights: 1 copies them."""

    every: Count
    rate: Fraction


class TargetRate(Section):
    """Whenever the targets move, they move by `rate` towards the learned weights."""

    rate: Annotated[float, Field(gt=0.0, le=1.0)]


@torch.no_grad()
def soft_update(target: nn.Module, learned: nn.Module, rate: float) -> None:
    """target <- target + rate (learned - target) (Polyak averaging; Lillicrap et al. 2016)."""
    torch._foreach_lerp_(list(target.parameters()), list(learned.parameters()), rate)
