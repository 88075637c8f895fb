"""Inputs in units of their own spread: running mean and variance of every column (Chan et al. 1983).

Unlike layer normalisation this is an invertible map of a row (within its bounds), so no level and no scale is lost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction

SMALLEST = 1e-8
"""Added to variances: a column that never changes is 0."""

BOUND = 10.0
"""Normalised values are held within +-BOUND, so that a column which first moves late cannot drown the others."""


class RunningNorm(nn.Module):
    """Rows [..., width] less the mean, over the deviation, of all rows that were absorbed; as they are before that,
    within the bounds.

    The statistics are buffers: a checkpoint and a saved policy carry them, and only a learner moves them, in two steps.
    `observe` takes in rows of a rollout and changes nothing yet; `absorb` counts them in. A learner absorbs after its
    update, so that it reads a rollout with the statistics it was collected with.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(width, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self._observed: Moments | None = None

    def forward(self, rows: Tensor) -> Tensor:
        scale = (self.variance + SMALLEST).rsqrt()
        apart = rows - self.mean.to(rows.dtype)
        return apart.mul_(scale.to(rows.dtype)).clamp_(-BOUND, BOUND)

    @torch.no_grad()
    def observe(self, rows: Tensor) -> None:
        """Rows [N, width] to be absorbed later; there may be none."""
        self.observe_moments(Moments.of(rows))

    def observe_moments(self, found: Moments) -> None:
        """Rows to be absorbed later, by their moments: several networks may read the same rows."""
        self._observed = found if self._observed is None else self._observed.joined(found)

    @torch.no_grad()
    def absorb(self, reduction: Reduction = NO_REDUCTION) -> None:
        """Counts in what was observed since the last time, on all workers together."""
        if self._observed is None:
            raise ValueError("nothing was observed since the last time")
        new = self._observed.of_all(reduction)
        self._observed = None
        old = Moments(self.count, self.mean, self.variance * self.count)
        both = old.joined(new)
        some = both.count > 0
        self.count.copy_(both.count)
        self.mean.copy_(both.mean)
        self.variance.copy_(torch.where(some, both.squares / both.count.clamp(min=1), self.variance))


class Moments:
    """Count [], means [width] and sums of squared deviations [width] of some rows, in float64."""

    def __init__(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        self.count, self.mean, self.squares = count, mean, squares

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        wide = rows.double()
        count = torch.tensor(float(len(rows)), dtype=torch.float64, device=rows.device)
        mean = wide.sum(0) / count.clamp(min=1)
        return cls(count, mean, (wide - mean).square().sum(0))

    def joined(self, other: Moments) -> Moments:
        """Of both sets of rows (Chan et al. 1983, equation 2.1)."""
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        apart = other.mean - self.mean
        mean = self.mean + apart * share
        return Moments(count, mean, self.squares + other.squares + apart.square() * self.count * share)

    def of_all(self, reduction: Reduction) -> Moments:
        """Of the rows of all workers."""
        if reduction.workers == 1:
            return self
        total = reduction.sum(torch.cat([self.mean * self.count, self.count.reshape(1)]))
        count, mean = total[-1], total[:-1] / total[-1].clamp(min=1)
        return Moments(count, mean, reduction.sum(self.squares + (self.mean - mean).square() * self.count))
