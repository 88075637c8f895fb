"""What a policy earns when it no longer explores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.algos.common.episodes import episode_steps
from marl_pipeline.envs.episodes import EpisodeMetric, MeasuredEpisodes
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.scenarios.picture import EpisodePicture, Recorded
from marl_pipeline.training.loop import EpisodeResults


def greedy_episodes(environment: Environment, policy: Policy, metrics: Mapping[str, EpisodeMetric]) -> EpisodeResults:
    """One greedy episode in every environment: returns and episode metrics, [E] each; see `greedy_returns`."""
    if not metrics:
        return EpisodeResults(greedy_returns(environment, policy))
    measured = MeasuredEpisodes(environment, metrics)
    returns = greedy_returns(measured, policy)
    return EpisodeResults(returns, measured.first)


def greedy_returns(environment: Environment, policy: Policy) -> Tensor:
    """Sums `team_reward` (see the protocol) over one episode of every environment: [E] undiscounted returns.

    Raises:
        UserError: an episode does not end.
    """
    total = torch.zeros(environment.num_envs, device=environment.device)
    for step in episode_steps(environment, policy, environment.reset(), restart=True):
        total += torch.where(step.running, step.after.team_reward, 0.0)
    return total


def recorded_episode(
    environment: Environment, policy: Policy, pictures: Mapping[str, EpisodePicture]
) -> dict[str, Recorded]:
    """Plays one greedy episode in an environment of one, and keeps what the pictures need of it, by picture.

    Raises:
        UserError: the episode does not end.
    """
    steps: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in pictures}
    for step in episode_steps(environment, policy, environment.reset()):
        for name, picture in pictures.items():
            values = {**picture.record(step), "team_reward": step.after.team_reward}
            steps[name].append({key: value[0].cpu().numpy().copy() for key, value in values.items()})
    return {name: {key: np.stack([one[key] for one in rows]) for key in rows[0]} for name, rows in steps.items()}
