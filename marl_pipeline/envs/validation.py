"""Checks on an environment of the user's own at every step, whoever plays it: training, evaluation, `marl env check`.

Most breaches of the protocol would otherwise show as something else: NaN rewards as training that diverged, float64
observations as an error deep in a network, a wrong discount as a policy that learns badly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.conformance import ProtocolError, check_specs, check_the_gone, check_timestep, choices
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.envs.wrappers import View

LONGEST_EPISODE = 100_000
"""Steps after which an episode of an environment from outside is taken for one that never ends."""


def endless(name: str, steps: int) -> str:
    """What is reported of an episode that goes on after so many steps."""
    return (
        f"environment '{name}': an episode goes on after {steps:,} steps: let the environment end it (terminated or "
        "truncated), or truncate episodes with --env-set max_episode_steps=N"
    )


class Validated(View):
    """An environment whose every timestep is checked, and whose episodes end.

    All checks of a step are one flag, read once; only if it is down is the breach looked for and named.

    Args:
        name: for messages.
        max_episode_steps: truncates longer episodes; None reports one of more than `LONGEST_EPISODE` steps.

    Raises:
        ProtocolError: the specs or a timestep break the protocol.
    """

    def __init__(self, environment: Environment, name: str, max_episode_steps: int | None = None) -> None:
        super().__init__(environment)
        self._name, self._limit = name, max_episode_steps
        self._count = 0
        self._lengths = torch.zeros(environment.num_envs, dtype=torch.int64, device=environment.device)
        self._gone: dict[str, Tensor] = {}
        self._before: Timestep | None = None
        self._named(lambda: check_specs(environment))

    def reset(self, where: Tensor | None = None) -> Timestep:
        """See the protocol."""
        timestep = self._environment.reset(where)
        at = f"after step {self._count}, some reset" if self._count else "after reset"
        self._require(timestep, at, fresh=True)
        restarted = torch.ones_like(self._lengths, dtype=torch.bool) if where is None else where
        self._lengths = self._lengths.masked_fill(restarted, 0)
        self._gone = {
            name: torch.zeros_like(step.acts) if name not in self._gone else self._gone[name] & ~restarted.unsqueeze(-1)
            for name, step in timestep.groups.items()
        }
        self._before = timestep = self._shown(timestep)
        return timestep

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol."""
        timestep = self._environment.step(actions)
        self._count += 1
        self._lengths = self._lengths + 1
        self._require(timestep, f"after step {self._count}", fresh=False)
        for name, step in timestep.groups.items():
            ended = (step.discount == 0) | step.agents_truncated()
            self._gone[name] = ended if name not in self._gone else self._gone[name] | ended
        self._before = timestep = self._shown(timestep)
        return timestep

    def state_dict(self) -> dict[str, Any]:
        """See the protocol; with the lengths of the unfinished episodes."""
        return {"environment": self._environment.state_dict(), "lengths": self._lengths.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See the protocol."""
        self._environment.load_state_dict(state["environment"])
        self._lengths = state["lengths"].to(self._lengths.device)
        self._gone, self._before = {}, None

    def _shown(self, timestep: Timestep) -> Timestep:
        """Truncates the episodes that are long enough."""
        if self._limit is None:
            return timestep
        return replace(timestep, truncated=(self._lengths >= self._limit) & ~timestep.terminated | timestep.truncated)

    def _require(self, timestep: Timestep, where: str, *, fresh: bool) -> None:
        if self._fits(timestep) and bool(torch.stack(self._holds(timestep, fresh=fresh)).all()):
            return
        self._named(lambda: check_timestep(self._environment, timestep, where, fresh=fresh, references=False))
        if not fresh and self._before is not None and self._gone:
            before = self._before
            self._named(lambda: check_the_gone(before, timestep, dict(self._gone), where))
        if self._limit is None and bool((self._lengths > LONGEST_EPISODE).any()):
            raise ProtocolError(endless(self._name, LONGEST_EPISODE))

    def _named(self, check: Callable[[], None]) -> None:
        try:
            check()
        except ProtocolError as error:
            raise ProtocolError(f"environment '{self._name}': {error}") from None

    def _fits(self, timestep: Timestep) -> bool:
        """Whether types, shapes and dtypes are those of the specs, which costs no look at a number."""
        if not isinstance(timestep, Timestep) or timestep.groups.keys() != self.groups.keys():
            return False
        envs = self.num_envs
        wanted: list[tuple[object, tuple[int, ...], torch.dtype]] = [
            (timestep.state, (envs, self.state_size), torch.float32),
            (timestep.team_reward, (envs,), torch.float32),
            (timestep.terminated, (envs,), torch.bool),
            (timestep.truncated, (envs,), torch.bool),
        ]
        for name, spec in self.groups.items():
            step, agents = timestep.groups[name], (envs, spec.agents)
            if step.observation.keys() != spec.observation.keys():
                return False
            for field, shape in spec.observation.items():
                wanted.append((step.observation[field], (*agents, *shape), torch.float32))
            wanted += [(value, agents, torch.bool) for value in (step.acts, step.present)]
            wanted += [(value, agents, torch.float32) for value in (step.reward, step.discount)]
            wanted.append((step.action_mask, (*agents, spec.actions.mask_width), torch.bool))
            if step.truncated is not None:
                wanted.append((step.truncated, agents, torch.bool))
        kind = self.device.type
        figures = timestep.info.values()
        return all(
            isinstance(value, Tensor) and value.shape == shape and value.dtype == dtype and value.device.type == kind
            for value, shape, dtype in wanted
        ) and all(isinstance(value, Tensor) and value.shape[:1] == (envs,) for value in figures)

    def _holds(self, timestep: Timestep, *, fresh: bool) -> list[Tensor]:
        """What must be True of the numbers, one flag each."""
        ended = timestep.terminated.unsqueeze(-1)
        flags = [~(timestep.terminated & timestep.truncated).any(), _finite(timestep.state, timestep.team_reward)]
        if self._limit is None and not fresh:
            flags.append((self._lengths <= LONGEST_EPISODE).all())
        for name, spec in self.groups.items():
            step = timestep.groups[name]
            flags.append(_finite(*step.observation.values(), step.reward, step.discount))
            flags += [choice.any(-1).all() for choice in choices(spec, step.action_mask)]
            wrong = (step.acts & ~step.present) | (step.discount < 0) | (step.discount > 1)
            wrong = wrong | (ended & (step.discount != 0))
            if step.truncated is not None:
                wrong = wrong | (step.truncated & (step.acts | ~step.present | (step.discount == 0)))
            if fresh:
                wrong = wrong | (step.reward != 0)
            elif self._before is not None and self._gone:
                away = ~self._before.groups[name].present & ~step.present
                wrong = wrong | (step.acts & self._gone[name]) | (away & (step.reward != 0))
            flags.append(~wrong.any())
        return flags


def _finite(*values: Tensor) -> Tensor:
    """Whether all numbers are; one flag."""
    return torch.stack([torch.isfinite(value).all() for value in values]).all()
