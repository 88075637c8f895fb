"""What an outside environment answers is used or refused in one line: masks, observations, rewards, agents, spaces."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from marl_pipeline.envs.bridges.imports import environment as imports
from marl_pipeline.envs.bridges.imports.environment import OutsideEnvironment
from marl_pipeline.envs.bridges.imports.gymnasium import OneAgent
from marl_pipeline.envs.conformance import check_environment
from marl_pipeline.envs.protocol import Continuous
from marl_pipeline.envs.sampling import random_actions
from marl_pipeline.errors import UserError

BOX = spaces.Box(-1, 1, (3,), np.float32)


class TurnBased(ParallelEnv):  # type: ignore[misc]
    """Two players move in turn; who waits has a mask of zeros. `change` alters the answers of one step."""

    metadata = {"name": "turns"}  # noqa: RUF012

    def __init__(self, change: Callable[[int, list[Any]], Any] | None = None, *, stuck: int = 99) -> None:
        self.possible_agents = ["p_0", "p_1"]
        self.agents: list[str] = []
        self.moves: list[dict[str, int]] = []
        self.closed, self.change, self.stuck = 0, change, stuck

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Dict({"observation": BOX, "action_mask": spaces.Box(0, 1, (3,), np.int8)})

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete(3, start=4)

    def seen(self) -> dict[str, Any]:
        allowed = {agent: int(agent == f"p_{self.clock % 2}" and self.clock < self.stuck) for agent in self.agents}
        row = np.full(3, self.clock / 10, np.float32)
        return {a: {"observation": row, "action_mask": np.array([on, on, 0], np.int8)} for a, on in allowed.items()}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.clock, self.agents = 0, list(self.possible_agents)
        answer = [self.seen(), {agent: {} for agent in self.agents}]
        return self.change(0, answer) if self.change else tuple(answer)

    def step(self, actions: dict[str, int]) -> Any:
        self.moves.append(dict(actions))
        self.clock += 1
        over, playing = self.clock >= 6, list(self.agents)
        answer: list[Any] = [
            self.seen(), dict.fromkeys(playing, 1.0), dict.fromkeys(playing, over), dict.fromkeys(playing, False), {}
        ]  # fmt: skip
        if over:
            self.agents = []
        return self.change(self.clock, answer) if self.change else tuple(answer)

    def close(self) -> None:
        self.closed += 1


def turn_based(change: Callable[[int, list[Any]], Any] | None = None, **options: Any) -> OutsideEnvironment:
    return OutsideEnvironment(1, lambda: TurnBased(change, **options), name="turns", seed=0)


def play(env: OutsideEnvironment, steps: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    seen = [env.reset()]
    for _ in range(steps):
        seen.append(env.step(random_actions(env.groups, seen[-1], generator)))
    return seen


def test_whoever_may_do_nothing_waits() -> None:
    env = turn_based()
    seen = play(env, 4)
    assert [step.groups["p"].acts.tolist() for step in seen] == [[[True, False]], [[False, True]]] * 2 + [
        [[True, False]]
    ]
    assert all(bool(step.groups["p"].present.all()) for step in seen)
    assert seen[0].groups["p"].action_mask.tolist() == [[[True, True, False], [True, True, True]]]
    moves = env._worlds[0].moves  # type: ignore[attr-defined]
    assert [move[f"p_{1 - k % 2}"] for k, move in enumerate(moves)] == [4] * 4  # whoever waits is given action 0
    check_environment(turn_based, steps=30)


def test_a_mask_that_leaves_nobody_a_move_is_named_with_its_step() -> None:
    message = "'turns', agent 'p_0', episode 1, step 3: its action mask allows nothing, and no other agent may act"
    with pytest.raises(UserError, match=message):
        play(turn_based(stuck=3), 4)


def at(step: int, part: int, agent: str, value: Any) -> Callable[[int, list[Any]], Any]:
    """At one step, another value of one agent in one part of the answer."""

    def change(now: int, answer: list[Any]) -> Any:
        if now == step:
            answer[part] = {**answer[part], agent: value}
        return tuple(answer)

    return change


def without(step: int, part: int, agent: str) -> Callable[[int, list[Any]], Any]:
    def change(now: int, answer: list[Any]) -> Any:
        if now == step:
            answer[part] = {name: value for name, value in answer[part].items() if name != agent}
        return tuple(answer)

    return change


def seen(row: Any, mask: Any = (1, 1, 0)) -> dict[str, Any]:
    return {"observation": row, "action_mask": np.asarray(mask)}


ROW = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at(2, 0, "p_1", seen(np.array([0, np.nan, 0]))), "agent 'p_1', episode 1, step 2: the observation holds nan"),
        (at(2, 0, "p_1", seen(np.array([0, 1e300, 0]))), "step 2: the observation holds inf, which is not finite"),
        (at(2, 0, "p_0", seen(np.zeros(4))), r"the observation must have shape \[3\], found \[4\]"),
        (at(2, 0, "p_0", seen(np.zeros((1, 3)))), r"must have shape \[3\], found \[1, 3\]"),
        (at(2, 0, "p_0", seen([[1], [2, 3]])), "rows of unequal length"),
        (at(2, 0, "p_0", seen(None)), "must hold numbers, found object"),
        (at(2, 0, "p_0", seen(["a", "b", "c"])), "must hold numbers, found <U1"),
        (at(0, 0, "p_0", seen(np.full(3, np.inf))), "step 0: the observation holds inf"),
        (at(2, 0, "p_0", seen(ROW, (1, 1))), "'action_mask' must have 3 flags, found 2"),
        (at(2, 0, "p_0", seen(ROW, (1, 2, 0))), "must hold 0 and 1"),
        (at(2, 0, "p_0", seen(ROW, (0.5, 1, 0))), "must hold 0 and 1"),
        (without(2, 0, "p_1"), "agent 'p_1', episode 1, step 2: its observation is missing"),
        (at(3, 1, "p_0", float("nan")), "agent 'p_0', episode 1, step 3: the reward is nan, which is not finite"),
        (at(3, 1, "p_0", 1e300), "the reward is 1e\\+300, which is not finite"),
        (at(3, 1, "p_0", None), "the reward must be one number, found None"),
        (at(3, 1, "p_0", [1.0, 2.0]), "the reward must be one number"),
        (at(3, 1, "p_9", 1.0), r"agent 'p_9', episode 1, step 3: it is none of the possible agents \['p_0', 'p_1'\]"),
        (without(3, 1, "p_0"), "agent 'p_0', episode 1, step 3: its reward is missing"),
        (without(3, 2, "p_0"), "its termination is missing"),
        (at(3, 3, "p_0", None), "its truncation must be True or False, found None"),
        (lambda now, answer: answer[0], r"reset must return \(observations, infos\), found dict"),
        (
            lambda now, answer: tuple(answer) if now < 2 else tuple(answer[:4]),
            r"step must return \(observations, rewards, terminations, truncations, infos\), found 4 of them",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(change: Callable[[int, list[Any]], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        play(turn_based(change), 5)
    assert "\n" not in str(refused.value)
    assert "'turns'" in str(refused.value)


def single(observation: spaces.Space[Any], action: spaces.Space[Any], **methods: Any) -> Any:
    """A Gymnasium environment that samples its observations; `methods` replace its own."""

    class Single(gymnasium.Env):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.observation_space, self.action_space, self.got = deepcopy(observation), action, []

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.observation_space.seed(seed)
            self.clock = 0
            return self.observation_space.sample(), {}

        def step(self, chosen: Any) -> Any:
            assert self.action_space.contains(chosen), chosen
            self.got.append(chosen)
            self.clock += 1
            return self.observation_space.sample(), 1.0, self.clock >= 5, False, {}

    return type("Altered", (Single,), methods)


def alone(kind: Any, **options: Any) -> OutsideEnvironment:
    return OutsideEnvironment(1, lambda: OneAgent(kind()), name="alone", seed=0, **options)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-5, 5, (2, 2), np.int64), spaces.Box(0, 255, (2, 2, 3), np.uint8), spaces.Box(-1, 1, (), np.float64),
        spaces.Box(0, 1, (3,), np.bool_), spaces.Discrete(4, start=-1), spaces.MultiDiscrete([2, 3], start=[1, -4]),
        spaces.MultiBinary(3), spaces.Tuple([BOX, spaces.Discrete(2)]), spaces.Dict(a=BOX, b=spaces.Dict(c=BOX)),
    ],
)  # fmt: skip
def test_observations_become_float32_once(space: spaces.Space[Any]) -> None:
    env = alone(single(space, spaces.Discrete(2)))
    row = env.reset().groups["agent"].observation["observation"]
    assert row.dtype == torch.float32
    assert row.shape[-1] == spaces.flatdim(space)
    check_environment(lambda: alone(single(space, spaces.Discrete(2))), steps=12)


FAR = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    "box",
    [
        spaces.Box(-FAR, FAR, (2,)), spaces.Box(-1e38, 1e38, (2,)), spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(np.array([0.0, -1e38], np.float32), np.array([1.0, 1e38], np.float32)),
        spaces.Box(0, np.iinfo(np.int64).max, (1,), np.int64),
    ],
)  # fmt: skip
def test_bounds_that_stand_for_none_are_refused(box: spaces.Box) -> None:
    with pytest.raises(UserError, match=r"'alone', agent 'agent': actions must be .* a Box bounded by at most 1e\+09"):
        alone(single(BOX, box))


@pytest.mark.parametrize(
    "box",
    [
        spaces.Box(0, 4, (2,), np.int64), spaces.Box(1, 1, (2,), np.float32), spaces.Box(-2, 2, (), np.float64),
        spaces.Box(np.array([1, 0]), np.array([1, 9]), dtype=np.int32), spaces.Box(0, 255, (2,), np.uint8),
        spaces.Box(-0.1, 0.3, (2,), np.float32),
    ],
)  # fmt: skip
def test_actions_arrive_inside_their_box(box: spaces.Box) -> None:
    env = alone(single(BOX, box))
    space = env.groups["agent"].actions
    assert isinstance(space, Continuous)
    env.reset()
    for share in (0.0, 0.5, 1.0):
        env.step({"agent": torch.full((1, 1, space.size), space.low + share * (space.high - space.low))})
    first, middle, last = env._worlds[0]._env.got  # type: ignore[attr-defined]
    np.testing.assert_allclose(first, box.low, atol=1e-6)
    np.testing.assert_allclose(last, box.high, atol=1e-6)
    np.testing.assert_allclose(middle, np.rint((box.low + box.high) / 2) if box.dtype.kind != "f" else middle)


def test_masks_that_begin_late_are_found_wherever_they_are() -> None:
    late = lambda self: np.array([self.clock < 2, True, False])  # noqa: E731
    by_method = play(alone(single(BOX, spaces.Discrete(3), action_masks=late)), 3)
    assert [step.groups["agent"].action_mask[0, 0].tolist() for step in by_method] == [[True, True, False]] * 2 + [
        [False, True, False]
    ] * 2

    def step(self: Any, chosen: Any) -> Any:
        self.clock += 1
        info = {"action_mask": np.array([0, 1, 0])} if self.clock >= 2 else {}
        return self.observation_space.sample(), 1.0, False, False, info

    by_info = play(alone(single(BOX, spaces.Discrete(3), step=step)), 3)
    assert [bool(step.groups["agent"].action_mask.all()) for step in by_info] == [True, True, False, False]


@pytest.mark.parametrize("name", ["legal_actions", "avail_actions", "action_masks", "valid_actions"])
def test_masks_by_another_name_are_refused(name: str) -> None:
    def step(self: Any, chosen: Any) -> Any:
        return self.observation_space.sample(), 1.0, False, False, {name: [0, 1]}

    with pytest.raises(UserError, match=f"'agent', episode 1, step 1: the info has '{name}', and what may be chosen"):
        play(alone(single(BOX, spaces.Discrete(3), step=step)), 1)
    with pytest.raises(UserError, match=f"the observation's part 'deep.{name}' would be seen and not obeyed"):
        alone(single(spaces.Dict(deep=spaces.Dict({name: BOX}), rest=BOX), spaces.Discrete(3)))


def test_a_mask_over_numbers_is_refused() -> None:
    masks = lambda self: np.array([True, False])  # noqa: E731
    with pytest.raises(UserError, match="'action_mask' cannot bind the numbers of a Box"):
        play(alone(single(BOX, spaces.Box(-1, 1, (2,)), action_masks=masks)), 1)


def test_spaces_that_change_are_refused() -> None:
    def reset(self: Any, *, seed: int | None = None, options: Any = None) -> Any:
        self.clock, self.rounds = 0, getattr(self, "rounds", 0) + 1
        self.action_space = spaces.Discrete(3 if self.rounds < 2 else 4)
        return self.observation_space.sample(), {}

    env = alone(single(BOX, spaces.Discrete(3), reset=reset))
    env.reset()
    with pytest.raises(UserError, match=r"episode 2, step 0: its action space has become Discrete.4., from D"):
        env.reset()


def test_every_environment_is_closed_once_also_when_building_fails() -> None:
    built: list[TurnBased] = []

    def build() -> TurnBased:
        built.append(TurnBased())
        if len(built) == 3:
            raise RuntimeError("no more sockets")
        return built[-1]

    with pytest.raises(RuntimeError, match="no more sockets"):
        OutsideEnvironment(3, build, name="turns", seed=0)
    assert [one.closed for one in built] == [1, 1, 0]
    env = OutsideEnvironment(2, lambda: built.append(TurnBased()) or built[-1], name="turns", seed=0)  # type: ignore[func-returns-value]
    env.close()
    env.close()
    assert [one.closed for one in built[3:]] == [1, 1]


def endless() -> Any:
    def step(self: Any, chosen: Any) -> Any:
        self.clock += 1
        return self.observation_space.sample(), 1.0, False, False, {}

    return single(BOX, spaces.Discrete(2), step=step)


def test_an_episode_that_never_ends_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "LONGEST_EPISODE", 50)
    play(alone(endless()), 50)
    with pytest.raises(
        UserError, match=r"'alone': an episode goes on after 50 steps: let the environment end it .* max_ep"
    ):
        play(alone(endless()), 51)


def test_a_limit_truncates_and_what_is_remembered_of_an_episode_is_small() -> None:
    env = alone(endless(), max_episode_steps=4)
    seen = play(env, 4)
    assert [bool(step.truncated[0]) for step in seen] == [False] * 4 + [True]
    assert float(seen[-1].groups["agent"].discount) == 1.0
    check_environment(lambda: alone(endless(), max_episode_steps=4), steps=20)
    long = alone(endless())
    play(long, 3000)
    kept = sum(array.nbytes for array in long._logs[0]._actions.values())
    assert kept <= 4096
