"""Gymnasium's spaces as the protocol's: what a space is called here, and how values cross."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_pipeline.envs.protocol import ActionSpace, Continuous, Discrete, MultiDiscrete
from marl_pipeline.errors import UserError

Outward = Callable[[NDArray[Any]], Any]
"""Turns an action of the protocol into one of the outside space."""

ACTION_MASK = "action_mask"
"""What PettingZoo calls the mask, in the observation or in the infos."""


def action_space(space: spaces.Space[Any], where: str) -> tuple[ActionSpace, Outward]:
    """The protocol's action space for an outside one, and the way back.

    A box is flattened; where the bounds of its numbers differ, each is chosen in [-1, 1] and scaled to its own bounds.

    Raises:
        UserError: a space that the protocol has no word for; `where` says whose.
    """
    match space:
        case spaces.Discrete():
            first = int(space.start)
            return Discrete(int(space.n)), lambda action: int(action) + first
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return MultiDiscrete(tuple(int(size) for size in space.nvec)), lambda action: action + space.start
        case spaces.Box() if space.is_bounded():
            return _box(space)
    raise UserError(f"{where}: actions must be Discrete, MultiDiscrete or a bounded Box, found {space}")


def _box(space: spaces.Box) -> tuple[ActionSpace, Outward]:
    low, high, size = space.low, space.high, int(np.prod(space.shape))
    if (low == low.flat[0]).all() and (high == high.flat[0]).all():
        same = Continuous(size, float(low.flat[0]), float(high.flat[0]))
        return same, lambda action: action.reshape(space.shape).astype(space.dtype)
    middle, reach = (high + low) / 2, (high - low) / 2
    return Continuous(size, -1.0, 1.0), lambda a: (middle + reach * a.reshape(space.shape)).astype(space.dtype)


def observation_space(space: spaces.Space[Any], where: str) -> spaces.Space[Any]:
    """The space of what is seen: without the action mask, if the observation carries one.

    Raises:
        UserError: a space that has no fixed number of entries (text, graphs, sequences).
    """
    if isinstance(space, spaces.Dict) and ACTION_MASK in space.spaces:
        rest = {name: part for name, part in space.spaces.items() if name != ACTION_MASK}
        space = next(iter(rest.values())) if len(rest) == 1 else spaces.Dict(rest)
    if not space.is_np_flattenable:
        raise UserError(f"{where}: observations must flatten to a row of numbers, found {space}")
    return space


def observation_row(space: spaces.Space[Any], observation: Any) -> NDArray[np.float32]:
    """[F] float32; discrete parts one-hot, as `gymnasium.spaces.flatten` puts them. `space` without the mask."""
    if isinstance(observation, Mapping) and ACTION_MASK in observation:
        rest = {name: part for name, part in observation.items() if name != ACTION_MASK}
        observation = next(iter(rest.values())) if len(rest) == 1 else rest
    if isinstance(space, spaces.Box):
        return np.asarray(observation, dtype=np.float32).ravel()
    return np.asarray(spaces.flatten(space, observation), dtype=np.float32)


def mask_row(observation: Any, info: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """[mask_width] bool from the observation or else the infos; None where neither has a mask."""
    mask = observation.get(ACTION_MASK) if isinstance(observation, Mapping) else None
    if mask is None:
        mask = info.get(ACTION_MASK)
    if mask is None:
        return None
    parts = mask if isinstance(mask, tuple) else (mask,)
    return np.concatenate([np.asarray(part, dtype=np.bool_).ravel() for part in parts])
