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
"""Below this t-statistic the mean of a component cannot be distinguished from zero."""


@dataclass(frozen=True)
class Recorded:
    """Moments of the C components over environments and active agents, at each of L steps: [L, C] float64."""

    names: tuple[str, ...]
    mean: Tensor
    absolute: Tensor
    square: Tensor


class ComponentLog:
    """Sums the components of a reward over the episodes under way in E environments of A agents.

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
        """Starts the sums anew in the environments where the [E] mask is True."""
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
        moments = torch.stack([components, components.abs(), components**2]).double().sum((1, 2))
        self._history.append(moments / active.sum().clamp(min=1))

    @property
    def history(self) -> dict[str, Tensor]:
        """Component -> [steps] float64, the mean over environments and active agents at each of the last steps."""
        mean = self.recorded().mean
        return {name: mean[:, column] for column, name in enumerate(self.names)}

    def recorded(self) -> Recorded:
        """The last steps, for `check_balance`."""
        rows = torch.stack(tuple(self._history)) if self._history else self.total.new_zeros(0, 3, len(self.names))
        return Recorded(self.names, *rows.unbind(1))

    def episode_stats(self) -> dict[str, dict[str, float]]:
        """Of the episodes under way, by component.

        Returns:
            sum: mean over environments and agents of the episode's sum; absolute: the same of absolute values; share:
                of the
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
        mean, deviation: of one agent's step.
        share: of the absolute total of all components.
        signal_to_noise: |mean| / deviation.
        flags: of "dominant" (above `DOMINANT` of the absolute total), "collapsed" (one value throughout) and
            "no signal" (its mean cannot be distinguished from 0, agents of one step taken as one observation).
    """

    component: str
    mean: float
    deviation: float
    share: float
    signal_to_noise: float
    flags: tuple[str, ...]


def check_balance(recorded: Recorded) -> tuple[Balance, ...]:
    """Assesses the components of a reward by what was recorded of them.

    Raises:
        ValueError: fewer than two steps.
    """
    steps = len(recorded.mean)
    if steps < 2:
        raise ValueError(f"the balance of a reward needs two recorded steps or more, found {steps}")
    sizes = recorded.absolute.mean(0)
    shares = (sizes / sizes.sum().clamp(min=1e-300)).tolist()
    means, squares = recorded.mean.mean(0), recorded.square.mean(0)
    variances = (squares - means**2).clamp(min=0.0)
    alive = variances > 1e-12 * squares
    errors = recorded.mean.std(0) / steps**0.5
    found = []
    for column, name in enumerate(recorded.names):
        mean, deviation = float(means[column]), float(variances[column].sqrt())
        flags = []
        if shares[column] > DOMINANT:
            flags.append("dominant")
        if not bool(alive[column]):
            flags.append("collapsed")
        elif abs(mean) <= NOISE * float(errors[column]):
            flags.append("no signal")
        ratio = abs(mean) / deviation if bool(alive[column]) else 0.0
        found.append(Balance(name, mean, deviation, shares[column], ratio, tuple(flags)))
    return tuple(found)
