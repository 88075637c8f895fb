"""What a reward is made of, as it was paid: per step, per episode, and whether its parts are in balance."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HISTORY = 4096
"""Steps that `ComponentLog.history` keeps."""

DOMINANT = 0.6
"""A component above this share of the absolute total drowns the others."""

NOISE = 2.0
"""Below this t-statistic the mean of a component cannot be told from zero."""


class ComponentLog:
    """Sums the components of a reward over the episodes under way in E copies of A agents.

    Attributes:
        names: the C components.
        total, absolute: [E, A, C] float64 of the episode so far; they are part of the environment's state.
        last: [E, A, C] float32 of the last step.
    """

    def __init__(self, names: Sequence[str], num_envs: int, agents: int, device: torch.device) -> None:
        self.names = tuple(names)
        self.total = torch.zeros(num_envs, agents, len(self.names), dtype=torch.float64, device=device)
        self.absolute = torch.zeros_like(self.total)
        self.steps = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self.last = torch.zeros_like(self.total, dtype=torch.float32)
        self._history: deque[Tensor] = deque(maxlen=HISTORY)

    def reset(self, where: Tensor) -> None:
        """Starts the sums anew in the copies where the [E] mask is True."""
        kept = (~where).double()
        self.total = self.total * kept.view(-1, 1, 1)
        self.absolute = self.absolute * kept.view(-1, 1, 1)
        self.steps = self.steps * kept

    def add(self, components: Tensor, active: Tensor) -> None:
        """Adds one step: [E, A, C], and which agents [E, A] it counts for; the rest must be 0."""
        self.last = components.float()
        self.total = self.total + components
        self.absolute = self.absolute + components.abs()
        self.steps = self.steps + active.any(-1).double()
        self._history.append(components.sum((0, 1)) / active.sum().clamp(min=1))

    @property
    def history(self) -> dict[str, Tensor]:
        """Component -> [steps] float64, the mean over copies and active agents at each of the last steps."""
        rows = torch.stack(tuple(self._history)) if self._history else self.total.new_zeros(0, len(self.names))
        return {name: rows[:, column] for column, name in enumerate(self.names)}

    def episode_stats(self) -> dict[str, dict[str, float]]:
        """Of the episodes under way, by component.

        Returns:
            sum: mean over copies and agents of the episode's sum; absolute: the same of absolute values; share: of the
            absolute total of all components; per_step: sum over the steps of the episode.
        """
        absolute = self.absolute.mean((0, 1))
        whole = float(absolute.sum())
        steps = max(float(self.steps.mean()), 1.0)
        sums = self.total.mean((0, 1)).tolist()
        return {
            name: {
                "sum": total,
                "absolute": size,
                "share": size / whole if whole > 0.0 else 0.0,
                "per_step": total / steps,
            }
            for name, total, size in zip(self.names, sums, absolute.tolist(), strict=True)
        }

    def tensors(self) -> dict[str, Tensor]:
        """The sums, as state; the history of steps is a log and not among them."""
        return {"total": self.total, "absolute": self.absolute, "steps": self.steps}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.total, self.absolute, self.steps = (
            tensors[name].to(self.total.device).clone() for name in ("total", "absolute", "steps")
        )


@dataclass(frozen=True)
class Balance:
    """One component of a reward over the recorded steps.

    Attributes:
        mean, deviation: per step.
        share: of the absolute total of all components.
        signal_to_noise: |mean| / deviation.
        flags: of "dominant" (above `DOMINANT` of the absolute total), "collapsed" (one value throughout) and
            "no signal" (its mean cannot be told from 0).
    """

    component: str
    mean: float
    deviation: float
    share: float
    signal_to_noise: float
    flags: tuple[str, ...]


def check_balance(steps: Mapping[str, Tensor]) -> tuple[Balance, ...]:
    """Judges components by their values at the recorded steps: component -> [steps], at least two of them.

    Raises:
        ValueError: fewer than two steps.
    """
    if not steps or min(len(values) for values in steps.values()) < 2:
        raise ValueError("the balance of a reward needs two recorded steps or more")
    sizes = {name: float(values.double().abs().sum()) for name, values in steps.items()}
    whole = sum(sizes.values())
    return tuple(_judge(name, steps[name].double(), sizes[name] / whole if whole > 0.0 else 0.0) for name in steps)


def _judge(name: str, values: Tensor, share: float) -> Balance:
    mean, deviation = float(values.mean()), float(values.std())
    collapsed = float(values.max() - values.min()) <= 1e-12 * max(abs(mean), 1e-12)
    ratio = abs(mean) / deviation if not collapsed else 0.0
    flags = []
    if share > DOMINANT:
        flags.append("dominant")
    if collapsed:
        flags.append("collapsed")
    elif ratio * len(values) ** 0.5 < NOISE:
        flags.append("no signal")
    return Balance(name, mean, deviation, share, ratio, tuple(flags))
