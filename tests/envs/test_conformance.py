"""The conformance check passes what holds the protocol and names every way of breaking it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_pipeline.envs.conformance import ProtocolError, check_environment
from marl_pipeline.envs.protocol import Discrete, GroupSpec, GroupStep, Timestep
from marl_pipeline.scenarios import registry
from tests.algos.toy import Colours
from tests.envs.menagerie import DIES, Menagerie


@pytest.mark.parametrize("num_envs", [1, 4])
def test_all_kinds_of_agents_and_actions_pass(num_envs: int) -> None:
    check_environment(lambda: Menagerie(num_envs, seed=3), steps=45)


def test_two_groups_on_their_own_clocks_pass() -> None:
    check_environment(lambda: Colours(5, seed=1), steps=40)


@pytest.mark.parametrize("name", [name for name in registry.names() if not name.startswith("market/")])
def test_built_in_environments_pass(name: str) -> None:
    check_environment(lambda: registry.make(name, 4, seed=2), steps=60)


def test_continuous_simple_spread_passes() -> None:
    check_environment(lambda: registry.make("mpe/simple_spread", 3, seed=2, agents=5, continuous=True), steps=60)


Change = Callable[[Timestep], Timestep]


def of(group: str, **parts: Callable[[GroupStep], Any]) -> Change:
    """Replaces parts of one group's step."""

    def change(step: Timestep) -> Timestep:
        broken = replace(step.groups[group], **{name: make(step.groups[group]) for name, make in parts.items()})
        return replace(step, groups={**step.groups, group: broken})

    return change


class Altered(Menagerie):
    """The menagerie, telling something else than it should."""

    def __init__(self, change: Change, *, only_steps: bool = False) -> None:
        super().__init__(3, seed=3)
        self._change, self._only_steps = change, only_steps

    def reset(self, where: Tensor | None = None) -> Timestep:
        step = super().reset(where)
        return step if self._only_steps else self._change(step)

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        return self._change(super().step(actions))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of("late", reward=lambda s: s.reward.double()), "after reset, group 'late', reward: torch.float32 is needed"),
        (of("late", reward=lambda s: s.reward.squeeze(-1)), r"group 'late', reward: shape \[3, 1\] is needed"),
        (of("late", reward=lambda s: s.reward + 1), "a reset earns a reward"),
        (of("late", discount=lambda s: s.discount * 2), r"a discount is outside \[0, 1\]"),
        (of("late", present=lambda s: torch.zeros_like(s.present)), "after step 2, group 'late': an absent agent acts"),
        (of("late", observation=lambda s: {}), "observation fields must be .*'clock'"),
        (of("late", observation=lambda s: s.observation | {"clock": s.reward / 0}), "'clock': a number is not finite"),
        (of("pickers", action_mask=lambda s: s.action_mask[..., :4]), r"action_mask: shape \[3, 2, 5\] is needed"),
        (
            of("pickers", action_mask=lambda s: torch.arange(5).expand(3, 2, 5) < 2),
            "group 'pickers': an agent has no allowed action",
        ),
        (lambda step: replace(step, groups={"late": step.groups["late"]}), "groups \\['late'\\], not"),
        (lambda step: replace(step, state=step.state.double()), "state: torch.float32 is needed"),
        (lambda step: replace(step, truncated=step.truncated | step.terminated), "both terminated and truncated"),
        (lambda step: replace(step, info={"x": torch.zeros(2)}), r"info 'x' must be \[E\]"),
    ],
)
def test_what_an_environment_tells_is_checked(change: Change, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        check_environment(lambda: Altered(change), steps=30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of("pickers", discount=lambda s: torch.ones_like(s.discount)), "discount of a terminated episode is not 0"),
        (
            of("pickers", discount=lambda s: torch.zeros_like(s.discount)),
            "group 'pickers': an agent acts after its discount was 0",
        ),
        (of("late", reward=lambda s: s.reward + 1), "after step 1, group 'late': an absent agent earns a reward"),
    ],
)
def test_agents_that_are_away_stay_quiet(change: Change, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        check_environment(lambda: Altered(change, only_steps=True), steps=30)


class Forgetful(Menagerie):
    """Loses its generator in a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._clock, self._colour, self._played = state["clock"], state["colour"], dict(state["played"])


class Pickled(Menagerie):
    """Saves an object that only unpickling brings back."""

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"spec": GroupSpec(1, {}, Discrete(2))}


class Unseeded(Menagerie):
    """Draws from the global generator."""

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        step = super().step(actions)
        return replace(step, state=torch.rand(self.num_envs, 1))


class Careless(Menagerie):
    """Writes into the caller's actions."""

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        step = super().step(actions)
        actions["late"].zero_()
        return step


class Reusing(Menagerie):
    """Writes into what it handed out before."""

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        self._played["late"] += 1.0
        return super().step(actions)


class Listening(Menagerie):
    """Uses the actions of drivers that do not act."""

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        step = super().step(actions)
        return replace(step, team_reward=actions["drivers"].sum((1, 2)))


class Thorough(Menagerie):
    """Resets all environments whenever it resets one."""

    def reset(self, where: Tensor | None = None) -> Timestep:
        return super().reset(None)


class Undead(Menagerie):
    """The dead picker comes back."""

    def _roles(self, name: str) -> tuple[Tensor, Tensor]:
        acts, present = super()._roles(name)
        if name == "pickers":
            back = (self._clock > DIES + 1).unsqueeze(-1)
            return acts | back, present | back
        return acts, present


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgetful, "saved and loaded|some reset: equal environments differ"),
        (Pickled, "state_dict holds more than tensors"),
        (Unseeded, "after step 1: an equal environment, .* differs: in state"),
        (Careless, "step wrote into the actions"),
        (Reusing, "after step 1: step wrote into the timestep before it: in late.played"),
        (Listening, "other actions of the idle, differs: in team_reward"),
        (Thorough, "some reset: .* changed in an environment that was not reset"),
        (Undead, "an agent acts after its discount was 0"),
    ],
)
def test_what_an_environment_does_is_checked(kind: type[Menagerie], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        check_environment(lambda: kind(3, 3), steps=30)
