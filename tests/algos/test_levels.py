"""No preset hides the level of what an agent sees."""

from __future__ import annotations

import statistics

import pytest

from marl_pipeline.algos import registry
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.evaluation.play import greedy_returns
from tests.algos.signs import EPISODE, Signs

STEPS = 32_000


def earned(name: str, width: int, seed: int) -> float:
    """What the preset earns after `STEPS` steps."""
    chosen = registry.choose(name, {})
    environment = Signs(chosen.envs, seed, width)
    algorithm = registry.build(
        name, environment, DenseInputs(environment.groups), chosen.settings, seed=seed, timesteps=STEPS
    )
    for _ in range(STEPS // (chosen.envs * chosen.settings.horizon)):
        algorithm.iterate()
    return float(greedy_returns(Signs(64, 1000 + seed, width), algorithm.policy).mean())


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("name", ["ippo", "mappo"])
def test_a_number_is_seen_whatever_the_others(name: str, width: int) -> None:
    """Two equal numbers, or one alone, have no shape but a level: layer normalisation would make zeros of them."""
    assert statistics.median(earned(name, width, seed) for seed in range(3)) == EPISODE
