"""Environments by name, and every mistake in a name or an option reported in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkouts import small_checkout
from torch import Tensor, nn

from marl_pipeline.agents import registry as algorithms
from marl_pipeline.envs.matrix.games import two_step
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.greedy import greedy_episodes
from marl_pipeline.pipeline import overlay
from marl_pipeline.scenarios import registry
from marl_pipeline.scenarios.presets import all_presets, choose


@pytest.mark.parametrize("name", registry.names())
def test_every_built_in_environment_is_made(name: str) -> None:
    env = registry.make(name, 3, seed=1)
    assert env.num_envs == 3
    assert env.reset().state.shape == (3, env.state_size)


def test_the_market_is_made_like_every_other_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From anywhere below a repository, on its parameters."""
    root = small_checkout(tmp_path)
    overlay.write(root, overlay.merge(root, "smoke", ["data.synthetic.symbols=5"]))
    below = root / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    env = registry.make("market/portfolio", 4, seed=0, episode=8)
    assert {group: spec.agents for group, spec in env.groups.items()} == {"symbols": 5, "master": 1}
    assert env.reset().done.shape == (4,)


@pytest.mark.parametrize("env", all_presets())
def test_every_preset_of_a_scenario_is_of_an_environment_and_an_algorithm_that_there_are(env: str) -> None:
    for algo, overrides in all_presets()[env].items():
        assert choose(algo, env, {}) == algorithms.choose(algo, overrides) != algorithms.choose(algo, {})


def test_the_users_word_counts_more_than_the_scenarios_and_that_more_than_the_default() -> None:
    default = algorithms.choose("qmix", {}).settings
    here = choose("qmix", "matrix/two_step", {"gamma": 0.7, "network": {"hidden": [32]}}).settings
    assert default.gamma == 0.95
    assert (here.gamma, here.network.hidden, here.batch) == (0.7, (32,), 32)
    assert here.network.layer_norm != default.network.layer_norm
    assert here.network.agent_ids == default.network.agent_ids


def test_defaults_of_algorithms_name_no_environment() -> None:
    for algo in algorithms.ALGORITHMS:
        assert set(algorithms.preset(algo)) == {"envs", "default"}


def test_options_reach_the_environment() -> None:
    env = registry.make("mpe/simple_spread", 2, seed=0, agents=4, episode=7, local_ratio=0, continuous=True)
    assert env.groups["agents"].agents == 4


