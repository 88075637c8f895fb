"""What every environment of `envs/protocol.py` must hold, checked by playing it with random allowed actions."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import (
    ActionSpace,
    Continuous,
    Discrete,
    Environment,
    GroupSpec,
    GroupStep,
    MultiDiscrete,
    Timestep,
    closing,
)
from marl_pipeline.envs.sampling import random_actions
from marl_pipeline.errors import UserError

LARGEST_BOUND = 1e9
"""Of continuous actions: what reaches further stands for no bound at all, and a policy cannot be spread over it."""


class ProtocolError(UserError):
    """An environment breaks the protocol: says when, where, and what was found."""


def check_named(name: str, make: Callable[[], Environment], *, steps: int, seed: int = 0) -> int:
    """`check_environment` with the environment's name in the message."""
    try:
        return check_environment(make, steps=steps, seed=seed)
    except ProtocolError as error:
        if str(error).startswith("environment '"):  # it has said so itself
            raise
        raise ProtocolError(f"environment '{name}': {error}") from None


def check_environment(make: Callable[[], Environment], steps: int = 40, seed: int = 0) -> int:
    """Plays `steps` steps on environments from `make`, which must give equal ones, seeded alike.

    Checks specs; shapes, dtypes and masks; that the dead stay away and earn nothing; resets of some environments,
    ended or not; that equal seeds give equal episodes; that the actions of those who do not act are ignored; that
    neither the caller's tensors nor earlier timesteps are written to; and that a saved state, read back as a
    checkpoint is, goes on bit for bit. Two environments and more steps than an episode has show the most. What it
    opens it closes.

    Returns:
        episodes that ended.

    Raises:
        ProtocolError: the first breach.
    """
    with ExitStack() as opened:
        env, twin, resumed = (opened.enter_context(closing(make())) for _ in range(3))
        return _check(env, twin, resumed, steps, seed)


def _check(env: Environment, twin: Environment, resumed: Environment, steps: int, seed: int) -> int:
    check_specs(env)
    ended = 0
    step = env.reset()
    check_timestep(env, step, "after reset", fresh=True)
    check_equal(tensors_of(twin.reset()), tensors_of(step), "after reset: equally seeded environments differ")
    generator = torch.Generator().manual_seed(seed)
    gone = {name: torch.zeros_like(group.acts) for name, group in step.groups.items()}
    replicas = [twin]
    for index in range(1, steps + 1):
        where = f"after step {index}"
        if index == steps // 2:
            resumed.load_state_dict(_through_a_file(env.state_dict(), where))
            replicas.append(resumed)
        before, kept = step, tensors_of(step, copy=True)
        actions = random_actions(env.groups, before, generator)
        step = env.step({name: action.clone() for name, action in actions.items()})
        check_timestep(env, step, where, fresh=False)
        check_the_gone(before, step, gone, where)
        check_equal(tensors_of(before), kept, f"{where}: step wrote into the timestep before it")
        for replica in replicas:
            given = _other_actions_of_the_idle(env.groups, before, actions, generator)
            handed = {name: action.clone() for name, action in given.items()}
            name = "an equal environment" if replica is twin else "an environment that was saved and loaded"
            reported = tensors_of(replica.step(handed))
            check_equal(reported, tensors_of(step), f"{where}: {name}, with other actions of the idle, differs")
            _require(all(torch.equal(handed[key], given[key]) for key in given), where, "step wrote into the actions")
        restart, ended = step.done, ended + int(step.done.sum())
        if index % 7 == 0:  # now and then some that have not ended
            restart = restart | (torch.rand(env.num_envs, generator=generator) < 0.5).to(restart.device)
        if bool(restart.any()) or index == steps // 2:
            step = check_partial_reset(env, step, restart, where)
            for replica in replicas:
                reported = tensors_of(replica.reset(restart))
                check_equal(reported, tensors_of(step), f"{where}, some reset: equal environments differ")
            gone = {name: lost & ~restart.unsqueeze(-1) for name, lost in gone.items()}
    return ended


def check_specs(env: Environment) -> None:
    """Raises ProtocolError for a group without agents or with an impossible action space."""
    _require(env.num_envs >= 1 and env.state_size >= 0, "specs", "num_envs must be at least 1, state_size at least 0")
    _require(bool(env.groups), "specs", "there is no group of agents")
    for name, spec in env.groups.items():
        where = f"specs of group '{name}'"
        _require(spec.agents >= 1, where, f"at least 1 agent is needed, found {spec.agents}")
        match spec.actions:
            case Discrete(n):
                _require(n >= 1, where, f"at least 1 action is needed, found {n}")
            case MultiDiscrete(sizes):
                _require(bool(sizes) and min(sizes) >= 1, where, f"choices of at least 1 are needed, found {sizes}")
            case Continuous(size, low, high):
                _require(size >= 1 and low < high, where, f"size >= 1 and low < high are needed, found {spec.actions}")
                bounded = math.isfinite(low) and math.isfinite(high) and max(-low, high) <= LARGEST_BOUND
                _require(
                    bounded,
                    where,
                    f"bounds of at most {LARGEST_BOUND:g} are needed, found {spec.actions}: scale the actions, from "
                    "[-1, 1] say, in the environment",
                )


