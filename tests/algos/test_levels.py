"""No preset hides the level of what an agent sees."""

from __future__ import annotations

import pytest

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.evaluation.greedy import greedy_returns
from tests.algos.signs import EPISODE, Signs
from tests.learning import OverSeeds

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
def test_a_number_is_seen_whatever_the_others(name: str, width: int, over_seeds: OverSeeds) -> None:
    """Two equal numbers, or one alone, have no shape but a level: layer normalisation would make zeros of them."""
    over_seeds(lambda seed: earned(name, width, seed), at_least=EPISODE)
