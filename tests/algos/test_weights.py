"""Starting from weights: every learner takes them over whole, targets included, and refuses those that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.algorithm import Algorithm
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.errors import UserError
from tests.algos.learners import assert_same_bytes

TARGETS = {"learned": "target", "actors": "target_actors", "critics": "target_critics"}
"""Of the state of a learner: what is learned, and the target network that follows it."""

LEARNERS = [name for name in registry.ALGORITHMS if name != "hierarchy"]
"""Of any environment; the hierarchy needs a market."""


def made(name: str, seed: int) -> Algorithm:
    environment = SimpleSpread(2, seed=seed)
    settings = registry.choose(name, {}).settings
    return registry.build(name, environment, DenseInputs(environment.groups), settings, seed=seed, timesteps=1000)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_starts_from_the_weights_of_another(name: str) -> None:
    source, learner = made(name, 1), made(name, 2)
    with pytest.raises(AssertionError):
        assert_same_bytes(learner.weights(), source.weights())
    given = source.weights()
    learner.load_weights(given)
    assert_same_bytes(learner.weights(), given)
    state: dict[str, Any] = learner.state_dict()
    for learned, target in TARGETS.items():
        if target in state:
            assert_same_bytes(state[target], state[learned])
    assert {"ppo", "ippo", "mappo"} >= {name} or any(target in state for target in TARGETS.values())
    timestep = SimpleSpread(16, seed=5).reset()
    actions = [of.policy.act(timestep, of.policy.start(16), None)[0]["agents"] for of in (source, learner)]
    assert torch.equal(actions[0], actions[1])


@pytest.mark.parametrize("name", LEARNERS)
def test_weights_are_copies_and_those_that_do_not_fit_are_refused(name: str) -> None:
    learner = made(name, 1)
    given = learner.weights()
    key = next(iter(given))
    kept = given[key].clone()
    given[key].add_(1.0)
    assert torch.equal(learner.weights()[key], kept)
    given[key] = torch.zeros(7, 7, 7, 7)
    with pytest.raises(UserError):
        learner.load_weights(given)
