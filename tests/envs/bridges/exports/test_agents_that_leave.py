"""Agents that die, are truncated alone, or never come: one episode each, in every library, and everything is closed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from stable_baselines3.common.vec_env import VecMonitor

from marl_pipeline.envs.bridges.exports.gymnasium import GymnasiumVectorEnv
from marl_pipeline.envs.bridges.exports.pettingzoo import PettingZooParallelEnv
from marl_pipeline.envs.bridges.exports.rllib import RLlibMultiAgentEnv
from marl_pipeline.envs.bridges.exports.stable_baselines3 import StableBaselines3VecEnv
from marl_pipeline.envs.bridges.imports.environment import OutsideEnvironment
from marl_pipeline.envs.conformance import check_environment
from marl_pipeline.envs.protocol import Discrete, GroupSpec, GroupStep, Timestep

EPISODE = 6


class LeavingAgents:
    """Everyone there earns 1 a step. Agent 0 is always there; 1 dies and 2 is truncated after 3 steps; 3 comes after 2;
    4 never comes. Episodes of EPISODE steps are truncated."""

    def __init__(self, num_envs: int, seed: int) -> None:
        del seed
        self.num_envs, self.device, self.state_size = num_envs, torch.device("cpu"), 0
        self.groups = {"g": GroupSpec(5, {"x": (1,)}, Discrete(2))}
        self.t, self.closed = torch.zeros(num_envs, dtype=torch.int64), 0

    def reset(self, where: torch.Tensor | None = None) -> Timestep:
        where = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        self.t = self.t.masked_fill(where, 0)
        return self.shown(torch.zeros(self.num_envs, 5))

    def step(self, actions: Any) -> Timestep:
        earned = self.there(self.t).float()
        self.t = self.t + 1
        return self.shown(earned)

    def there(self, t: torch.Tensor) -> torch.Tensor:
        return torch.stack([t >= 0, t < 3, t < 3, t >= 2, t < 0], 1)

    def shown(self, reward: torch.Tensor) -> Timestep:
        t, there = self.t, self.there(self.t)
        left = torch.stack([t < 0, t < 0, t == 3, t < 0, t < 0], 1)
        future = torch.stack([t >= 0, t < 3, t <= 3, t >= 0, t >= 0], 1)
        x = t.float().view(-1, 1, 1).expand(-1, 5, 1).contiguous() + 1
        mask = torch.ones(self.num_envs, 5, 2, dtype=torch.bool)
        step = GroupStep({"x": x}, mask, there, there | left, reward, future.float(), left)
        over = t >= EPISODE
        return Timestep({"g": step}, torch.zeros(self.num_envs, 0), reward.sum(-1), ~over & over, over, {})

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t}

    def load_state_dict(self, state: Any) -> None:
        self.t = state["t"]

    def close(self) -> None:
        self.closed += 1


def test_the_team_keeps_the_protocol() -> None:
    check_environment(lambda: LeavingAgents(2, 0), steps=30)


def test_a_row_ends_once_as_a_monitor_counts() -> None:
    vector = StableBaselines3VecEnv(lambda seed: LeavingAgents(1, seed))
    watched = VecMonitor(vector)
    watched.reset()
    own: dict[int, list[Any]] = {row: [] for row in range(5)}
    monitored: dict[int, list[float]] = {row: [] for row in range(5)}
    truncated: dict[int, set[bool]] = {row: set() for row in range(5)}
    for _ in range(2 * EPISODE):
        vector.step_async(np.zeros(5, dtype=np.int64))
        observation, _, done, infos = vector.step_wait()
        for row in np.flatnonzero(done):
            own[row].append((infos[row]["episode"]["r"], infos[row]["episode"]["l"]))
            truncated[row].add(infos[row]["TimeLimit.truncated"])
    assert own == {0: [(6.0, 6)] * 2, 1: [(3.0, 3)] * 2, 2: [(3.0, 3)] * 2, 3: [(4.0, 4)] * 2, 4: []}
    assert truncated == {0: {True}, 1: {False}, 2: {True}, 3: {True}, 4: set()}
    watched.reset()
    for step in range(2 * EPISODE):
        observation, _, done, infos = watched.step(np.zeros(5, dtype=np.int64))
        for row in np.flatnonzero(done):
            monitored[row].append(float(infos[row]["episode"]["r"]))
        still = step % EPISODE in (2, 3, 4)
        assert (observation[[1, 2]] == 0.0).all() == still  # whoever left shows nothing until a new episode begins
    assert monitored == {0: [6.0] * 2, 1: [3.0] * 2, 2: [3.0] * 2, 3: [4.0] * 2, 4: []}


def test_gymnasium_reports_the_same() -> None:
    env = GymnasiumVectorEnv(lambda seed: LeavingAgents(1, seed))
    env.reset()
    ends = []
    for step in range(EPISODE):
        _, _, terminated, truncated, infos = env.step(np.zeros(5, dtype=np.int64))
        ends += [(step + 1, row, bool(terminated[row])) for row in np.flatnonzero(terminated | truncated)]
        if step == 2:
            assert infos["final_obs"][2].tolist() == [4.0]
    assert ends == [(3, 1, True), (3, 2, False), (6, 0, False), (6, 3, False)]


def test_pettingzoo_truncates_one_and_goes_on_and_takes_it_back_in() -> None:
    env = PettingZooParallelEnv(lambda seed: LeavingAgents(1, seed))
    env.reset()
    for _ in range(3):
        observations, _, terminated, truncated, _ = env.step(dict.fromkeys(env.agents, 0))
    assert [name for name, ended in terminated.items() if ended] == ["g_1"]
    assert [name for name, ended in truncated.items() if ended] == ["g_2"]
    assert observations["g_2"]["observation"].tolist() == [4.0]
    assert env.agents == ["g_0", "g_3", "g_4"]
    back = OutsideEnvironment(
        1, lambda: PettingZooParallelEnv(lambda seed: LeavingAgents(1, seed)), name="team", seed=0
    )
    back.reset()
    for _ in range(3):
        step = back.step({"g": torch.zeros(1, 5, dtype=torch.int64)}).groups["g"]
    assert step.agents_truncated().tolist() == [[False, False, True, False, False]]
    assert step.discount[0, 1:3].tolist() == [0.0, 1.0]
    assert step.observation["observation"][0, 2].tolist() == [4.0]
    after = back.step({"g": torch.zeros(1, 5, dtype=torch.int64)}).groups["g"]
    assert (bool(after.present[0, 2]), float(after.discount[0, 2])) == (False, 0.0)


def test_rllib_reports_a_truncation_that_is_no_termination() -> None:
    env = RLlibMultiAgentEnv(lambda seed: LeavingAgents(1, seed))
    observations, infos = env.reset()
    episode = MultiAgentEpisode(observation_space=env.observation_spaces, action_space=env.action_spaces)
    episode.add_env_reset(observations=observations, infos=infos)
    while not episode.is_done:
        actions = {name: 0 for name in observations if name in episode.get_agents_to_act()}
        observations, rewards, terminated, truncated, infos = env.step(actions)
        episode.add_env_step(observations, actions, rewards, infos, terminateds=terminated, truncateds=truncated)
    found = {
        name: (part.get_return(), len(part), part.is_terminated, part.is_truncated)
        for name, part in episode.agent_episodes.items()
    }
    assert found == {
        "g_0": (6.0, 6, False, True), "g_1": (3.0, 3, True, False), "g_2": (3.0, 3, False, True),
        "g_3": (4.0, 4, False, True),
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", [StableBaselines3VecEnv, GymnasiumVectorEnv, PettingZooParallelEnv, RLlibMultiAgentEnv]
)
def test_adapters_close_what_they_made(kind: Any) -> None:
    made: list[LeavingAgents] = []

    def make(seed: int) -> LeavingAgents:
        made.append(LeavingAgents(1, seed))
        return made[-1]

    env = kind(make)
    if kind is StableBaselines3VecEnv:
        env.seed(3)
        env.reset()
    else:
        env.reset(seed=3)
    assert [one.closed for one in made] == [1, 0]  # a new seed builds it anew
    env.close()
    assert [one.closed for one in made] == [1, 1]
