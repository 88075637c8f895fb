"""Value normalisation: the critic learns standardised returns, the learner sees real ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction


class ValueNorm(nn.Module):
    """Running mean and variance of value targets with bias correction (Yu et al. 2022, section 5.1).

    `decay` weighs the past; the debiasing term makes the first estimates those of the data seen so far.
    """

    first: Tensor
    second: Tensor
    weight: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("first", torch.zeros(()))
        self.register_buffer("second", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def update(self, targets: Tensor, reduction: Reduction = NO_REDUCTION) -> None:
        mean, variance = reduction.moments(targets)
        self.first.mul_(self.decay).add_(mean * (1 - self.decay))
        self.second.mul_(self.decay).add_((variance + mean.square()) * (1 - self.decay))
        self.weight.mul_(self.decay).add_(1 - self.decay)

    def _moments(self) -> tuple[Tensor, Tensor]:
        weight = self.weight.clamp(min=1e-5)
        mean = self.first / weight
        variance = (self.second / weight - mean.square()).clamp(min=1e-2)
        return mean, variance.sqrt()

    def normalise(self, values: Tensor) -> Tensor:
        mean, scale = self._moments()
        return (values - mean) / scale

    def denormalise(self, values: Tensor) -> Tensor:
        """Before the first update the critic's output is taken as it is."""
        mean, scale = self._moments()
        return torch.where(self.weight > 0, values * scale + mean, values)
