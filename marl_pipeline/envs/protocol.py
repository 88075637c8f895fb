"""The one protocol that every environment implements and every algorithm trains on.

`E` environments step at once on one device. Agents come in named groups of `A` agents with equal
spaces; a group has its own clock (`acts` says who decides now). Environments do not reset themselves: the
caller sees the last observation of an episode, bootstraps from it if it was truncated, and then resets those
environments by `reset(where=...)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Discrete:
    """One of `n` choices: an int64 scalar; masked by n flags."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64

    @property
    def mask_width(self) -> int:
        return self.n


@dataclass(frozen=True)
class MultiDiscrete:
    """K choices at once, of `sizes[k]` each: int64 [K]; masked by the flags of all choices side by side."""

    sizes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.sizes),)

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64

    @property
    def mask_width(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class Continuous:
    """D numbers in [low, high]: float32 [D]; never masked."""

    size: int
    low: float
    high: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def mask_width(self) -> int:
        return 0


ActionSpace = Discrete | MultiDiscrete | Continuous


@dataclass(frozen=True)
class GroupSpec:
    """Agents with equal spaces; agents that differ are groups of their own.

    Attributes:
        agents: A.
        observation: field name -> shape of one agent's entry, () for a scalar. Integer fields (bar and symbol
            indices) are references into tables that do not change; the rest are float32.
        actions: what one agent may do.
    """

    agents: int
    observation: Mapping[str, tuple[int, ...]]
    actions: ActionSpace


def discrete_actions(spec: GroupSpec) -> int:
    """The number of actions of a group that picks one of n.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(spec.actions, Discrete):
        raise ValueError(f"discrete actions are needed, found {spec.actions}")
    return spec.actions.n


@dataclass(frozen=True)
class GroupStep:
    """What one group observes and earns by a step (or a reset).

    Attributes:
        observation: field -> [E, A, *shape].
        action_mask: [E, A, actions.mask_width] bool, True where allowed; of every choice at least one is, also for
            agents that do not act.
        acts: [E, A] bool, whose action the next `step` will use; the action of the others is ignored.
        present: [E, A] bool, who exists now: neither dead, nor not yet (or no longer) there. Whoever acts is present;
            one that is present and does not act waits for its clock. What an absent agent observes means nothing.
        reward: [E, A] float32 earned by the last step; 0 after a reset.
        discount: [E, A] float32 in [0, 1]: the factor of this transition's future, besides the learner's gamma.
            0 where the agent's future ended with this step (termination, death).
        truncated: [E, A] bool, the agent leaves here although its future would go on, while the episode goes on
            without it (a limit of its own). Its discount is not 0 and its observation is its last one, from which
            learners bootstrap: it is present for the last time and does not act; from the next step on it is absent,
            with discount 0, until its environment is reset. None where no agent ever leaves so. An agent that is
            absent for a while and comes back is not truncated.
    """

    observation: dict[str, Tensor]
    action_mask: Tensor
    acts: Tensor
    present: Tensor
    reward: Tensor
    discount: Tensor
    truncated: Tensor | None = None

    def agents_truncated(self) -> Tensor:
        """[E, A] bool, `truncated` with nobody in the place of None."""
        return torch.zeros_like(self.acts) if self.truncated is None else self.truncated


@dataclass(frozen=True)
class Timestep:
    """All groups after a step (or a reset).

    Attributes:
        groups: one entry per group of `Environment.groups`.
        state: [E, S] float32, what a central critic may see; S may be 0.
        team_reward: [E] float32, what the last step earned the team as a whole: the reward of learners that factor one
            value over all agents, and what test returns add up, in the units of the literature: the agents' sum where
            each has a reward of its own, the common payoff itself where all are paid the same.
        terminated: [E] bool, the episode ended in a state without a future.
        truncated: [E] bool, the episode was truncated; its last state still has a value.
        info: figures of the step, [E] or [E, A] each, for logs; never an input of a policy.
    """

    groups: dict[str, GroupStep]
    state: Tensor
    team_reward: Tensor
    terminated: Tensor
    truncated: Tensor
    info: Mapping[str, Tensor]

    @property
    def done(self) -> Tensor:
        return self.terminated | self.truncated


class Environment(Protocol):
    """`num_envs` independent environments on `device`.

    One that holds files, sockets or processes has, besides, a method `close()`, which frees them and may be called
    twice; `close_environment` calls it where there is one.
    """

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
        """Starts new episodes in the environments where the [E] mask is True (all of them by default).

        The others keep their state; their entries in the result are those of the last step, with reward 0.
        """
        ...

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """Steps every environment once. `actions` holds one [E, A, *actions.shape] tensor per group."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on bit for bit: episode state and random generators."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def close_environment(environment: Environment) -> None:
    """Frees what an environment holds; nothing where it has no `close`."""
    close = getattr(environment, "close", None)
    if close is not None:
        close()


@contextmanager
def closing(environment: Environment) -> Iterator[Environment]:
    """The environment, closed at the end of the block however that ends."""
    try:
        yield environment
    finally:
        close_environment(environment)
