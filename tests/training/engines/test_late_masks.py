"""Masks that begin after the first step hold on every engine, in training and in the policy that it hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.training.engines import registry
from marl_pipeline.training.engines.task import load_policy
from tests.algos.toy import EPISODE
from tests.training.engines.private_ray import private_ray
from tests.training.engines.tasks import greedy, groups_of, preset, spread, task
from tests.training.engines.test_engines_agree import Workers

FREE = 3
"""Steps of an episode in which everything is allowed."""

TEMPTING = 3
"""The action that pays most, and is forbidden from then on."""

BEST = 2.0 * (2.0 * FREE + EPISODE - FREE)


class LateMask(Workers):
    """Two workers who earn 2 for the tempting action while it is allowed, and 1 for naming their colour.

    Raises:
        ValueError: a forbidden action is executed.
    """

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        tempted = actions["workers"] == TEMPTING
        if bool((tempted & (self._step >= FREE).unsqueeze(-1)).any()):
            raise ValueError("a forbidden action was executed")
        after = super().step(actions)
        workers = after.groups["workers"]
        paid = workers.reward + 2.0 * tempted
        return replace(after, groups={"workers": replace(workers, reward=paid)}, team_reward=paid.sum(-1))

    def _timestep(self, worker_reward: Tensor, boss_reward: Tensor) -> Timestep:
        now = super()._timestep(worker_reward, boss_reward)
        workers = now.groups["workers"]
        mask = workers.action_mask | (self._step < FREE).reshape(-1, 1, 1)
        return replace(now, groups={"workers": replace(workers, action_mask=mask)})


def make(num_envs: int, seed: int) -> Environment:
    return LateMask(num_envs, seed)


def test_the_environment_notices() -> None:
    environment = make(2, 0)
    assert bool(environment.reset().groups["workers"].action_mask.all()), "nothing is forbidden in the first step"
    tempting = {"workers": torch.full((2, 2), TEMPTING)}
    for _ in range(FREE):
        after = environment.step(tempting)
    assert not bool(after.groups["workers"].action_mask[..., TEMPTING].any())
    with pytest.raises(ValueError, match="forbidden"):
        environment.step(tempting)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "workers"), [("torch", 1), ("ray", 2), ("rllib", 1), ("sb3", 1)])
def test_masks_that_begin_later_hold(engine: str, workers: int) -> None:
    rate = {"kind": "linear", "start": 0.01, "end": 0.0, "share": 1.0}
    settings = preset("ppo", horizon=16, epochs=4, learning_rate=rate, gamma=0.9)
    chosen = replace(
        task("ppo", settings, spread, num_envs=8, seed=1, timesteps=5120),
        make=make,
        inputs=DenseInputs(groups_of(make)),
        evaluate=partial(greedy, make),
        workers=workers,
    )
    with private_ray(cpus=2):
        trained = registry.train(engine, chosen)
    returns = chosen.evaluate(load_policy(chosen, trained.weights)).returns
    assert float(returns.mean()) > 0.7 * BEST
