"""What a learner shares with the other workers when a batch is spread over several processes.

Every worker collects in environments of its own and computes the mean loss over its own live rows. What a learner
takes from the whole batch goes through here: gradients before the optimizer's step, the moments that advantages and
value targets are normalised by, and whatever decides about going on. One process alone learns through the same lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from marl_pipeline.config import Section
from marl_pipeline.errors import UserError
from marl_pipeline.seeding import stream_seed

Settings = TypeVar("Settings", bound=Section)


class Reduction:
    """One process alone: nothing to add up. Engines give subclasses that sum over workers.

    All workers must make the same calls in the same order, so what decides about a call must itself be reduced.

    Attributes:
        rank: which worker this is, in [0, workers).
        workers: how many there are.
    """

    rank = 0
    workers = 1

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the workers, equal on all of them; shape and dtype are kept, the argument too."""
        return values

    def mean(self, values: Tensor, rows: Tensor) -> Tensor:
        """Means over all workers' live rows, from each worker's means `values` over its own `rows` (a scalar)."""
        if self.workers == 1:
            return values
        total = self.sum(torch.cat([(values * rows).flatten(), rows.to(values.dtype).reshape(1)]))
        return (total[:-1] / total[-1].clamp(min=1)).reshape(values.shape)

    def moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and (uncorrected) variance of all workers' values, whatever the shape of each one's."""
        count = self.sum(torch.tensor(float(values.numel()), device=values.device)).clamp(min=1)
        mean = self.sum(values.sum()) / count
        return mean, self.sum((values - mean).square().sum()) / count

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter], rows: Tensor) -> None:
        """Makes every `grad` that of the mean loss over all workers' live rows; call it before clipping.

        Args:
            rows: how many live rows (a scalar) the loss of this worker is a mean of; a worker without any counts
                nothing.
        """
        if self.workers == 1:
            return
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]), rows)
        parts = torch.split(flat, [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def own_seed(self, seed: int) -> int:
        """For what each worker draws by itself (exploration, shuffling); the first worker keeps the run's seed.

        Initial weights are drawn from the run's seed itself, so that all workers start equal.
        """
        return seed if self.rank == 0 else stream_seed(seed, f"worker {self.rank}")

    def share(self, count: int, what: str) -> int:
        """Returns this worker's part of a total: environments, rows of a batch, steps.

        Raises:
            UserError: the workers cannot have equal parts.
        """
        if count % self.workers:
            raise UserError(f"{what}: {count} cannot be shared equally by {self.workers} workers; choose a multiple")
        return count // self.workers

    def shared(self, settings: Settings, *totals: str) -> Settings:
        """The settings with this worker's part of those fields, so that all workers together keep to the settings."""
        if self.workers == 1:
            return settings
        return settings.model_copy(update={name: self.share(getattr(settings, name), name) for name in totals})


NO_REDUCTION = Reduction()
"""The default of every learner."""
