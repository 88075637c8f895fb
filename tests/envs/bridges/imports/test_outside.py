"""Outside environments implement the protocol: every kind of space, agents that leave, masks, and the same rewards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mpe2 import simple_spread_v3
from pettingzoo import ParallelEnv

from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.envs.bridges.exports.pettingzoo import PettingZooParallelEnv
from marl_pipeline.envs.bridges.imports.environment import OutsideEnvironment
from marl_pipeline.envs.conformance import check_environment, check_equal, tensors_of
from marl_pipeline.envs.protocol import Continuous, Discrete, Environment, MultiDiscrete
from marl_pipeline.envs.sampling import random_actions
from marl_pipeline.errors import UserError
from marl_pipeline.scenarios import registry
from marl_pipeline.seeding import stream_seed
from tests.envs.bridges.exports.test_adapters import Mortal


class Party(ParallelEnv):  # type: ignore[misc]
    """Two guests (masked choices, the mask in the observation), a host (multi-discrete, the mask in the infos) and a
    dog (a box of unequal bounds). Guest 1 dies at step 2, the dog is truncated at step 3, the rest at step 5."""

    def __init__(self, noise: bool = False) -> None:
        self.possible_agents = ["guest_0", "host", "guest_1", "dog_0"]
        self.agents: list[str] = []
        self.noise = noise
        guest = spaces.Dict({"observation": spaces.Box(-9, 9, (2, 2)), "action_mask": spaces.Box(0, 1, (3,), np.int8)})
        self.observation_spaces = {
            "guest_0": guest,
            "guest_1": guest,
            "host": spaces.Discrete(4, start=1),
            "dog_0": spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (1,)))),
        }
        self.action_spaces = {
            "guest_0": spaces.Discrete(3, start=5),
            "guest_1": spaces.Discrete(3, start=5),
            "host": spaces.MultiDiscrete([2, 3]),
            "dog_0": spaces.Box(np.array([0.0, -10.0]), np.array([1.0, 10.0]), dtype=np.float64),
        }

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.clock = list(self.possible_agents), 0
        self.random = np.random.default_rng(None if self.noise else seed)
        self.number = float(self.random.uniform())
        return self.observed(self.agents)

    def step(self, actions: Mapping[str, Any]) -> Any:
        assert set(actions) == set(self.agents)
        for agent, action in actions.items():
            assert self.action_spaces[agent].contains(action), (agent, action)
        playing, self.clock = self.agents, self.clock + 1
        rewards = {agent: float(np.sum(actions[agent])) for agent in playing}
        died = {agent: agent == "guest_1" and self.clock == 2 for agent in playing}
        truncated = {agent: (agent == "dog_0" and self.clock == 3) or self.clock == 5 for agent in playing}
        self.number = float(self.random.uniform())
        self.agents = [agent for agent in playing if not died[agent] and not truncated[agent]]
        observations, infos = self.observed(playing)
        return observations, rewards, died, truncated, infos

    def observed(self, agents: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        seen = np.full((2, 2), self.number, dtype=np.float32)
        guest = {"observation": seen, "action_mask": np.array([1, self.clock % 2, 0], dtype=np.int8)}
        everything = {
            "guest_0": guest,
            "guest_1": guest,
            "host": np.int64(self.clock % 4 + 1),
            "dog_0": (1, np.array([self.number], dtype=np.float32)),
        }
        masks = {"host": {"action_mask": (np.array([1, 0]), np.array([0, 1, 1]))}}
        return {agent: everything[agent] for agent in agents}, {agent: masks.get(agent, {}) for agent in agents}


class Waiting(Party):
    """A party that is over, and no more to come to, before the dog arrives."""

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed)
        self.agents = [agent for agent in self.possible_agents if agent != "dog_0"]
        return self.observed(self.agents)

    def step(self, actions: Mapping[str, Any]) -> Any:
        observations, rewards, died, truncated, infos = super().step(actions)
        self.agents = []
        return observations, rewards, dict.fromkeys(died, True), truncated, infos


def party(num_envs: int = 2, *, noise: bool = False) -> OutsideEnvironment:
    return OutsideEnvironment(num_envs, lambda: Party(noise), name="party", seed=3)


def test_agents_of_equal_spaces_form_a_group_and_spaces_cross() -> None:
    env = party()
    assert {name: spec.agents for name, spec in env.groups.items()} == {"guest": 2, "host": 1, "dog": 1}
    assert env.groups["guest"].actions == Discrete(3)
    assert env.groups["host"].actions == MultiDiscrete((2, 3))
    assert env.groups["dog"].actions == Continuous(2, -1.0, 1.0)
    assert {name: spec.observation["observation"] for name, spec in env.groups.items()} == {
        "guest": (4,),
        "host": (4,),
        "dog": (3,),
    }
    assert env.state_size == 2 * 4 + 4 + 3
    step = env.reset()
    assert step.groups["guest"].action_mask.tolist() == [[[True, False, False]] * 2] * 2
    assert step.groups["host"].action_mask.tolist() == [[[True, False, False, True, True]]] * 2
    assert step.groups["host"].observation["observation"].tolist() == [[[1.0, 0.0, 0.0, 0.0]]] * 2
    assert step.groups["dog"].observation["observation"][:, 0, :2].tolist() == [[0.0, 1.0]] * 2
    assert step.state[0, 0] != step.state[1, 0]  # environments have seeds of their own


def test_actions_arrive_in_the_outside_spaces() -> None:
    env = party(1)
    env.reset()
    step = env.step(
        {
            "guest": torch.tensor([[0, 0]]),
            "host": torch.tensor([[[0, 2]]]),
            "dog": torch.tensor([[[-1.0, 0.5]]]),
        }
    )
    assert step.groups["guest"].reward.tolist() == [[5.0, 5.0]]
    assert step.groups["host"].reward.tolist() == [[2.0]]
    assert step.groups["dog"].reward.tolist() == [[5.0]]  # 0 of [0, 1] and 5 of [-10, 10]
    assert step.team_reward.tolist() == [17.0]


def test_agents_leave_and_the_last_truncation_ends_the_episode() -> None:
    env, generator = party(1), torch.Generator().manual_seed(0)
    step = env.reset()
    present, acts, discount, over = [], [], [], []
    for _ in range(6):
        step = env.step(random_actions(env.groups, step, generator))
        names = ("guest", "host", "dog")
        present.append([flag for name in names for flag in step.groups[name].present[0].int().tolist()])
        acts.append([flag for name in names for flag in step.groups[name].acts[0].int().tolist()])
        discount.append([flag for name in names for flag in step.groups[name].discount[0].int().tolist()])
        over.append((bool(step.terminated[0]), bool(step.truncated[0])))
    assert acts == [[1, 1, 1, 1], [1, 0, 1, 1]] + [[1, 0, 1, 0]] * 4
    # the dog is truncated at step 3: what it sees there has a value, and nothing has after that
    assert present == discount == [[1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 1, 1]] + [[1, 0, 1, 0]] * 3
    assert over == [(False, False)] * 4 + [(False, True)] * 2
    assert step.team_reward.tolist() == [0.0]  # an environment that is over stands still
    assert not env.reset().done.any()


def test_an_agent_that_never_came_has_no_future_once_all_is_over() -> None:
    env = OutsideEnvironment(2, Waiting, name="waiting", seed=0)
    step = env.reset()
    assert step.groups["dog"].present.tolist() == [[False]] * 2
    assert step.groups["dog"].discount.tolist() == [[1.0]] * 2
    step = env.step(random_actions(env.groups, step, torch.Generator()))
    assert step.terminated.tolist() == [True] * 2
    assert step.groups["dog"].discount.tolist() == [[0.0]] * 2
    check_environment(lambda: OutsideEnvironment(2, Waiting, name="waiting", seed=0), steps=8)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_every_kind_of_agent_conforms(num_envs: int) -> None:
    check_environment(lambda: party(num_envs), steps=30)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gymnasium:CartPole-v1", {}),
        ("gymnasium:CartPole-v1", {"max_episode_steps": 5}),
        ("gymnasium:Pendulum-v1", {"max_episode_steps": 6}),
        ("gymnasium:FrozenLake-v1", {"is_slippery": True}),
        ("gymnasium:Taxi-v3", {}),
        ("pettingzoo:mpe2.simple_spread_v3", {"max_cycles": 10}),
        ("pettingzoo:mpe2.simple_spread_v3", {"max_cycles": 10, "continuous_actions": True}),
        ("pettingzoo:mpe2.simple_tag_v3", {"max_cycles": 10}),
        ("pettingzoo:mpe2.simple_speaker_listener_v4", {"max_cycles": 10}),
    ],
)
def test_environments_of_the_libraries_conform(name: str, options: dict[str, Any]) -> None:
    check_environment(lambda: registry.make(name, 2, seed=5, **options), steps=50)


def test_what_goes_out_comes_back_in_as_the_same_groups() -> None:
    def build() -> PettingZooParallelEnv:
        return PettingZooParallelEnv(lambda seed: Mortal(1, seed))

    env = OutsideEnvironment(2, build, name="mortal", seed=0)
    assert {name: spec.agents for name, spec in env.groups.items()} == {"workers": 2, "boss": 1}
    assert env.state_size == 1  # its own state()
    check_environment(lambda: OutsideEnvironment(2, build, name="mortal", seed=0), steps=30)


def test_cartpole_is_gymnasiums_cartpole() -> None:
    env, plain = registry.make("gymnasium:CartPole-v1", 1, seed=4), gymnasium.make("CartPole-v1")
    seen, _ = plain.reset(seed=stream_seed(4, "copy 0, episode 1") % 2**31)
    step, generator = env.reset(), torch.Generator().manual_seed(0)
    while not bool(step.done[0]):
        np.testing.assert_array_equal(step.groups["agent"].observation["observation"][0, 0].numpy(), seen)
        chosen = random_actions(env.groups, step, generator)
        step = env.step(chosen)
        seen, reward, terminated, truncated, _ = plain.step(int(chosen["agent"][0, 0]))
        assert step.groups["agent"].reward.item() == step.team_reward.item() == reward
        assert (bool(step.terminated[0]), bool(step.truncated[0])) == (terminated, truncated)
    assert terminated


def test_simple_spread_is_mpe2s_with_its_state() -> None:
    env, plain = registry.make("pettingzoo:mpe2.simple_spread_v3", 1, seed=4), simple_spread_v3.parallel_env()
    seen, _ = plain.reset(seed=stream_seed(4, "copy 0, episode 1") % 2**31)
    step, generator = env.reset(), torch.Generator().manual_seed(0)
    while not bool(step.done[0]):
        agents = step.groups["agent"]
        np.testing.assert_array_equal(agents.observation["observation"][0].numpy(), np.stack(list(seen.values())))
        np.testing.assert_array_equal(step.state[0].numpy(), plain.state())
        chosen = random_actions(env.groups, step, generator)
        step = env.step(chosen)
        seen, rewards, *_ = plain.step(dict(zip(plain.agents, chosen["agent"][0].tolist(), strict=True)))
        np.testing.assert_array_equal(step.groups["agent"].reward[0].numpy(), np.float32(list(rewards.values())))
    assert bool(step.truncated[0])
    assert not plain.agents


def play(env: Environment, step: Any, generator: torch.Generator, steps: int) -> Any:
    for _ in range(steps):
        step = env.step(random_actions(env.groups, step, generator))
        if bool(step.done.any()):
            step = env.reset(step.done)
    return step


@pytest.mark.parametrize("name", ["gymnasium:CartPole-v1", "pettingzoo:mpe2.simple_spread_v3"])
def test_a_run_killed_in_the_middle_of_episodes_goes_on_in_the_same_bits(name: str, tmp_path: Path) -> None:
    env, generator = registry.make(name, 3, seed=1), torch.Generator().manual_seed(0)
    step = play(env, env.reset(), generator, 37)
    FileCheckpointer(tmp_path).save({"environment": env.state_dict(), "generator": generator.get_state()})
    wanted = play(env, step, generator, 60)
    saved = FileCheckpointer(tmp_path).load()
    assert saved is not None
    resumed = registry.make(name, 3, seed=1)
    resumed.load_state_dict(saved["environment"])
    generator.set_state(saved["generator"])
    nobody = torch.zeros(3, dtype=torch.bool)
    found = play(resumed, resumed.reset(nobody), generator, 60)
    check_equal(tensors_of(found), tensors_of(wanted), "the resumed run differs")


def test_an_environment_with_randomness_of_its_own_is_not_resumed() -> None:
    env = party(noise=True)
    env.reset()
    saved = env.state_dict()
    with pytest.raises(UserError, match="'party': the same seed and actions led to another observation of 'guest'"):
        party(noise=True).load_state_dict(saved)


class Wordy(Party):
    """Agents that write sentences."""

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Text(5)


class Reading(Party):
    """Agents that read as much as there is."""

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Sequence(spaces.Discrete(2))


def test_spaces_without_a_word_in_the_protocol_are_named() -> None:
    with pytest.raises(UserError, match="'wordy', agent 'guest_0': actions must be Discrete, MultiDiscrete or a Box b"):
        OutsideEnvironment(1, Wordy, name="wordy", seed=0)
    with pytest.raises(UserError, match="'reading', agent 'guest_0': observations must flatten to a row of numbers"):
        OutsideEnvironment(1, Reading, name="reading", seed=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gymnasium:CartPol-v1", {}, "'gymnasium:CartPol-v1': .*Did you mean: `CartPole`"),
        ("gymnasium:CartPole-v1", {"sutton_barto": True}, "unknown option 'sutton_barto'; did you mean"),
        ("gymnasium:no_module_here:CartPole-v1", {}, "no module named 'no_module_here'"),
        ("pettingzoo:mpe2.simple_spred_v3", {}, "no module named 'mpe2.simple_spred_v3'"),
        ("pettingzoo:json", {}, "module 'json' has no parallel_env"),
        ("pettingzoo:mpe2.simple_spread_v3", {"n": 2}, r"unknown option 'n' \(known: N, local_ratio"),
        ("pettingzoo:mpe2.simple_spread_v3", {"N": "two"}, "option 'N' must be"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.make(name, 1, seed=0, **options)
