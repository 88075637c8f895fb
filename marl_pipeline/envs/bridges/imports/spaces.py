"""Gymnasium's spaces as the protocol's: what a space is called here, and how values cross."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_pipeline.envs.conformance import LARGEST_BOUND
from marl_pipeline.envs.protocol import ActionSpace, Continuous, Discrete, MultiDiscrete
from marl_pipeline.errors import UserError

Outward = Callable[[NDArray[Any]], Any]
"""Turns an action of the protocol into one of the outside space."""

ACTION_MASK = "action_mask"
"""What PettingZoo calls the mask, in the observation or in the infos."""

OTHER_MASKS = (
    "action_masks", "legal_actions", "legal_moves", "available_actions", "avail_actions", "valid_actions",
    "valid_moves",
)  # fmt: skip
"""What masks are called elsewhere, some as flags and some as lists: they are refused, never overlooked."""


def action_space(space: spaces.Space[Any], where: str) -> tuple[ActionSpace, Outward]:
    """The protocol's action space for an outside one, and the way back.

    A box is flattened; where the bounds of its numbers differ, each is chosen in [-1, 1] and scaled to its own bounds.
    Whole numbers are the nearest to what was chosen.

    Raises:
        UserError: a space that the protocol has no word for; `where` says whose.
    """
    match space:
        case spaces.Discrete():
            first = int(space.start)
            return Discrete(int(space.n)), lambda action: int(action) + first
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return MultiDiscrete(tuple(int(size) for size in space.nvec)), lambda action: action + space.start
        case spaces.Box() if space.is_bounded() and max(-space.low.min(), space.high.max()) <= LARGEST_BOUND:
            return _box(space)
    raise UserError(
        f"{where}: actions must be Discrete, MultiDiscrete or a Box bounded by at most {LARGEST_BOUND:g}, found "
        f"{space}; a wrapper can give them other bounds (gymnasium.wrappers.RescaleAction)"
    )


def _box(space: spaces.Box) -> tuple[ActionSpace, Outward]:
    low, high, size = space.low.astype(np.float64), space.high.astype(np.float64), int(np.prod(space.shape))
    if space.dtype is not None and space.dtype.kind == "f":
        nearest: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray
    else:
        nearest = np.rint

    def inside(values: NDArray[Any]) -> NDArray[Any]:
        kept: NDArray[Any] = np.clip(nearest(values.reshape(space.shape)), low, high).astype(space.dtype)
        return kept

    if (low == low.flat[0]).all() and (high == high.flat[0]).all() and low.flat[0] < high.flat[0]:
        return Continuous(size, float(low.flat[0]), float(high.flat[0])), inside
    middle, reach = (high + low) / 2, (high - low) / 2
    return Continuous(size, -1.0, 1.0), lambda chosen: inside(middle + reach * chosen.reshape(space.shape))


def observation_space(space: spaces.Space[Any], where: str) -> spaces.Space[Any]:
    """The space of what is seen: without the action mask, if the observation carries one.

    Raises:
        UserError: a space that has no fixed number of entries (text, graphs, sequences), or a mask in a part of a part.
    """
    if isinstance(space, spaces.Dict) and ACTION_MASK in space.spaces:
        rest = {name: part for name, part in space.spaces.items() if name != ACTION_MASK}
        space = next(iter(rest.values())) if len(rest) == 1 else spaces.Dict(rest)
    hidden = _hidden_mask(space)
    if hidden is not None:
        raise UserError(
            f"{where}: the observation's part '{hidden}' would be seen and not obeyed: what may be chosen is read from "
            f"'{ACTION_MASK}' at the top of the observation, or in the info"
        )
    if not space.is_np_flattenable:
        raise UserError(f"{where}: observations must flatten to a row of numbers, found {space}")
    return space


def _hidden_mask(space: spaces.Space[Any]) -> str | None:
    """The first part, at any depth, that is called as masks are."""
    if not isinstance(space, spaces.Dict):
        return None
    for name, part in space.spaces.items():
        if name == ACTION_MASK or name in OTHER_MASKS:
            return str(name)
        below = _hidden_mask(part)
        if below is not None:
            return f"{name}.{below}"
    return None
