"""Algorithms by name: whole presets, overrides in order, and mistakes that name themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from marl_pipeline import algos
from marl_pipeline.agents import registry
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.envs.protocol import ActionSpace, Continuous, Discrete, Environment, GroupSpec
from marl_pipeline.errors import UserError
from tests.algos.toy import Colours


def test_every_preset_belongs_to_an_algorithm_and_every_algorithm_has_one() -> None:
    folder = Path(algos.__file__).parent / "presets"
    assert {file.stem for file in folder.glob("*.yaml")} == set(registry.ALGORITHMS)


@pytest.mark.parametrize("name", [name for name in registry.ALGORITHMS if name != "hierarchy"])
def test_every_preset_is_complete_and_builds_a_learner(name: str) -> None:
    chosen = registry.choose(name, {})
    assert registry.parse(name, chosen.as_dict()) == chosen
    world = SimpleSpread(2, seed=0)
    learner = registry.build(name, world, DenseInputs(world.groups), chosen.settings, seed=0, timesteps=1000)
    actions, _ = learner.policy.act(world.reset(), learner.policy.start(2), None)
    assert actions["agents"].shape == (2, 3)


class Renamed(Colours):
    """Groups with the names of the two tiers and actions of choice."""

    def __init__(self, symbols: ActionSpace, master: ActionSpace | None) -> None:
        super().__init__(1, 0)
        tiers = {"symbols": symbols} | ({} if master is None else {"master": master})
        self.groups = {name: GroupSpec(1, {"seen": (2,)}, actions) for name, actions in tiers.items()}


NUMBER, CHOICE = Continuous(1, -1.0, 1.0), Discrete(3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Renamed(CHOICE, NUMBER), r"'symbols' \(Discrete\), 'master' \(Continuous\)"),
        (lambda: Renamed(NUMBER, None), r"'symbols' \(Continuous\); choose"),
        (lambda: SimpleSpread(1, seed=0), r"'agents' \(Discrete\); choose market/portfolio or market/accounts$"),
        (lambda: SimpleSpread(1, seed=0, continuous=True), r"'agents' \(Continuous\); choose market/portfolio"),
        (lambda: Colours(1, 0), r"'workers' \(Discrete\), 'boss' \(Discrete\); choose market/portfolio"),
    ],
)
def test_the_hierarchy_refuses_what_is_no_market_of_symbols(make: Callable[[], Environment], words: str) -> None:
    chosen, environment = registry.choose("hierarchy", {}), make()
    assert registry.parse("hierarchy", chosen.as_dict()) == chosen
    inputs = DenseInputs(environment.groups)
    with pytest.raises(UserError, match=words) as raised:
        registry.build("hierarchy", environment, inputs, chosen.settings, seed=0, timesteps=1000)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("short", "kind", "start", "end", "share"),
    [
        (0.003, "constant", 0.003, 0.003, 1.0),
        ("linear 0.01 to 0 over 50%", "linear", 0.01, 0.0, 0.5),
        ("cosine 1e-3 to 1e-5 over 100%", "cosine", 1e-3, 1e-5, 1.0),
    ],
)
def test_schedules_may_be_written_as_they_are_printed(
    short: object, kind: str, start: float, end: float, share: float
) -> None:
    rate = registry.choose("ppo", {"learning_rate": short}).settings.learning_rate
    assert (rate.kind, rate.start, rate.end, rate.share) == (kind, start, end, share)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("qmx", {}, "algorithm 'qmx' is not known; did you mean 'qmix'"),
        ("chess", {}, "known: ppo, ippo"),
        ("qmix", {"gama": 0.9}, "settings of qmix: unknown parameter 'gama'; did you mean 'gamma'"),
        ("qmix", {"exploration": {"strt": 1.0}}, "'exploration.strt'; did you mean 'start'"),
        ("qmix", {"gamma": 2.0}, "settings of qmix: parameter 'gamma'"),
        ("qmix", {"envs": 0}, "'envs' must be a whole number of environments"),
        ("qmix", {"envs": True}, "'envs' must be a whole number of environments"),
        ("qmix", {"burn_in": 5, "window": 5}, "burn_in 5 leaves nothing of a window of 5 steps"),
        ("qmix", {"burn_in": 1, "network": {"recurrence": "none"}}, "nothing to warm up"),
        ("ppo", {"learning_rate": "linear 3 to"}, "write a number, or such as 'linear 0.01 to 0 over 50%'"),
        (
            "qmix",
            {"learning_starts": 300_000},
            "learning_starts 300000 is more than a buffer_size of 200000 ever holds",
        ),
        ("qmix", {"burn_in": -2}, "parameter 'burn_in'"),
        ("idqn", {"exploration": {"start": 3.0}}, "parameter 'exploration.start'"),
        ("idqn", {"optimizer": {"learning_rate": {"end": -1e-3}}}, "parameter 'optimizer.learning_rate.end'"),
        ("ppo", {"network": {"hidden": [0]}}, "parameter 'network.hidden"),
        ("mappo", {"num_envs": 3}, "unknown parameter 'num_envs'"),
    ],
)
def test_mistakes_are_named(name: str, overrides: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        registry.choose(name, overrides)


def test_an_action_space_that_does_not_fit_is_the_users_mistake() -> None:
    world = SimpleSpread(2, seed=0, continuous=True)
    chosen = registry.choose("idqn", {})
    with pytest.raises(UserError, match="one of n actions"):
        registry.build("idqn", world, DenseInputs(world.groups), chosen.settings, seed=0, timesteps=100)


def test_one_environment_is_enough() -> None:
    assert registry.choose("mappo", {"envs": 1}).envs == 1
