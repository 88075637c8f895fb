"""What simple_spread pays to random play and to a greedy assignment: the figures that learners are held against."""

from __future__ import annotations

import torch

from marl_pipeline.envs.particle.reference import GreedyAssignment
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.envs.sampling import RandomPolicy
from marl_pipeline.evaluation.greedy import greedy_returns


def test_random_play_and_greedy_assignment_earn_what_they_are_known_to() -> None:
    env = SimpleSpread(512, seed=0)
    random = greedy_returns(env, RandomPolicy(env.groups, seed=1)).mean().item()
    assigned = greedy_returns(env, GreedyAssignment()).mean().item()
    assert abs(random - -79.4) < 3.0  # 3 standard errors of 512 episodes
    assert abs(assigned - -22.9) < 1.3


def test_every_agent_goes_to_a_landmark_of_its_own_and_stays() -> None:
    env = SimpleSpread(1, seed=0, agents=2, episode=100)
    env.reset()
    world = {
        "position": torch.tensor([[[0.0, 0.0], [-0.5, 0.0]]]),
        "landmark": torch.tensor([[[-0.1, 0.6], [1.0, 0.0]]]),
    }
    env.load_state_dict(env.state_dict() | world)
    step, policy = env.reset(torch.tensor([False])), GreedyAssignment()
    for _ in range(40):
        step = env.step(policy.act(step, {}, None)[0])
    ended = env.state_dict()["position"]
    assert (ended[0, 0] - torch.tensor([1.0, 0.0])).norm() < 0.15
    assert (ended[0, 1] - torch.tensor([-0.1, 0.6])).norm() < 0.15
