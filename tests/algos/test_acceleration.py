"""Lower precision and compiled graphs, for every algorithm: rounding differs, learning does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from marl_pipeline.algos import registry
from marl_pipeline.algos.common.algorithm import Algorithm
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.envs.particle.spread import SimpleSpread
from tests.algos.off_policy_runs import assert_equal_states

ON_POLICY = {"horizon": 25, "epochs": 2, "minibatches": 1}
OFF_POLICY = {"train_freq": 25, "gradient_steps": 2, "batch": 16, "buffer_size": 1000, "learning_starts": 100}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "ppo": ON_POLICY,
    "ippo": ON_POLICY,
    "mappo": ON_POLICY,
    "qmix": OFF_POLICY,
    "vdn": OFF_POLICY,
    "idqn": OFF_POLICY,
    "dqn": OFF_POLICY,
    "maddpg": OFF_POLICY,
}


RECURRENT: Mapping[str, Mapping[str, Any]] = {
    "mappo": {**ON_POLICY, "chunk": 5, "network": {"recurrence": "gru"}},
    "qmix": {**OFF_POLICY, "network": {"recurrence": "gru"}},
}


def learner(name: str, given: Mapping[str, Any] | None = None, **acceleration: Any) -> Algorithm:
    environment = SimpleSpread(4, seed=0)
    changes = {**(given or SMALL[name]), "acceleration": {"precision": "float32", "compile": False} | acceleration}
    settings = registry.choose(name, changes).settings
    inputs = DenseInputs(environment.groups)
    return registry.build(name, environment, inputs, settings, seed=0, timesteps=10_000)


def after(algorithm: Algorithm, iterations: int) -> dict[str, float]:
    for _ in range(iterations):
        metrics = algorithm.iterate().metrics
    return dict(metrics)


def test_every_algorithm_is_here() -> None:
    assert set(SMALL) == set(registry.ALGORITHMS)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_rounds_the_figures_and_no_more(name: str) -> None:
    """Of the first iteration: later ones learn from other actions, because near ties are decided by rounding."""
    exact, rounded = after(learner(name), 1), after(learner(name, precision="bfloat16"), 1)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.1, abs=0.05)


@pytest.mark.parametrize("name", RECURRENT)
def test_bfloat16_leaves_memories_in_float32(name: str) -> None:
    exact = after(learner(name, RECURRENT[name]), 2)
    rounded = after(learner(name, RECURRENT[name], precision="bfloat16"), 2)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "mappo", "qmix", "idqn", "maddpg"])
def test_compiled_losses_are_the_plain_ones(name: str) -> None:
    plain, compiled = learner(name), learner(name, compile=True)
    assert after(compiled, 4) == pytest.approx(after(plain, 4), rel=1e-2, abs=1e-4)
    with pytest.raises(AssertionError):
        assert_equal_states(plain.state_dict(), learner(name).state_dict(), "something was learned")
