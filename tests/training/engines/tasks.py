"""Small tasks that every engine can be given: PPO with critics as local as the actors on simple_spread, or MAPPO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

import marl_pipeline.algos
from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.mappo import MAPPOSettings
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.algos.ppo import PPOSettings
from marl_pipeline.checkpoint import NoCheckpoint
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.envs.protocol import Environment, GroupSpec, closing
from marl_pipeline.evaluation.greedy import greedy_returns
from marl_pipeline.progress import silent
from marl_pipeline.training.engines.task import Task
from marl_pipeline.training.loop import EpisodeResults

EPISODES = 256
PRESETS = Path(marl_pipeline.algos.__file__).parent / "presets"


def spread(num_envs: int, seed: int) -> Environment:
    return SimpleSpread(num_envs, seed=seed)


def preset(algorithm: str, **changes: Any) -> PPOSettings:
    values = YAML(typ="safe").load((PRESETS / f"{algorithm}.yaml").read_text())["default"] | changes
    kind = MAPPOSettings if algorithm == "mappo" else PPOSettings
    return kind.model_validate(values)


def greedy(make: Callable[[int, int], Environment], policy: Policy) -> EpisodeResults:
    return EpisodeResults(greedy_returns(make(EPISODES, 7), policy))


def groups_of(make: Callable[[int, int], Environment]) -> Mapping[str, GroupSpec]:
    with closing(make(1, 0)) as environment:
        return environment.groups


def task(algorithm: str, settings: PPOSettings, make: Callable[[int, int], Environment], **fields: Any) -> Task:
    """One process, evaluated at the end, without a checkpoint, unless `fields` say otherwise."""
    base: dict[str, Any] = {
        "algorithm": algorithm,
        "settings": settings,
        "build": OnPolicy,
        "make": make,
        "inputs": DenseInputs(groups_of(make)),
        "workers": 1,
        "device": torch.device("cpu"),
        "evaluate": partial(greedy, make),
        "evaluate_every": fields["timesteps"],
        "checkpoint": NoCheckpoint(),
        "checkpoint_every": fields["timesteps"],
        "label": algorithm,
        "on_step": silent,
    }
    return Task(**{**base, **fields})
