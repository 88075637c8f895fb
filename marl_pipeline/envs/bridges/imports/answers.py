"""What an outside environment answers, read once and refused where it cannot be what it says it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_pipeline.envs.bridges.imports.spaces import ACTION_MASK, OTHER_MASKS

Flags = NDArray[np.bool_]


class AnswerError(Exception):
    """An answer that cannot be used: says what was found. Whoever asked adds where."""


def unpack(answer: Any, names: tuple[str, ...], call: str) -> tuple[Any, ...]:
    """The parts of an answer.

    Raises:
        AnswerError: there are more or fewer than `names`.
    """
    if not isinstance(answer, tuple | list) or len(answer) != len(names):
        found = f"{len(answer)} of them" if isinstance(answer, tuple | list) else type(answer).__name__
        raise AnswerError(f"{call} must return ({', '.join(names)}), found {found}")
    return tuple(answer)


def read_observation(space: spaces.Space[Any], observation: Any) -> NDArray[np.float32]:
    """[F] float32 of an observation, without its mask; discrete parts one-hot, as `gymnasium.spaces.flatten` puts them.

    Raises:
        AnswerError: another shape or kind than the space's, or a number that is not finite.
    """
    if isinstance(observation, Mapping) and ACTION_MASK in observation:
        rest = {name: part for name, part in observation.items() if name != ACTION_MASK}
        observation = next(iter(rest.values())) if len(rest) == 1 else rest
    _require_inside(space, observation, "the observation")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is then refused
        if isinstance(space, spaces.Box):
            row = np.asarray(observation).astype(np.float32).ravel()
        else:
            row = np.asarray(spaces.flatten(space, observation)).astype(np.float32)
    if not np.isfinite(row).all():
        raise AnswerError(f"the observation holds {row[~np.isfinite(row)][0]}, which is not finite")
    return row


def _require_inside(space: spaces.Space[Any], value: Any, what: str) -> None:
    """Bounds of boxes are not looked at: many environments go a little beyond theirs."""
    match space:
        case spaces.Box():
            _array(value, space.shape, "biuf", what)
        case spaces.Discrete():
            number, first, options = int(_array(value, (), "iu", what)), int(space.start), int(space.n)
            if not first <= number < first + options:
                raise AnswerError(f"{what} must be in {space}, found {number}")
        case spaces.MultiDiscrete():
            numbers = _array(value, space.shape, "iu", what)
            if not space.contains(numbers.astype(space.dtype)):
                raise AnswerError(f"{what} must be in {space}, found {numbers.tolist()}")
        case spaces.MultiBinary():
            numbers = _array(value, space.shape, "biu", what)
            if ((numbers != 0) & (numbers != 1)).any():
                raise AnswerError(f"{what} must be in {space}, found {numbers.tolist()}")
        case spaces.Tuple():
            if not isinstance(value, Sequence) or len(value) != len(space.spaces):
                raise AnswerError(f"{what} must be a tuple of {len(space.spaces)}, found {value!r:.80}")
            for index, (part, inner) in enumerate(zip(value, space.spaces, strict=True)):
                _require_inside(inner, part, f"{what}[{index}]")
        case spaces.Dict():
            if not isinstance(value, Mapping) or set(value) != set(space.spaces):
                found = sorted(value) if isinstance(value, Mapping) else type(value).__name__
                raise AnswerError(f"{what} must have the parts {sorted(space.spaces)}, found {found}")
            for name, inner in space.spaces.items():
                _require_inside(inner, value[name], f"{what}[{name!r}]")
        case _:
            if not space.contains(value):
                raise AnswerError(f"{what} must be in {space}, found {value!r:.80}")


def _array(value: Any, shape: tuple[int, ...] | None, kinds: str, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError:  # rows of unequal length
        raise AnswerError(f"{what} must have shape {list(shape or ())}, found rows of unequal length") from None
    if array.dtype.kind not in kinds:
        wanted = "numbers" if "f" in kinds else "whole numbers"
        raise AnswerError(f"{what} must hold {wanted}, found {array.dtype}")
    if array.shape != shape:
        raise AnswerError(f"{what} must have shape {list(shape or ())}, found {list(array.shape)}")
    return array


def read_mask(observation: Any, info: Mapping[str, Any], sizes: Sequence[int]) -> Flags | None:
    """[mask_width] bool from the observation or else from the info; None where neither has a mask.

    Args:
        sizes: the number of options of each choice; none for numbers, which are never masked.

    Raises:
        AnswerError: another width, flags that are neither 0 nor 1, some choice without any option while another has
            one, a mask over numbers, or something that another library calls a mask.
    """
    mask = observation.get(ACTION_MASK) if isinstance(observation, Mapping) else None
    if mask is None:
        mask = info.get(ACTION_MASK)
    if mask is None:
        other = next((name for name in OTHER_MASKS if name in info), None)
        if other is not None:
            raise AnswerError(
                f"the info has '{other}', and what may be chosen is read from '{ACTION_MASK}' alone: give flags, 1 "
                "where an action is allowed, by that name"
            )
        return None
    if not sizes:
        raise AnswerError(
            f"'{ACTION_MASK}' cannot bind the numbers of a Box; leave it out, or make the actions discrete"
        )
    parts = mask if isinstance(mask, tuple | list) and not np.isscalar(mask[0]) else (mask,)
    given = np.concatenate([np.ravel(np.asarray(part)) for part in parts])
    if given.dtype.kind not in "biuf" or given.shape != (sum(sizes),):
        raise AnswerError(f"'{ACTION_MASK}' must have {sum(sizes)} flags, found {given.shape[0]} of {given.dtype}")
    flags = given.astype(np.bool_)
    if (given != flags).any():
        raise AnswerError(f"'{ACTION_MASK}' must hold 0 and 1, found {given.tolist()}")
    some = [bool(part.any()) for part in np.split(flags, np.cumsum(sizes)[:-1])]
    if any(some) and not all(some):
        raise AnswerError(f"'{ACTION_MASK}' allows nothing in choice {some.index(False)}, but something in another")
    return flags


def read_reward(reward: Any) -> np.float32:
    """A number.

    Raises:
        AnswerError: it is none, or not finite.
    """
    try:
        array = np.asarray(reward)
    except ValueError:
        array = np.asarray(None)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise AnswerError(f"the reward must be one number, found {reward!r:.80}")
    with np.errstate(over="ignore"):
        value = np.float32(array.reshape(()).astype(np.float32))
    if not np.isfinite(value):
        raise AnswerError(f"the reward is {reward}, which is not finite")
    return value


def read_flag(flag: Any, what: str) -> bool:
    """True or False.

    Raises:
        AnswerError: it is neither.
    """
    if isinstance(flag, bool | np.bool_) or (np.isscalar(flag) and flag in (0, 1)):
        return bool(flag)
    array = np.asarray(flag)
    if array.size == 1 and array.dtype.kind == "b":
        return bool(array.reshape(()))
    raise AnswerError(f"{what} must be True or False, found {flag!r:.80}")
