"""The same task from the same settings through every engine ends at the same return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.errors import UserError
from marl_pipeline.training.engines import registry
from marl_pipeline.training.engines.task import load_policy
from tests.algos.toy import EPISODE, Colours
from tests.learning import OverSeeds
from tests.training.engines.private_ray import private_ray
from tests.training.engines.tasks import greedy, preset, spread, task

BEST = 2.0 * EPISODE
"""Two workers name the colour that they see at every step."""


class Workers(Colours):
    """The workers of the toy alone: one group, so that every engine can train it."""

    def __init__(self, num_envs: int, seed: int) -> None:
        super().__init__(num_envs, seed)
        self.groups = {"workers": self.groups["workers"]}

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        return super().step({**actions, "boss": torch.zeros(self.num_envs, 1, dtype=torch.int64)})

    def _timestep(self, worker_reward: Tensor, boss_reward: Tensor) -> Timestep:
        own = super()._timestep(worker_reward, boss_reward)
        return replace(own, groups={"workers": own.groups["workers"]}, team_reward=worker_reward.sum(-1))


def make(num_envs: int, seed: int) -> Environment:
    return Workers(num_envs, seed)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "sb3", "rllib"])
def test_every_engine_learns_the_colours(engine: str, over_seeds: OverSeeds) -> None:
    rate = {"kind": "linear", "start": 0.01, "end": 0.0, "share": 1.0}
    settings = preset("ppo", horizon=16, epochs=4, learning_rate=rate, gamma=0.9)

    def share_of_the_best(seed: int) -> float:
        chosen = replace(
            task("ppo", settings, spread, num_envs=8, seed=seed, timesteps=5120),
            make=make,
            inputs=DenseInputs(make(1, 0).groups),
            evaluate=partial(greedy, make),
        )
        trained = registry.train(engine, chosen)
        return float(chosen.evaluate(load_policy(chosen, trained.weights)).returns.mean()) / BEST

    with private_ray(cpus=2):
        over_seeds(share_of_the_best, at_least=0.9)


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(UserError, match=r"jax.*known: torch"):
        registry.train("jax", task("ppo", preset("ppo"), spread, num_envs=1, seed=1, timesteps=1))
