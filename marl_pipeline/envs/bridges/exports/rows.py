"""One group of agents as a flat batch of single-agent environments: what Gymnasium and Stable-Baselines3 step.

Row `e x A + a` is agent `a` in environment `e`. The other groups, if there are any, follow a given policy. Environments
that end are reset in the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from marl_pipeline.envs.bridges.exports.features import Features, MakeEnvironment, dense_fields
from marl_pipeline.envs.bridges.exports.spaces import action_space, row_space
from marl_pipeline.envs.protocol import Environment, Timestep, close_environment

Others = Callable[[Timestep], Mapping[str, Tensor]]
"""Decides for the groups that the library does not see: one [E, A, *actions.shape] tensor each."""

FloatRows = NDArray[np.float32]
BoolRows = NDArray[np.bool_]


@dataclass(frozen=True)
class RowStep:
    """What every row observes and earns; R = E x A.

    Attributes:
        observation: [R, F] of the next decision: of the new episode where one ended.
        reward: [R].
        terminated, truncated: [R]; a row whose agent dies, or is truncated, before its environment ends is reported so
            at once and once only: it stands still (observation and reward 0, `acts` False) until a new episode begins.
        present: [R] the row's agent was there for this step. One that never comes has no episode to end.
        acts: [R] whether the next action of the row will be used.
        final: [R, F] the observation after the step; differs from `observation` where an episode ended.
    """

    observation: FloatRows
    reward: FloatRows
    terminated: BoolRows
    truncated: BoolRows
    present: BoolRows
    acts: BoolRows
    final: FloatRows


class Shown(TypedDict, total=False):
    """What an adapter shows of an environment.

    Attributes:
        group: the agents to show; may be left out where there is one group.
        others: policy of the remaining groups; needed where there are any.
        features: observation of an agent as one row of floats; `dense_fields` if left out.
        seed: of the first episodes; 0 if left out.
    """

    group: str | None
    others: Others | None
    features: Features
    seed: int


class Rows:
    """Steps the environments that `make` builds for a seed; the rest is said at `Shown`.

    Attributes:
        environment, group: what is shown of what.
        count: R = E x A.
        observation_space, action_space: of one row.

    Raises:
        ValueError: an unknown group, or groups that nobody decides for.
    """

    def __init__(
        self,
        make: MakeEnvironment,
        *,
        group: str | None = None,
        others: Others | None = None,
        features: Features = dense_fields,
        seed: int = 0,
    ) -> None:
        self._make, self._features, self._others = make, features, others
        environment = make(seed)
        try:
            group = _shown_group(environment, group, others)
        except ValueError:
            close_environment(environment)
            raise
        spec = environment.groups[group]
        self.environment, self.group = environment, group
        self._spec = spec
        self.count = environment.num_envs * spec.agents
        self._timestep: Timestep = environment.reset()
        self._gone: Tensor = torch.zeros_like(self._timestep.groups[group].acts)
        self._came: Tensor = torch.zeros_like(self._gone)
        self.observation_space = row_space(int(self._rows(self._timestep).shape[-1]))
        self.action_space = action_space(spec.actions)

    def reset(self, seed: int | None = None) -> FloatRows:
        """Starts new episodes in all environments, [R, F]; with `seed`, of an environment built anew for it."""
        if seed is not None:
            self.close()
            self.environment = self._make(seed)
        self._begin(self.environment.reset())
        return self._rows(self._timestep)

    def step(self, actions: ArrayLike) -> RowStep:
        """Plays one action per row, [R, *shape] as the action space has it.

        Raises:
            ValueError: another number of actions, or of numbers in one.
        """
        space = self._spec.actions
        chosen = torch.as_tensor(np.asarray(actions), dtype=space.dtype)
        if chosen.shape != (self.count, *space.shape):
            raise ValueError(f"actions must be {[self.count, *space.shape]}, found {list(chosen.shape)}")
        others = {} if self._others is None else dict(self._others(self._timestep))
        own = chosen.reshape(-1, self._spec.agents, *space.shape).to(self.environment.device)
        was_present = self._timestep.groups[self.group].present
        after = self.environment.step({**others, self.group: own})
        step, final, done = after.groups[self.group], self._rows(after), after.done
        ended = (step.discount == 0.0) | after.terminated.unsqueeze(-1)
        truncating = step.agents_truncated() | after.truncated.unsqueeze(-1)
        self._came = self._came | was_present
        going = self._came & ~self._gone
        terminated, truncated = _flat(ended & going), _flat(truncating & ~ended & going)
        reward = _flat(step.reward).astype(np.float32, copy=True)
        self._gone = self._gone | ended | truncating
        self._timestep = after
        if bool(done.any()):
            self._timestep = self.environment.reset(done)
            self._gone = self._gone & ~done.unsqueeze(-1)
            self._came = self._came & ~done.unsqueeze(-1)
        observation = self._rows(self._timestep)
        observation[_flat(self._gone)] = 0.0
        return RowStep(observation, reward, terminated, truncated, _flat(was_present & going), self.acts(), final)

    def close(self) -> None:
        """Closes the environment."""
        close_environment(self.environment)

    def action_masks(self) -> BoolRows:
        """[R, mask_width] what may be chosen now, the flags of several choices side by side."""
        mask = self._timestep.groups[self.group].action_mask.detach().cpu().numpy()
        return np.array(mask.reshape(self.count, self._spec.actions.mask_width), dtype=np.bool_)

    def acts(self) -> BoolRows:
        """[R] whose action the next step uses."""
        return _flat(self._timestep.groups[self.group].acts)

    def _begin(self, timestep: Timestep) -> None:
        self._timestep = timestep
        self._gone = torch.zeros_like(timestep.groups[self.group].acts)
        self._came = torch.zeros_like(self._gone)

    def _rows(self, timestep: Timestep) -> FloatRows:
        features = self._features(self.group, timestep.groups[self.group])
        return np.array(features.detach().cpu().numpy().reshape(self.count, -1), dtype=np.float32)


def _shown_group(environment: Environment, group: str | None, others: Others | None) -> str:
    """The group that is shown."""
    groups = environment.groups
    if group is None and len(groups) == 1:
        return next(iter(groups))
    if group is None or group not in groups:
        raise ValueError(f"group {group!r} is none of {sorted(groups)}")
    if others is None and len(groups) > 1:
        raise ValueError(f"who decides for {sorted(set(groups) - {group})}? give `others`")
    return group


def _flat(values: Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy().reshape(-1)
