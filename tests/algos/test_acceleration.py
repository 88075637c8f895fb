"""Lower precision and compiled graphs, for every algorithm: rounding differs, learning does not."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.algorithm import Algorithm
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.envs.particle.spread import SimpleSpread
from tests.algos.off_policy_runs import assert_equal_states
from tests.learning import OverSeeds

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


def learner(name: str, given: Mapping[str, Any] | None = None, seed: int = 0, **acceleration: Any) -> Algorithm:
    environment = SimpleSpread(4, seed=seed)
    changes = {**(given or SMALL[name]), "acceleration": {"precision": "float32", "compile": False} | acceleration}
    settings = registry.choose(name, changes).settings
    inputs = DenseInputs(environment.groups)
    return registry.build(name, environment, inputs, settings, seed=seed, timesteps=10_000)


def after(algorithm: Algorithm, iterations: int) -> dict[str, float]:
    for _ in range(iterations):
        metrics = algorithm.iterate().metrics
    return dict(metrics)


def test_every_algorithm_is_here() -> None:
    assert set(SMALL) == set(registry.ALGORITHMS) - {"hierarchy"}, "which is PPO and MAPPO, on the market only"


def rounding(name: str, given: Mapping[str, Any] | None, seed: int) -> float:
    """By how much bfloat16 changes the figures of each of four iterations at most: 1 is a tenth and 0.05.

    Every iteration starts from where the exact run is: on its own the rounded one soon acts otherwise, because Adam's
    first steps follow the signs of gradients, the smallest included, and near ties between actions fall the other way.
    """
    exact, rounded = learner(name, given, seed), learner(name, given, seed, precision="bfloat16")
    worst = 0.0
    for _ in range(4):
        rounded.load_state_dict(deepcopy(exact.state_dict()))
        right, found = dict(exact.iterate().metrics), dict(rounded.iterate().metrics)
        assert found != right
        assert found.keys() == right.keys()
        worst = max(worst, *(abs(found[key] - right[key]) / (0.1 * abs(right[key]) + 0.05) for key in right))
    return worst


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_rounds_the_figures_and_no_more(name: str, over_seeds: OverSeeds) -> None:
    over_seeds(lambda seed: rounding(name, None, seed), at_most=1.0)


@pytest.mark.parametrize("name", RECURRENT)
def test_bfloat16_leaves_memories_in_float32(name: str, over_seeds: OverSeeds) -> None:
    over_seeds(lambda seed: rounding(name, RECURRENT[name], seed), at_most=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "mappo", "qmix", "idqn", "maddpg"])
def test_compiled_losses_are_the_plain_ones(name: str) -> None:
    plain, compiled = learner(name), learner(name, compile=True)
    assert after(compiled, 4) == pytest.approx(after(plain, 4), rel=1e-2, abs=1e-4)
    with pytest.raises(AssertionError):
        assert_equal_states(plain.state_dict(), learner(name).state_dict(), "something was learned")
