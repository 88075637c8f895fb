"""What an outside library sees of an observation: one flat row of floats per agent.

Integer fields of an observation are references into tables (bar, symbol). A number of a bar is not a feature, so
`dense_fields` leaves them out; whoever wants the market beside the books brings `Features` that look them up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Environment, GroupStep

MakeEnvironment = Callable[[int], Environment]
"""Builds the environment for a seed; equal seeds give equal episodes. This is how an adapter is seeded."""

Features = Callable[[str, GroupStep], Tensor]
"""(group, step) -> [E, A, F] float32, the row of every agent."""


def dense_fields(group: str, step: GroupStep) -> Tensor:
    """[E, A, F] float32: the floating-point fields of the observation side by side, in their order.

    Raises:
        ValueError: the observation holds references only, so there would be nothing to see.
    """
    del group
    rows = [value.flatten(2) if value.dim() > 2 else value.unsqueeze(-1) for value in _floats(step)]
    if not rows:
        raise ValueError(f"no floating-point field among {sorted(step.observation)}: give `features` that look them up")
    return torch.cat(rows, dim=-1)


def _floats(step: GroupStep) -> list[Tensor]:
    return [value for value in step.observation.values() if value.is_floating_point()]