def test_the_users_own_environment_is_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_game.py").write_text(
        "from marl_pipeline.envs.matrix.games import penalty as Penalty\nclass Mute:\n"
        "    def __init__(self, num_envs, *, seed, device): self.groups = {}\n"
        "class Homebound:\n    def __init__(self, num_envs, *, seed): pass\n"
        "class Picky:\n    def __init__(self, num_envs, *, seed, device, size): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere", *__import__("sys").path])
    assert registry.make("my_game:Penalty", 2, seed=0, penalty=-1).num_envs == 2
    with pytest.raises(UserError, match=r"'my_game:Mute': Mute lacks state_size, num_envs, device, reset"):
        registry.make("my_game:Mute", 2, seed=0)
    with pytest.raises(UserError, match=r"'my_game:Homebound' is built as .* unexpected keyword argument 'device'"):
        registry.make("my_game:Homebound", 2, seed=0)
    with pytest.raises(UserError, match=r"'my_game:Picky' is built as .* missing a required .*argument: 'size'"):
        registry.make("my_game:Picky", 2, seed=0)
    with pytest.raises(UserError, match="module 'my_game' has no 'Nobody'"):
        registry.make("my_game:Nobody", 2, seed=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mpe/simple_spred", {}, "'mpe/simple_spred' is not known; did you mean 'mpe/simple_spread'"),
        ("chess", {}, r"'chess' is not known \(known: market/portfolio, .*\), or write pettingzoo:<module>"),
        ("no_such_module:Game", {}, "no module named 'no_such_module'"),
        ("mpe/simple_spread", {"agent": 3}, "unknown option 'agent'; did you mean 'agents'"),
        ("matrix/two_step", {"episode": 3}, r"unknown option 'episode' \(known: none\)"),
        ("mpe/simple_spread", {"agents": "three"}, "option 'agents' must be int, found 'three'"),
        ("mpe/simple_spread", {"agents": True}, "option 'agents' must be int, found True"),
        ("mpe/simple_spread", {"agents": 0}, "agents=0"),
        ("mpe/simple_spread", {"episode": 0}, "episode=0"),
        ("mpe/simple_spread", {"local_ratio": 1.5}, "local_ratio=1.5"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.make(name, 1, seed=0, **options)


def test_at_least_one_environment_is_made() -> None:
    with pytest.raises(UserError, match="num_envs=0"):
        registry.make("matrix/two_step", 0, seed=0)
    assert two_step(1, seed=0).num_envs == 1


@pytest.mark.parametrize(
    ("name", "options", "optimum"),
    [
        ("matrix/two_step", {}, 8.0),
        ("matrix/climbing", {}, 275.0),
        ("matrix/climbing", {"episode": 4}, 44.0),
        ("matrix/penalty", {"penalty": -100.0}, 250.0),
        ("mpe/simple_spread", {}, None),
    ],
)
def test_the_optimum_is_known_where_there_is_one(name: str, options: dict[str, object], optimum: float | None) -> None:
    assert registry.scenario(Path(), name, options, "cpu").optimum == optimum


class Always:
    """Both agents play the same joint action at every step."""

    module = nn.Module()

    def __init__(self, *joint: int) -> None:
        self._joint = torch.tensor(joint)

    def start(self, num_envs: int) -> dict[str, Tensor]:
        return {}

    def act(self, timestep: Timestep, memory: dict[str, Tensor], generator: object) -> tuple[dict[str, Tensor], Any]:
        return {"agents": self._joint.expand(len(timestep.done), 2)}, memory


@pytest.mark.parametrize(
    ("name", "joint", "share"),
    [
        ("matrix/two_step", (1, 1), 1.0),
        ("matrix/two_step", (1, 0), 0.5),  # the table of 8 is right, missing each other in it is not
        ("matrix/two_step", (0, 0), 0.5),  # the safe table is wrong, what is played in it is as good as anything
        ("matrix/climbing", (0, 0), 1.0),
        ("matrix/climbing", (1, 1), 0.0),
        ("matrix/penalty", (2, 0), 1.0),
    ],
)
def test_the_share_of_best_joint_actions(name: str, joint: tuple[int, int], share: float) -> None:
    made = registry.scenario(Path(), name, {}, "cpu")
    played = greedy_episodes(made.test(2, 0), Always(*joint), made.metrics)
    assert played.metrics["optimal_share"].tolist() == [share, share]
    assert (float(played.returns[0]) == made.optimum) == (share == 1.0)


def test_collisions_and_distances_of_the_spread() -> None:
    made = registry.scenario(Path(), "mpe/simple_spread", {}, "cpu")
    random, greedy = (
        greedy_episodes(made.test(64, 0), made.baselines[name](made.test(64, 0).groups, 0), made.metrics).metrics
        for name in ("random", "greedy assignment")
    )
    assert float(greedy["landmark_distance"].mean()) < 0.6 * float(random["landmark_distance"].mean())
    test, policy = made.test(64, 0), made.baselines["greedy assignment"](made.test(64, 0).groups, 0)
    timestep, touched, distances = test.reset(), torch.zeros(64), torch.zeros(64)
    for _ in range(25):
        actions, _ = policy.act(timestep, {}, None)
        timestep = test.step(actions)
        seen = timestep.groups["agents"].observation["seen"]
        others = seen[..., 10:14].reshape(64, 3, 2, 2).norm(dim=-1)
        landmarks = seen[..., 4:10].reshape(64, 3, 3, 2).norm(dim=-1)
        touched += (others < 0.3).sum((1, 2)) / 3
        distances += landmarks.amin(1).mean(1) / 25
    assert float(touched.sum()) > 0
    assert torch.allclose(greedy["collisions"].float(), touched, atol=1e-4)
    assert torch.allclose(greedy["landmark_distance"].float(), distances, atol=1e-4)
