"""The one protocol every environment speaks and every algorithm trains on.

`E` copies of an environment step at once on one device. Agents come in named groups of `A` agents with equal
spaces; a group has its own clock (`acts` says who decides now). Environments do not reset themselves: the
caller sees the last observation of an episode, bootstraps from it if it was truncated, and then resets those
copies by `reset(where=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class GroupSpec:
    """Agents with equal spaces.

    Attributes:
        agents: A.
        observation: field name -> shape of one agent's entry, () for a scalar. Integer fields (bar and symbol
            indices) are references into tables that do not change; the rest are float32.
        actions: number of discrete actions.
    """

    agents: int
    observation: Mapping[str, tuple[int, ...]]
    actions: int


@dataclass(frozen=True)
class GroupStep:
    """What one group is told after a step (or a reset).

    Attributes:
        observation: field -> [E, A, *shape].
        action_mask: [E, A, actions] bool, True where allowed; at least one is, also for agents that do not act.
        acts: [E, A] bool, whose action the next `step` will use; the action of the others is ignored.
        reward: [E, A] float32 earned by the last step; 0 after a reset.
        discount: [E, A] float32 in [0, 1]: the factor of this transition's future, besides the learner's gamma.
            0 where the agent's future ended with this step (termination, death).
    """

    observation: dict[str, Tensor]
    action_mask: Tensor
    acts: Tensor
    reward: Tensor
    discount: Tensor


@dataclass(frozen=True)
class Timestep:
    """The world after a step (or a reset).

    Attributes:
        groups: one entry per group of `Environment.groups`.
        state: [E, S] float32, what a central critic may see; S may be 0.
        terminated: [E] bool, the episode ended in a state without a future.
        truncated: [E] bool, the episode was cut; its last state still has a value.
        info: figures of the step, [E] or [E, A] each, for logs; never an input of a policy.
    """

    groups: dict[str, GroupStep]
    state: Tensor
    terminated: Tensor
    truncated: Tensor
    info: Mapping[str, Tensor]

    @property
    def done(self) -> Tensor:
        return self.terminated | self.truncated


class Environment(Protocol):
    """`num_envs` independent copies on `device`."""

    @property
    def groups(self) -> Mapping[str, GroupSpec]: ...

    @property
    def state_size(self) -> int:
        """S, the width of the global state; may be 0."""
        ...

    @property
    def num_envs(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def reset(self, where: Tensor | None = None) -> Timestep:
        """Starts new episodes in the copies where the [E] mask is True (all of them by default).

        The other copies keep their state; their entries in the result are those of the last step, with reward 0.
        """
        ...

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """Advances every copy by one step. `actions` holds one [E, A] int64 tensor per group."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on bit for bit: episode state and random generators."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
