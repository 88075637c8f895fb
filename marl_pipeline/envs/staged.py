"""An environment in stages: from the easy part of a task to all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Environment, GroupSpec, Timestep


class StagedEnvironment:
    """Implements `Environment` by one environment at a time, one for each stage; all have equal groups and sizes.

    `enter` ends the episodes of the active stage at its next step by truncation, so a learner bootstraps from where
    they stood, and the reset that follows starts episodes of the new stage. No algorithm needs to know.

    Args:
        stages: what builds the environment of each stage; only the active one exists.
    """

    def __init__(self, stages: Sequence[Callable[[], Environment]]) -> None:
        self._build = list(stages)
        self._stage, self._due = 0, 0
        self._active = self._build[0]()

    @property
    def stage(self) -> int:
        """The number of the active stage, from 0 on."""
        return self._stage

    def enter(self, stage: int) -> None:
        """Goes to a stage at the next step's end."""
        if not 0 <= stage < len(self._build):
            raise ValueError(f"there is no stage {stage} among {len(self._build)}")
        self._due = stage

    @property
    def groups(self) -> Mapping[str, GroupSpec]:
        return self._active.groups

    @property
    def state_size(self) -> int:
        return self._active.state_size

    @property
    def num_envs(self) -> int:
        return self._active.num_envs

    @property
    def device(self) -> torch.device:
        return self._active.device

    def reset(self, where: Tensor | None = None) -> Timestep:
        if self._due != self._stage and (where is None or bool(where.all())):
            self._switch(self._due)
            return self._active.reset()
        return self._active.reset(where)

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        timestep = self._active.step(actions)
        if self._due == self._stage:
            return timestep
        return replace(timestep, truncated=~timestep.terminated)

    def close(self) -> None:
        close = getattr(self._active, "close", None)
        if close is not None:
            close()

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self._stage, "due": self._due, "active": self._active.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["stage"] != self._stage:
            self._switch(int(state["stage"]))
            self._active.reset()
        self._due = int(state["due"])
        self._active.load_state_dict(state["active"])

    def _switch(self, stage: int) -> None:
        self.close()
        self._stage, self._active = stage, self._build[stage]()
