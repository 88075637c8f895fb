"""A run whose numbers are no longer numbers ends with one line, whichever the algorithm."""

from __future__ import annotations

from typing import Any

import pytest

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.errors import UserError
from tests.algos.off_policy_runs import constant, iterate

OFF_POLICY = {"train_freq": 25, "gradient_steps": 2, "batch": 16, "buffer_size": 1000, "learning_starts": 100}
FAST = constant(1e30)
CHANGES: dict[str, dict[str, Any]] = {
    "mappo": {"horizon": 25, "learning_rate": FAST},
    "idqn": {**OFF_POLICY, "optimizer": {"learning_rate": FAST}},
    "qmix": {**OFF_POLICY, "optimizer": {"learning_rate": FAST}},
    "maddpg": {**OFF_POLICY, "critic_optimizer": {"learning_rate": FAST}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_divergence_is_reported(name: str) -> None:
    environment = SimpleSpread(4, seed=0)
    settings = registry.choose(name, CHANGES[name]).settings
    inputs = DenseInputs(environment.groups)
    algorithm = registry.build(name, environment, inputs, settings, seed=0, timesteps=10_000)
    with pytest.raises(UserError, match="training diverged"):
        iterate(algorithm, 20)
