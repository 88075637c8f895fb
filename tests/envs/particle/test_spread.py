"""The batched simple_spread is MPE2's, step by step, and what is particular to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mpe2 import simple_spread_v3
from torch import Tensor

from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.envs.sampling import random_actions

CLOSE = 2e-5
"""Ours is float32, theirs float64; one contact turns 1e-7 of a distance into 1e-5 of a speed."""


class Theirs:
    """MPE2's simple_spread, put where one of our environments is."""

    def __init__(self, agents: int, **options: Any) -> None:
        self.env = simple_spread_v3.parallel_env(N=agents, **options)
        self.env.reset(seed=0)
        self.agents, self.world = agents, self.env.unwrapped.world

    def place(self, seen: Tensor) -> None:
        """Copies velocities, positions and landmarks from what our agents see, [N, O]."""
        rows = seen.double().numpy()
        for agent, row in zip(self.world.agents, rows, strict=True):
            agent.state.p_vel, agent.state.p_pos = row[0:2].copy(), row[2:4].copy()
        for index, landmark in enumerate(self.world.landmarks):
            landmark.state.p_pos = rows[0, 2:4] + rows[0, 4 + 2 * index : 6 + 2 * index]

    def step(self, chosen: Tensor) -> tuple[np.ndarray, np.ndarray, bool]:
        """[N, O] observations, [N] rewards, and whether the episode was truncated."""
        names = list(self.env.agents)
        actions = {
            name: action.numpy() if action.is_floating_point() else int(action)
            for name, action in zip(names, chosen, strict=True)
        }
        seen, rewards, _, truncated, _ = self.env.step(actions)
        return (
            np.stack([seen[name] for name in names]),
            np.array([rewards[name] for name in names]),
            all(truncated.values()),
        )


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(("agents", "local_ratio"), [(1, 0.5), (2, 0.2), (3, 0.5), (6, 1.0), (8, 0.0)])
def test_every_step_is_mpe2s(agents: int, local_ratio: float, continuous: bool) -> None:
    num_envs, episode = 4, 12
    ours = SimpleSpread(
        num_envs, seed=1, agents=agents, episode=episode, local_ratio=local_ratio, continuous=continuous
    )
    options = {"local_ratio": local_ratio, "max_cycles": episode, "continuous_actions": continuous}
    theirs = [Theirs(agents, **options) for _ in range(num_envs)]
    generator, step = torch.Generator().manual_seed(agents), ours.reset()
    for index in range(1, episode + 1):
        actions = random_actions(ours.groups, step, generator)
        before, step = step.groups["agents"].observation["seen"], ours.step(actions)
        reported = step.groups["agents"]
        for env, other in enumerate(theirs):
            other.place(before[env])
            seen, rewards, truncated = other.step(actions["agents"][env])
            np.testing.assert_allclose(reported.observation["seen"][env].numpy(), seen, atol=CLOSE, rtol=1e-5)
            np.testing.assert_allclose(reported.reward[env].numpy(), rewards, atol=CLOSE, rtol=1e-5)
            assert bool(step.truncated[env]) == truncated == (index == episode)


def test_contacts_push_as_mpe2s_do_and_cost_each_of_the_two() -> None:
    ours, theirs = SimpleSpread(16, seed=0), Theirs(3)
    close = torch.rand(16, 3, 2, generator=torch.Generator().manual_seed(3)) * 0.3
    ours.load_state_dict(ours.state_dict() | {"position": close})
    step = ours.reset(torch.zeros(16, dtype=torch.bool))
    stay = torch.zeros(16, 3, dtype=torch.int64)
    pushed = ours.step({"agents": stay}).groups["agents"]
    touched = 0
    for env in range(16):
        theirs.place(step.groups["agents"].observation["seen"][env])
        theirs.env.unwrapped.steps = 0
        seen, rewards, _ = theirs.step(stay[env])
        speed = pushed.observation["seen"][env, :, :2].numpy()
        np.testing.assert_allclose(speed, seen[:, :2], atol=CLOSE, rtol=1e-4)
        np.testing.assert_allclose(pushed.reward[env].numpy(), rewards, atol=CLOSE, rtol=1e-5)
        touched += int((np.abs(speed) > 0.1).any())
    assert touched == 16


def uncovered(step: Timestep) -> Tensor:
    """[E] sum over landmarks of the distance to the nearest of 3 agents, from the observation."""
    landmarks = step.groups["agents"].observation["seen"][..., 4:10].unflatten(-1, (3, 2))
    return landmarks.norm(dim=-1).amin(1).sum(-1)


def test_the_team_is_paid_what_its_agents_are_together() -> None:
    env, generator = SimpleSpread(32, seed=5, local_ratio=0.0), torch.Generator().manual_seed(0)
    step = env.step(random_actions(env.groups, env.reset(), generator))
    torch.testing.assert_close(step.team_reward, -3 * uncovered(step))
    torch.testing.assert_close(step.team_reward, step.groups["agents"].reward.sum(-1))


def test_a_reset_of_some_environments_leaves_the_others_where_they_are() -> None:
    env = SimpleSpread(2, seed=0)
    first = env.reset().groups["agents"].observation["seen"]
    again = env.reset(torch.tensor([True, False])).groups["agents"].observation["seen"]
    assert torch.equal(again[1], first[1])
    assert not torch.equal(again[0], first[0])
