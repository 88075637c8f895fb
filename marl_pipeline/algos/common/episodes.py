"""The one loop over whole episodes: evaluations, records of a window, recordings and reward studies all run it.

What they need of an episode they take from each step as it is yielded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.algorithm import Memory, Policy, forget
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.errors import UserError

LONGEST_EPISODE = 1_000_000
"""Steps after which an episode is taken for one that never ends."""

Act = Callable[[Timestep], Mapping[str, Tensor]]
"""One action per agent, [E, A, *shape] by group, for what is observed now."""


@dataclass(frozen=True)
class EpisodeStep:
    """One step of every environment.

    Attributes:
        before, after: the timesteps around it.
        actions: [E, A, *shape] by group.
        running: [E] bool, the environment's first episode had not ended before this step.
    """

    before: Timestep
    actions: Mapping[str, Tensor]
    after: Timestep
    running: Tensor


@torch.no_grad()
def episode_steps(
    environment: Environment, policy: Policy, first: Timestep, *, restart: bool = False, steps: int | None = None
) -> Iterator[EpisodeStep]:
    """Steps every environment greedily until the first episode of each has ended.

    Args:
        first: from `environment.reset()`.
        restart: an environment whose episode has ended starts another one; without it, it stands still.
        steps: how many steps are taken instead, whatever ends.

    Raises:
        UserError: an episode does not end.
    """
    timestep, memory, taken = first, policy.start(environment.num_envs), 0
    running = torch.ones(environment.num_envs, dtype=torch.bool, device=environment.device)
    while bool(running.any()) if steps is None else taken < steps:
        if steps is None and taken == LONGEST_EPISODE:
            raise UserError(
                f"an episode goes on after {LONGEST_EPISODE:,} steps, and returns are of whole episodes: let the "
                "environment end them (terminated or truncated)"
            )
        actions, memory = policy.act(timestep, memory, None)
        after = environment.step(actions)
        yield EpisodeStep(timestep, actions, after, running)
        timestep, taken = after, taken + 1
        done = after.done
        running = running & ~done
        if restart and bool(done.any()):
            timestep, memory = environment.reset(done), forget(memory, done)


class Memoryless:
    """Implements `Policy` by a function of the timestep, which learns nothing and explores nothing."""

    module = nn.Module()

    def __init__(self, act: Act) -> None:
        self._act = act

    def start(self, num_envs: int) -> Memory:
        return {}

    def act(
        self, timestep: Timestep, memory: Memory, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Memory]:
        return dict(self._act(timestep)), {}