def check_timestep(env: Environment, step: Timestep, where: str, *, fresh: bool, references: bool = True) -> None:
    """Raises ProtocolError where a timestep does not fit the specs.

    Args:
        fresh: it comes from a reset, which earns nothing.
        references: integer fields are looked up by somebody; else they are refused, for nothing reads them.
    """
    envs = env.num_envs
    _require(isinstance(step, Timestep), where, f"a Timestep is needed, found {type(step).__name__}")
    _require(step.groups.keys() == env.groups.keys(), where, f"groups {list(step.groups)}, not {list(env.groups)}")
    for name, spec in env.groups.items():
        at = f"{where}, group '{name}'"
        _check_group(spec, step.groups[name], envs, at, fresh=fresh, references=references)
    _check_tensor(step.state, (envs, env.state_size), torch.float32, f"{where}, state")
    _check_tensor(step.team_reward, (envs,), torch.float32, f"{where}, team_reward")
    _check_tensor(step.terminated, (envs,), torch.bool, f"{where}, terminated")
    _check_tensor(step.truncated, (envs,), torch.bool, f"{where}, truncated")
    both = step.terminated & step.truncated
    _require(not bool(both.any()), where, f"an episode is both terminated and truncated{_first(both)}")
    for name, group in step.groups.items():
        ended = (group.discount != 0.0) & step.terminated.unsqueeze(-1)
        reported = f"group '{name}': the discount of a terminated episode is not 0{_first(ended)}"
        _require(not bool(ended.any()), where, reported)
    for figure, value in step.info.items():
        _require(isinstance(value, Tensor), where, f"info '{figure}' must be a tensor, found {type(value).__name__}")
        _require(value.shape[:1] == (envs,), where, f"info '{figure}' must be [E] or [E, A], found {_shape(value)}")
    for part, value in tensors_of(step).items():
        _require(value.device.type == env.device.type, where, f"{part} is on {value.device}, not on {env.device}")


def check_partial_reset(env: Environment, step: Timestep, restart: Tensor, where: str) -> Timestep:
    """Resets the environments of the [E] mask and gives what they say; the others must keep what they saw."""
    where = f"{where}, some reset"
    fresh = env.reset(restart)
    check_timestep(env, fresh, where, fresh=True)
    _require(not bool(fresh.done[restart].any()), where, "an environment that was just reset is done")
    kept, before = tensors_of(fresh), tensors_of(step)
    for part, value in kept.items():
        if not part.endswith((".reward", ".discount", "team_reward")):
            same = torch.equal(value[~restart], before[part][~restart])
            _require(same, where, f"{part} changed in an environment that was not reset")
    return fresh


def check_equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], otherwise: str) -> None:
    """Raises ProtocolError(`otherwise`, with the first tensor that differs) unless they are equal bit for bit."""
    _require(found.keys() == wanted.keys(), otherwise, f"in the names: {sorted(found)}, {sorted(wanted)}")
    for part, value in found.items():
        _require(torch.equal(value, wanted[part]), otherwise, f"in {part}")


def tensors_of(step: Timestep, *, copy: bool = False) -> dict[str, Tensor]:
    """All tensors of a timestep by name, `info` left out."""
    flat = {name: getattr(step, name) for name in ("state", "team_reward", "terminated", "truncated")}
    for name, group in step.groups.items():
        flat |= {f"{name}.{field}": value for field, value in group.observation.items()}
        for part in ("action_mask", "acts", "present", "reward", "discount"):
            flat[f"{name}.{part}"] = getattr(group, part)
        flat[f"{name}.truncated"] = group.agents_truncated()
    return {name: value.clone() for name, value in flat.items()} if copy else flat


