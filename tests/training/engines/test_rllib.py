"""MAPPO on RLlib trains the project's environments, and what it learned is a policy of the project."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from ray.rllib.core.columns import Columns

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.errors import UserError
from marl_pipeline.training.engines import rllib
from marl_pipeline.training.engines.rllib_module import ActorCriticModule
from marl_pipeline.training.engines.task import Task, Trained, blank_policy, load_policy
from tests.envs.bridges.exports.test_adapters import make_trading
from tests.training.engines.private_ray import private_ray
from tests.training.engines.tasks import greedy, preset, spread, task

SMALL = {"horizon": 12, "epochs": 2, "minibatches": 2}


def module(central: bool) -> ActorCriticModule:
    fields = {"observations": Box(-np.inf, np.inf, (4,)), "action_mask": Box(0.0, 1.0, (3,))}
    state = {"state": Box(-np.inf, np.inf, (2,))} if central else {}
    return ActorCriticModule(
        observation_space=Dict({**fields, **state}),
        action_space=Discrete(3),
        model_config={"settings": preset("mappo" if central else "ippo"), "seed": 1},
    )


def batch_of(state: float) -> dict[str, Any]:
    observations = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1.0, 0.0, 1.0]]).expand(5, 3)
    return {Columns.OBS: {"observations": observations, "action_mask": mask, "state": torch.full((5, 2), state)}}


def test_the_critic_sees_the_state_and_the_actor_does_not() -> None:
    built = module(central=True)
    here, there = batch_of(0.0), {Columns.OBS: {**batch_of(0.0)[Columns.OBS], "state": torch.randn(5, 2)}}
    assert not torch.equal(built.compute_values(here), built.compute_values(there))
    logits = built._forward(here)[Columns.ACTION_DIST_INPUTS]
    assert torch.equal(logits, built._forward(there)[Columns.ACTION_DIST_INPUTS])


def test_forbidden_actions_are_never_drawn() -> None:
    built = module(central=False)
    observed = batch_of(0.0)
    del observed[Columns.OBS]["state"]
    policy = built.get_exploration_action_dist_cls().from_logits(built._forward(observed)[Columns.ACTION_DIST_INPUTS])
    drawn = torch.stack([policy.sample() for _ in range(50)])
    assert set(drawn.flatten().tolist()) == {0, 2}
    assert bool(policy.entropy().isfinite().all())


def test_values_are_in_units_of_reward() -> None:
    built = module(central=True)
    assert built.norm is not None
    built.norm.update(torch.tensor([90.0, 110.0]))
    observed = batch_of(0.0)
    torch.testing.assert_close(built.compute_values(observed), 100 + 10 * built.normalised_values(observed))


@pytest.mark.parametrize("algorithm", ["qmix", "maddpg"])
def test_what_it_does_not_have_is_said(algorithm: str) -> None:
    chosen = registry.choose(algorithm, {}).settings
    with pytest.raises(UserError, match="choose engine torch"):
        rllib.train(replace(spread_task("ippo", 100), algorithm=algorithm, settings=chosen))


def spread_task(algorithm: str, steps: int, **fields: Any) -> Task:
    return task(algorithm, preset(algorithm, **SMALL), spread, num_envs=4, seed=1, timesteps=steps, **fields)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with private_ray(cpus=3):
        yield


def assert_it_moved(chosen: Task, trained: Trained) -> None:
    """Every group's weights are others than before, and earn what the run says."""
    before = blank_policy(chosen).module.state_dict()
    for group in chosen.make(1, 0).groups:
        assert any(not torch.equal(before[name], trained.weights[name]) for name in before if name.startswith(group))
    returns = chosen.evaluate(load_policy(chosen, trained.weights)).returns
    assert float(returns.mean()) == trained.run.evaluations[-1].mean


@pytest.mark.slow
def test_mappo_trains_the_trading_market(ray: None) -> None:
    def make(num_envs: int, seed: int) -> Environment:
        return make_trading("portfolio", num_envs)(seed)

    inputs = DenseInputs(make(1, 0).groups, reference_fields=("bar", "symbol"))
    chosen = replace(
        task("mappo", preset("mappo", **SMALL), spread, num_envs=2, seed=1, timesteps=72, evaluate_every=36),
        make=make,
        inputs=inputs,
        evaluate=partial(greedy, make),
    )
    trained = rllib.train(chosen)
    assert trained.run.steps >= 72
    assert {name.split("/")[0] for name in trained.run.metrics} == {"symbols", "master"}
    assert_it_moved(chosen, trained)


@pytest.mark.slow
def test_an_interrupted_run_goes_on(ray: None, tmp_path: Path) -> None:
    checkpoint = FileCheckpointer(tmp_path)
    first = rllib.train(replace(spread_task("mappo", 96), checkpoint=checkpoint))
    chosen = replace(spread_task("mappo", 192), checkpoint=checkpoint)
    second = rllib.train(chosen)
    assert second.run.timed_steps == second.run.steps - first.run.steps
    assert second.run.evaluations[0] == first.run.evaluations[0]
    assert_it_moved(chosen, second)


@pytest.mark.slow
def test_others_collect_where_there_are_several_workers(ray: None) -> None:
    chosen = replace(spread_task("ippo", 96), workers=2)
    assert_it_moved(chosen, rllib.train(chosen))
