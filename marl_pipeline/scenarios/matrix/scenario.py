"""Games of two agents: how often their joint action is one of the best, and what the optimal joint policy earns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from marl_pipeline.envs.episodes import EpisodeMetric
from marl_pipeline.envs.matrix.game import TabularGame
from marl_pipeline.envs.matrix.games import climbing, penalty, two_step
from marl_pipeline.scenarios.matrix.pictures import payoffs
from marl_pipeline.scenarios.scenario import Scenario, maker, plain

GAMES: Mapping[str, Callable[..., TabularGame]] = {
    "matrix/two_step": two_step,
    "matrix/climbing": climbing,
    "matrix/penalty": penalty,
}


def scenario(name: str, root: Path, options: Mapping[str, Any], device: torch.device | str) -> Scenario:
    make = maker(name, GAMES[name], options, device)
    game = GAMES[name](1, seed=0, **options)
    metrics = {"optimal_share": EpisodeMetric("optimal", "mean", "share of the joint actions", "higher")}
    return plain(make, metrics=metrics, pictures={"payoffs": payoffs(game)}, optimum=game.optimum)
