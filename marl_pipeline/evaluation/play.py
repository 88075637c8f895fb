"""What a policy earns when it no longer explores."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Policy, forget
from marl_pipeline.envs.episodes import EpisodeMetric, MeasuredEpisodes
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.errors import UserError
from marl_pipeline.training.loop import Played

LONGEST_EPISODE = 1_000_000
"""Steps after which an episode is taken for one that never ends."""


def greedy_episodes(environment: Environment, policy: Policy, metrics: Mapping[str, EpisodeMetric]) -> Played:
    """One greedy episode in every environment: returns and episode metrics, [E] each; see `greedy_returns`."""
    if not metrics:
        return Played(greedy_returns(environment, policy))
    measured = MeasuredEpisodes(environment, metrics)
    returns = greedy_returns(measured, policy)
    return Played(returns, measured.first)


@torch.no_grad()
def greedy_returns(environment: Environment, policy: Policy) -> Tensor:
    """[E] undiscounted return of one episode in every environment: the sum of `team_reward` (see the protocol).

    Raises:
        UserError: an episode does not end.
    """
    timestep = environment.reset()
    memory = policy.start(environment.num_envs)
    total = torch.zeros(environment.num_envs, device=environment.device)
    playing = torch.ones(environment.num_envs, dtype=torch.bool, device=environment.device)
    steps = 0
    while bool(playing.any()):
        steps += 1
        if steps > LONGEST_EPISODE:
            raise UserError(
                f"an episode goes on after {LONGEST_EPISODE:,} steps, and returns are of whole episodes: let the "
                "environment end them (terminated or truncated)"
            )
        actions, memory = policy.act(timestep, memory, None)
        timestep = environment.step(actions)
        total += torch.where(playing, timestep.team_reward, 0.0)
        done = timestep.done
        playing = playing & ~done
        if bool(done.any()):
            timestep = environment.reset(done)
            memory = forget(memory, done)
    return total
