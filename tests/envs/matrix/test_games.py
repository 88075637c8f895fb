"""The matrix games pay what the papers say, to each agent and to the team."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.greedy import greedy_returns
from marl_pipeline.scenarios import registry


def play(env: Environment, *joint: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[E] team return and [E, 2] returns of the agents of the joint actions, played until the episode is over."""
    step = env.reset()
    team, own = step.team_reward, step.groups["agents"].reward
    for index in range(100):
        chosen = torch.tensor(joint[index % len(joint)]).expand(env.num_envs, 2)
        step = env.step({"agents": chosen})
        team, own = team + step.team_reward, own + step.groups["agents"].reward
        if bool(step.done.all()):
            return team, own
    raise AssertionError("the episode has no end")


@pytest.mark.parametrize(
    ("joint", "paid"),
    [
        (((0, 1), (1, 0)), 7.0),
        (((0, 0), (0, 0)), 7.0),
        (((1, 0), (1, 1)), 8.0),
        (((1, 1), (0, 1)), 1.0),
        (((1, 0), (0, 0)), 0.0),
    ],
)
def test_two_step_pays_the_table_that_the_first_agent_picked(joint: tuple[tuple[int, int], ...], paid: float) -> None:
    team, own = play(registry.make("matrix/two_step", 3, seed=0), *joint)
    assert team.tolist() == [paid] * 3
    assert own.tolist() == [[paid, paid]] * 3


class Always:
    """A policy that plays one joint action."""

    module = nn.Module()

    def __init__(self, first: int, second: int) -> None:
        self.joint = torch.tensor([first, second])

    def start(self, num_envs: int) -> dict[str, Tensor]:
        return {}

    def act(
        self, timestep: Timestep, memory: dict[str, Tensor], generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"agents": self.joint.expand(len(timestep.team_reward), 2)}, {}


def test_test_returns_are_in_the_units_of_the_papers() -> None:
    assert greedy_returns(registry.make("matrix/two_step", 2, seed=0), Always(1, 1)).tolist() == [8.0, 8.0]
    assert greedy_returns(registry.make("matrix/climbing", 2, seed=0), Always(0, 0)).tolist() == [275.0, 275.0]


def test_two_step_shows_where_it_is_and_ends_without_a_future() -> None:
    env = registry.make("matrix/two_step", 1, seed=0)
    assert env.reset().state.tolist() == [[1.0, 0.0, 0.0]]
    middle = env.step({"agents": torch.tensor([[1, 0]])})
    assert middle.state.tolist() == [[0.0, 0.0, 1.0]]
    assert not middle.done.any()
    last = env.step({"agents": torch.tensor([[1, 1]])})
    assert last.terminated.tolist() == [True]
    assert last.truncated.tolist() == [False]
    assert last.groups["agents"].discount.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "joint", "paid"),
    [
        ("matrix/climbing", (0, 0), 275.0),
        ("matrix/climbing", (1, 1), 175.0),
        ("matrix/climbing", (0, 1), -750.0),
        ("matrix/climbing", (2, 1), 150.0),
        ("matrix/penalty", (0, 2), 250.0),
        ("matrix/penalty", (2, 0), 250.0),
        ("matrix/penalty", (1, 1), 50.0),
        ("matrix/penalty", (2, 2), -625.0),
    ],
)
def test_repeated_games_pay_the_table_for_25_steps(name: str, joint: tuple[int, int], paid: float) -> None:
    team, own = play(registry.make(name, 2, seed=0), joint)
    assert team.tolist() == [paid] * 2
    assert own.tolist() == [[paid, paid]] * 2


def test_repeated_games_are_truncated_and_not_terminated() -> None:
    env = registry.make("matrix/penalty", 1, seed=0, episode=2, penalty=-100.0)
    env.reset()
    step = env.step({"agents": torch.tensor([[0, 0]])})
    assert step.team_reward.tolist() == [-100.0]
    assert not step.done.any()
    step = env.step({"agents": torch.tensor([[0, 0]])})
    assert step.truncated.tolist() == [True]
    assert step.terminated.tolist() == [False]
    with pytest.raises(UserError, match="episode=0"):
        registry.make("matrix/climbing", 1, seed=0, episode=0)
