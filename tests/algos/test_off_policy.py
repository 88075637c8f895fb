"""Collecting for a replay: memory that starts with the episode, returns of the episodes that ended."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.algos.common.off_policy import Collector
from marl_pipeline.algos.common.replay import Replay
from tests.algos.toy import EPISODE, Colours


class Counting:
    """Always names colour 0 and chooses 1; remembers how many steps of the episode it has seen."""

    def start(self, num_envs):
        return {"boss": torch.zeros(num_envs, 1, 1)}

    def act(self, timestep, memory, generator):
        envs = len(timestep.team_reward)
        actions = {"workers": torch.zeros(envs, 2), "boss": torch.ones(envs, 1)}
        return {name: action.long() for name, action in actions.items()}, {"boss": memory["boss"] + 1}


def collector(buffer_size=400):
    env = Colours(4, 0)
    first = env.reset()
    replay = Replay(env, first, buffer_size=buffer_size, memory={"boss": 1})
    return Collector(env, first, Counting(), replay, torch.Generator().manual_seed(0)), replay


def test_memory_is_forgotten_where_an_episode_starts():
    collecting, replay = collector()
    collecting.collect(3 * EPISODE + 2)
    position = replay.draw(300, 1, torch.Generator().manual_seed(0))
    got = replay.windows(position, 1)
    steps = got.observations.state[0, :, 0] * EPISODE  # the state of this game is its clock
    valid = got.valid[0]
    assert 100 < int(valid.sum()) < 300
    assert torch.equal(got.memory["boss"][valid, 0, 0], steps[valid])


def test_the_return_is_that_of_the_episodes_that_ended():
    collecting, replay = collector()
    assert collecting.collect(EPISODE - 1) == {}
    reported = collecting.collect(1)["train_return"]
    position = torch.arange(4)
    whole = replay.windows(position, EPISODE)
    earned = sum(taken.reward.sum() for taken in whole.outcomes.values()) / 4
    assert reported == pytest.approx(float(earned))