def _check_group(spec: GroupSpec, step: GroupStep, envs: int, where: str, *, fresh: bool, references: bool) -> None:
    _require(isinstance(step, GroupStep), where, f"a GroupStep is needed, found {type(step).__name__}")
    agents = (envs, spec.agents)
    names, wanted = list(step.observation), list(spec.observation)
    _require(set(names) == set(wanted), where, f"observation fields must be {wanted}, found {names}")
    for field, shape in spec.observation.items():
        value, at = step.observation[field], f"{where}, observation '{field}'"
        if isinstance(value, Tensor) and value.dtype == torch.int64:
            _require(references, at, "torch.float32 is needed, found torch.int64, a reference that nobody looks up")
            _check_tensor(value, (*agents, *shape), torch.int64, at)
        else:
            _check_tensor(value, (*agents, *shape), torch.float32, at)
    _check_tensor(step.action_mask, (*agents, spec.actions.mask_width), torch.bool, f"{where}, action_mask")
    for choice in choices(spec, step.action_mask):
        nothing = ~choice.any(-1)
        _require(not bool(nothing.any()), where, f"an agent has no allowed action{_first(nothing)}")
    _check_tensor(step.acts, agents, torch.bool, f"{where}, acts")
    _check_tensor(step.present, agents, torch.bool, f"{where}, present")
    absent = step.acts & ~step.present
    _require(not bool(absent.any()), where, f"an absent agent acts{_first(absent)}")
    _check_tensor(step.reward, agents, torch.float32, f"{where}, reward")
    _check_tensor(step.discount, agents, torch.float32, f"{where}, discount")
    outside = (step.discount < 0) | (step.discount > 1)
    _require(not bool(outside.any()), where, f"a discount is outside [0, 1]{_first(outside)}")
    _require(not (fresh and bool(step.reward.any())), where, f"a reset earns a reward{_first(step.reward != 0)}")
    if step.truncated is not None:
        _check_tensor(step.truncated, agents, torch.bool, f"{where}, truncated")
        acting = step.truncated & step.acts
        _require(not bool(acting.any()), where, f"a truncated agent acts{_first(acting)}")
        away = step.truncated & ~step.present
        _require(not bool(away.any()), where, f"an agent is truncated where it is absent{_first(away)}")
        ended = step.truncated & (step.discount == 0)
        _require(not bool(ended.any()), where, f"the discount of a truncated agent is 0{_first(ended)}")


def choices(spec: GroupSpec, mask: Tensor) -> tuple[Tensor, ...]:
    """The flags of each choice an agent makes; none for continuous actions."""
    sizes = choice_sizes(spec.actions)
    return torch.split(mask, sizes, dim=-1) if sizes else ()


def choice_sizes(space: ActionSpace) -> list[int]:
    """The number of options of each choice; none for numbers."""
    match space:
        case Discrete(n):
            return [n]
        case MultiDiscrete(sizes):
            return list(sizes)
        case Continuous():
            return []


def check_the_gone(before: Timestep, step: Timestep, gone: dict[str, Tensor], where: str) -> None:
    """Whoever's future has ended does not come back in this episode; whoever is away earns nothing."""
    for name, group in step.groups.items():
        at = f"{where}, group '{name}'"
        back = group.acts & gone[name]
        _require(not bool(back.any()), at, f"an agent acts after its discount was 0 or it was truncated{_first(back)}")
        away = ~before.groups[name].present & ~group.present
        earns = away & (group.reward != 0)
        _require(not bool(earns.any()), at, f"an absent agent earns a reward{_first(earns)}")
        gone[name] = gone[name] | (group.discount == 0) | group.agents_truncated()


def _other_actions_of_the_idle(
    groups: Mapping[str, GroupSpec], step: Timestep, actions: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """The same actions of those who act, new random ones of those who do not."""
    drawn = random_actions(groups, step, generator)
    given = {}
    for name, action in actions.items():
        acts = step.groups[name].acts
        given[name] = torch.where(acts.view(*acts.shape, *[1] * (action.dim() - 2)), action, drawn[name])
    return given


def _through_a_file(state: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a checkpoint gives back: tensors, numbers, strings and containers of them, and no code."""
    file = io.BytesIO()
    torch.save(dict(state), file)
    file.seek(0)
    try:
        read: dict[str, Any] = torch.load(file, weights_only=True)
    except Exception as error:
        raise ProtocolError(
            f"{where}: state_dict holds more than tensors, numbers, strings, lists, tuples and dicts: {error}"
        ) from error
    return read


def _check_tensor(value: Tensor, shape: tuple[int, ...], dtype: torch.dtype, where: str) -> None:
    _require(isinstance(value, Tensor), where, f"a tensor is needed, found {type(value).__name__}")
    _require(value.shape == shape, where, f"shape {list(shape)} is needed, found {_shape(value)}")
    _require(value.dtype == dtype, where, f"{dtype} is needed, found {value.dtype}")
    if value.is_floating_point():
        odd = ~torch.isfinite(value)
        _require(not bool(odd.any()), where, f"a number is not finite{_first(odd)}")


def _first(where: Tensor) -> str:
    """Which environment, and which agent if it says so, the first True of [E, ...] stands for; nothing without one."""
    if not bool(where.any()):
        return ""
    index = where.nonzero()[0].tolist()
    return f" (environment {index[0]}, agent {index[1]})" if len(index) > 1 else f" (environment {index[0]})"


def _shape(value: Tensor) -> list[int]:
    return list(value.shape)


def _require(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise ProtocolError(f"{where}: {what}")
