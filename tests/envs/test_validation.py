"""The user's own environments are checked at every step: what breaks the protocol later than any check has played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_pipeline.envs import validation
from marl_pipeline.envs.conformance import ProtocolError, check_environment
from marl_pipeline.envs.protocol import ActionSpace, Continuous, Discrete, GroupSpec, GroupStep, Timestep
from marl_pipeline.envs.sampling import random_actions
from marl_pipeline.envs.validation import Validated
from marl_pipeline.errors import UserError
from marl_pipeline.scenarios import registry

LATE = 60
"""Steps after which the environments below begin to break the protocol."""


class Own:
    """One agent, episodes of 10 steps; from step LATE on one `mistake`."""

    def __init__(
        self, num_envs: int, *, seed: int, device: str = "cpu", mistake: str = "", since: int = LATE, ends: bool = True
    ) -> None:
        self.num_envs, self.device, self.state_size = num_envs, torch.device(device), 0
        self.actions: ActionSpace = Discrete(2)
        self.groups = {"g": GroupSpec(1, {"x": (2,)}, self.actions)}
        self.clock, self.total = torch.zeros(num_envs, dtype=torch.int64), 0
        self.mistake, self.since, self.ends, self.closed = mistake, since, ends, 0

    def reset(self, where: Tensor | None = None) -> Timestep:
        where = torch.ones_like(self.clock, dtype=torch.bool) if where is None else where
        self.clock = self.clock.masked_fill(where, 0)
        return self.shown(torch.zeros(self.num_envs, 1))

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        self.clock, self.total = self.clock + 1, self.total + 1
        return self.shown(actions["g"].float())

    def shown(self, reward: Tensor) -> Timestep:
        every = torch.ones(self.num_envs, 1, dtype=torch.bool)
        over = (self.clock >= 10) & self.ends
        x = torch.stack([self.clock / 10, 1 - self.clock / 10], -1).unsqueeze(1)
        group = GroupStep(
            {"x": x}, torch.ones(self.num_envs, 1, 2, dtype=torch.bool), every, every, reward,
            (~over).float().unsqueeze(-1),
        )  # fmt: skip
        step = Timestep({"g": group}, torch.zeros(self.num_envs, 0), reward.sum(-1), over, torch.zeros_like(over), {})
        return MISTAKES[self.mistake](step) if self.total >= self.since and self.mistake else step

    def close(self) -> None:
        self.closed += 1

    def state_dict(self) -> dict[str, Any]:
        return {"clock": self.clock, "total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.clock, self.total = state["clock"], state["total"]


def group(step: Timestep, **parts: Any) -> Timestep:
    return replace(step, groups={"g": replace(step.groups["g"], **parts)})


def last(values: Tensor, value: float) -> Tensor:
    """The values with another one for the last environment."""
    changed = values.clone()
    changed[-1] = value
    return changed


MISTAKES: dict[str, Any] = {
    "nan observation": lambda s: group(s, observation={"x": last(s.groups["g"].observation["x"], torch.nan)}),
    "float64 observation": lambda s: group(s, observation={"x": s.groups["g"].observation["x"].double()}),
    "int64 observation": lambda s: group(s, observation={"x": s.groups["g"].observation["x"].long()}),
    "observation of another shape": lambda s: group(s, observation={"x": s.groups["g"].observation["x"][..., :1]}),
    "another field": lambda s: group(s, observation={"y": s.groups["g"].observation["x"]}),
    "inf reward": lambda s: group(s, reward=last(s.groups["g"].reward, torch.inf)),
    "float64 reward": lambda s: group(s, reward=s.groups["g"].reward.double()),
    "a list of rewards": lambda s: group(s, reward=s.groups["g"].reward.tolist()),
    "nothing allowed": lambda s: group(s, action_mask=last(s.groups["g"].action_mask, False)),
    "a narrow mask": lambda s: group(s, action_mask=s.groups["g"].action_mask[..., :1]),
    "a future after the end": lambda s: group(s, discount=torch.ones_like(s.groups["g"].discount)),
    "a discount of 2": lambda s: group(s, discount=last(s.groups["g"].discount, 2.0)),
    "an absent agent acts": lambda s: group(s, present=torch.zeros_like(s.groups["g"].present)),
    "both ends": lambda s: replace(s, truncated=s.terminated),
    "nan team reward": lambda s: replace(s, team_reward=last(s.team_reward, torch.nan)),
    "a figure of another shape": lambda s: replace(s, info={"speed": torch.zeros(1)}),
    "no timestep": lambda s: (s, {}),
}

WORDS = {
    "nan observation": "group 'g', observation 'x': a number is not finite (environment 2, agent 0)",
    "float64 observation": "group 'g', observation 'x': torch.float32 is needed, found torch.float64",
    "int64 observation": "'x': torch.float32 is needed, found torch.int64, a reference that nobody looks up",
    "observation of another shape": "observation 'x': shape [3, 1, 2] is needed, found [3, 1, 1]",
    "another field": "observation fields must be ['x'], found ['y']",
    "inf reward": "group 'g', reward: a number is not finite (environment 2, agent 0)",
    "float64 reward": "group 'g', reward: torch.float32 is needed, found torch.float64",
    "a list of rewards": "group 'g', reward: a tensor is needed, found list",
    "nothing allowed": "group 'g': an agent has no allowed action (environment 2, agent 0)",
    "a narrow mask": "action_mask: shape [3, 1, 2] is needed, found [3, 1, 1]",
    "a future after the end": "group 'g': the discount of a terminated episode is not 0 (environment 0, agent 0)",
    "a discount of 2": "group 'g': a discount is outside [0, 1] (environment 2, agent 0)",
    "an absent agent acts": "group 'g': an absent agent acts (environment 0, agent 0)",
    "both ends": "an episode is both terminated and truncated (environment 0)",
    "nan team reward": "team_reward: a number is not finite (environment 2)",
    "a figure of another shape": "info 'speed' must be [E] or [E, A], found [1]",
    "no timestep": "a Timestep is needed, found tuple",
}


def play(env: Validated, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    step = env.reset()
    for _ in range(steps):
        step = env.step(random_actions(env.groups, step, generator))
        if bool(step.done.any()):
            step = env.reset(step.done)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_breach_is_named_whenever_it_comes_and_by_the_check_in_the_same_words(mistake: str) -> None:
    with pytest.raises(ProtocolError) as late:
        play(Validated(Own(3, seed=0, mistake=mistake), "own:Own"), LATE + 12)
    assert str(late.value).startswith("environment 'own:Own': after step ")
    assert str(late.value).endswith(WORDS[mistake])
    with pytest.raises(ProtocolError) as early:
        check_environment(lambda: Validated(Own(3, seed=0, mistake=mistake, since=4), "own:Own"), steps=20)
    assert WORDS[mistake].partition(" (environment")[0] in str(early.value)
    play(Validated(Own(3, seed=0), "own:Own"), LATE + 12)


def test_who_is_gone_stays_gone() -> None:
    class Undead(Own):
        def shown(self, reward: Tensor) -> Timestep:
            step = super().shown(reward)
            dead = torch.ones_like(step.groups["g"].discount) * (self.clock != 3).unsqueeze(-1)
            return group(step, discount=step.groups["g"].discount * dead)

    with pytest.raises(ProtocolError, match="after step 4, group 'g': an agent acts after its discount was 0"):
        play(Validated(Undead(2, seed=0), "own:Undead"), 8)


@pytest.mark.parametrize("bound", [1e38, float("inf"), float(torch.finfo(torch.float32).max)])
def test_bounds_without_end_are_refused(bound: float) -> None:
    class Far(Own):
        def __init__(self, num_envs: int, **options: Any) -> None:
            super().__init__(num_envs, **options)
            self.groups = {"g": GroupSpec(1, {"x": (2,)}, Continuous(2, -bound, bound))}

    with pytest.raises(ProtocolError, match="'own:Far': specs of group 'g': bounds of at most 1e\\+09 are needed"):
        Validated(Far(1, seed=0), "own:Far")


def test_an_endless_episode_is_reported_or_truncated_and_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "LONGEST_EPISODE", 30)
    with pytest.raises(UserError, match="'own:Own': an episode goes on after 30 steps: let the environment end it"):
        play(Validated(Own(2, seed=0, ends=False), "own:Own"), 31)
    name = "tests.envs.test_validation:Own"
    env = registry.make(name, 2, seed=0, ends=False, max_episode_steps=7)
    assert isinstance(env, Validated)
    play(env, 40)
    check_environment(lambda: registry.make(name, 2, seed=0, ends=False, max_episode_steps=7), steps=40)
    with pytest.raises(UserError, match="option 'max_episode_steps' must be a whole number of at least 1, found 0"):
        registry.make(name, 2, seed=0, max_episode_steps=0)
    with pytest.raises(UserError, match="unknown option 'max_episode_steps'"):
        registry.make("matrix/climbing", 2, seed=0, max_episode_steps=7)


def test_the_check_closes_what_it_opened() -> None:
    made: list[Own] = []

    def make() -> Own:
        made.append(Own(2, seed=0))
        return made[-1]

    assert check_environment(make, steps=25) > 0
    assert [env.closed for env in made] == [1, 1, 1]
    with pytest.raises(ProtocolError):
        check_environment(lambda: made.append(Own(2, seed=0, mistake="no timestep", since=0)) or made[-1], steps=5)  # type: ignore[func-returns-value]
    assert [env.closed for env in made[3:]] == [1, 1, 1]
