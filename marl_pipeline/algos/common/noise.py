"""Exploration noise of deterministic policies, in units of half the action's range."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from marl_pipeline.algos.common.schedules import Rate
from marl_pipeline.config import Fraction, Section


class Noise(Section):
    """`gaussian` noise is independent from step to step; `ornstein_uhlenbeck` noise (Uhlenbeck & Ornstein 1930,
    Lillicrap et al. 2016) falls back to 0 by `reversion` of itself at each step, and starts at 0 with an episode.

    `scale` is the noise's deviation; an Ornstein-Uhlenbeck process reaches it in its stationary state.
    """

    kind: Literal["gaussian", "ornstein_uhlenbeck"]
    scale: Rate
    reversion: Fraction

    def after(self, before: Tensor, drawn: Tensor) -> Tensor:
        """The noise of unit deviation that follows `before`, by a standard normal draw."""
        kept = 1.0 - self.reversion if self.kind == "ornstein_uhlenbeck" else 0.0
        fresh: float = (1.0 - kept**2) ** 0.5
        return kept * before + fresh * drawn
