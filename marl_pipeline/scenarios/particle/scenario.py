"""Cooperative navigation: how far the landmarks are from their nearest agents, and how often agents collide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.envs.episodes import EpisodeMetric
from marl_pipeline.envs.particle.reference import GreedyAssignment
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.envs.protocol import Discrete, GroupSpec, closing
from marl_pipeline.scenarios.particle.pictures import trajectories
from marl_pipeline.scenarios.scenario import Published, Scenario, maker, plain

EPYMARL = "Papoudakis et al. 2021 (arXiv 2006.07869), table 3, parameters shared"
"""Of `simple_spread` before version 3, where every agent also paid 1 a step for colliding with itself, hence
(published + 75) / 2: the return of an episode summed over agents."""

PUBLISHED = {
    "mappo": Published(-29.3, 20_000_000, EPYMARL),
    "qmix": Published(-25.8, 2_000_000, EPYMARL),
    "idqn": Published(-28.8, 2_000_000, EPYMARL),
    "maddpg": Published(-33.4, 2_000_000, EPYMARL),
}


def scenario(name: str, root: Path, options: Mapping[str, Any], device: torch.device | str) -> Scenario:
    """`mpe/simple_spread`; published returns are of its default options."""
    make = maker(name, SimpleSpread, options, device)
    with closing(make(1, 0)) as environment:
        group = environment.groups["agents"]
    metrics = {
        "landmark_distance": EpisodeMetric(
            lambda info: info["uncovered"] / group.agents,
            "mean",
            "distance of a landmark to its nearest agent",
            "lower",
        ),
        "collisions": EpisodeMetric("touching", "sum", "steps in contact with another agent, of an agent", "lower"),
    }
    discrete = isinstance(group.actions, Discrete)
    return plain(
        make,
        metrics=metrics,
        pictures={"trajectories": trajectories(group.agents)},
        baselines={"greedy assignment": _greedy} if discrete else {},
        published={} if options else PUBLISHED,
    )


def _greedy(groups: Mapping[str, GroupSpec], seed: int) -> Policy:
    return GreedyAssignment()
