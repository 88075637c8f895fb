"""The actions of an unfinished episode, in arrays that grow by doubling: a few bytes a step, however long it gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_pipeline.envs.protocol import Discrete, GroupSpec, MultiDiscrete


class EpisodeLog:
    """What was played since the episode of one environment began: group -> [T, A, *shape]."""

    def __init__(self, groups: Mapping[str, GroupSpec]) -> None:
        self._steps = 0
        self._actions: dict[str, NDArray[Any]] = {
            group: np.zeros((16, spec.agents, *spec.actions.shape), dtype=_smallest(spec))
            for group, spec in groups.items()
        }
        self._dtypes = {group: spec.actions.dtype for group, spec in groups.items()}

    def __len__(self) -> int:
        return self._steps

    def clear(self) -> None:
        """A new episode begins."""
        self._steps = 0

    def append(self, actions: Mapping[str, NDArray[Any]]) -> None:
        """Keeps a copy of one step's actions, [A, *shape] by group."""
        for group, kept in self._actions.items():
            if self._steps == len(kept):
                kept = self._actions[group] = np.concatenate([kept, np.zeros_like(kept)])
            kept[self._steps] = actions[group]
        self._steps += 1

    def tensors(self) -> dict[str, Tensor]:
        """group -> [T, A, *shape]."""
        return {
            group: torch.from_numpy(kept[: self._steps].copy()).to(self._dtypes[group])
            for group, kept in self._actions.items()
        }


def _smallest(spec: GroupSpec) -> type[np.generic]:
    """The dtype that holds the actions in the fewest bytes."""
    match spec.actions:
        case Discrete(n):
            largest = n
        case MultiDiscrete(sizes):
            largest = max(sizes)
        case _:
            return np.float32
    return np.uint8 if largest <= 2**8 else np.int32 if largest <= 2**31 else np.int64
