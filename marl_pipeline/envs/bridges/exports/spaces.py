"""The protocol's spaces in Gymnasium's words, which the other libraries share, and how each wants rows and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_pipeline.envs.protocol import ActionSpace, Continuous, Discrete, MultiDiscrete


def action_space(space: ActionSpace) -> spaces.Space[Any]:
    """Of one agent."""
    match space:
        case Discrete(n):
            return spaces.Discrete(n)
        case MultiDiscrete(sizes):
            return spaces.MultiDiscrete(list(sizes))
        case Continuous(size, low, high):
            return spaces.Box(low, high, (size,), np.float32)


def row_space(width: int) -> spaces.Box:
    """Of an agent's observation as one row of floats."""
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


@dataclass(frozen=True)
class ObservationFormat:
    """An observation as a Dict of `row` and `action_mask`; where nothing is ever masked, the row alone.

    Attributes:
        row: what the row is called.
        mask_dtype: of the masks.
        by_choice: the masks of several choices are a tuple, as `gymnasium.spaces.MultiDiscrete.sample` takes them,
            instead of side by side.
    """

    row: str
    mask_dtype: type[np.integer[Any]] | type[np.floating[Any]]
    by_choice: bool

    def space(self, width: int, actions: ActionSpace) -> spaces.Space[Any]:
        if actions.mask_width == 0:
            return row_space(width)
        if self.by_choice and isinstance(actions, MultiDiscrete):
            masks: spaces.Space[Any] = spaces.Tuple([self._flags(size) for size in actions.sizes])
        else:
            masks = self._flags(actions.mask_width)
        return spaces.Dict({self.row: row_space(width), "action_mask": masks})

    def observation(self, row: NDArray[np.float32], mask: NDArray[np.bool_], actions: ActionSpace) -> Any:
        """An element of `space` for a row [F] and a mask [mask_width]."""
        if actions.mask_width == 0:
            return row
        flags = mask.astype(self.mask_dtype)
        if self.by_choice and isinstance(actions, MultiDiscrete):
            return {self.row: row, "action_mask": tuple(np.split(flags, np.cumsum(actions.sizes)[:-1]))}
        return {self.row: row, "action_mask": flags}

    def _flags(self, count: int) -> spaces.Box:
        return spaces.Box(0, 1, (count,), self.mask_dtype)
