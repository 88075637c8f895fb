"""Greedy episodes: which steps count, when they end, and what starts anew."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from marl_pipeline.algos.common.episodes import Memoryless, episode_steps
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.evaluation.greedy import greedy_returns
from tests.algos.leaving import Leaving

LENGTHS = torch.tensor([2, 4, 3])


class Uneven(Leaving):
    """Environment e ends after LENGTHS[e] steps and earns e + 1 at each."""

    def __init__(self) -> None:
        super().__init__(3)
        self.resets: list[list[bool]] = []

    def reset(self, where: Tensor | None = None) -> Timestep:
        if where is not None:
            self.resets.append(where.tolist())
        return super().reset(where)

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        after = super().step(actions)
        ended = self._step >= LENGTHS
        earned = torch.tensor([1.0, 2.0, 3.0])
        return Timestep(after.groups, after.state, earned, ended, torch.zeros_like(ended), {})


class Counts(Memoryless):
    """Stays, and remembers how many steps of the episode it has seen."""

    def __init__(self) -> None:
        super().__init__(lambda timestep: {"pair": torch.zeros(3, 2, dtype=torch.int64)})
        self.seen: list[list[float]] = []

    def start(self, num_envs: int) -> dict[str, Tensor]:
        return {"pair": torch.zeros(num_envs, 1, 1)}

    def act(self, timestep, memory, generator):  # type: ignore[no-untyped-def]
        actions, _ = super().act(timestep, memory, generator)
        self.seen.append(memory["pair"].flatten().tolist())
        return actions, {"pair": memory["pair"] + 1}


def test_a_return_is_the_sum_up_to_the_end_of_the_first_episode() -> None:
    assert greedy_returns(Uneven(), Counts()).tolist() == [2 * 1.0, 4 * 2.0, 3 * 3.0]


def test_environments_run_until_their_first_end_and_start_anew_where_they_ended() -> None:
    environment, policy = Uneven(), Counts()
    steps = list(episode_steps(environment, policy, environment.reset(), restart=True))
    running = [step.running.tolist() for step in steps]
    assert running == [[True] * 3, [True] * 3, [False, True, True], [False, True, False]]
    assert environment.resets == [[True, False, False], [False, False, True], [True, True, False]]
    assert policy.seen == [[0, 0, 0], [1, 1, 1], [0, 2, 2], [1, 3, 0]]
    for before, after in itertools.pairwise(steps):
        assert before.after is after.before or bool(before.after.done.any())


def test_a_number_of_steps_is_taken_whatever_ends() -> None:
    environment = Uneven()
    steps = list(episode_steps(environment, Counts(), environment.reset(), steps=6))
    assert len(steps) == 6
    assert environment.resets == []
    assert steps[-1].running.tolist() == [False] * 3
