"""What every environment of `envs/protocol.py` must hold, checked by playing it with random allowed actions."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Continuous, Discrete, Environment, GroupSpec, GroupStep, MultiDiscrete, Timestep
from marl_pipeline.envs.sampling import random_actions
from marl_pipeline.errors import UserError


class ProtocolError(UserError):
    """An environment breaks the protocol: says when, where, and what was found."""


def check_environment(make: Callable[[], Environment], steps: int = 40, seed: int = 0) -> None:
    """Plays `steps` steps on environments from `make`, which must give equal ones, seeded alike.

    Checks specs; shapes, dtypes and masks; that the dead stay away and earn nothing; resets of some copies, ended or
    not; that equal seeds give equal episodes; that the actions of those who do not act are ignored; that neither the
    caller's tensors nor earlier timesteps are written to; and that a saved state, read back as a checkpoint is, goes on
    bit for bit. Two copies and more steps than an episode has show the most.

    Raises:
        ProtocolError: the first breach.
    """
    env, twin, resumed = make(), make(), make()
    check_specs(env)
    step = env.reset()
    check_timestep(env, step, "after reset", fresh=True)
    check_equal(tensors_of(twin.reset()), tensors_of(step), "after reset: equally seeded environments differ")
    generator = torch.Generator().manual_seed(seed)
    gone = {name: torch.zeros_like(group.acts) for name, group in step.groups.items()}
    followers = [twin]
    for index in range(1, steps + 1):
        where = f"after step {index}"
        if index == steps // 2:
            resumed.load_state_dict(_through_a_file(env.state_dict(), where))
            followers.append(resumed)
        before, kept = step, tensors_of(step, copy=True)
        actions = random_actions(env.groups, before, generator)
        step = env.step({name: action.clone() for name, action in actions.items()})
        check_timestep(env, step, where, fresh=False)
        _check_the_gone(before, step, gone, where)
        check_equal(tensors_of(before), kept, f"{where}: step wrote into the timestep before it")
        for follower in followers:
            given = _other_actions_of_the_idle(env.groups, before, actions, generator)
            handed = {name: action.clone() for name, action in given.items()}
            name = "an equal environment" if follower is twin else "an environment that was saved and loaded"
            told = tensors_of(follower.step(handed))
            check_equal(told, tensors_of(step), f"{where}: {name}, with other actions of the idle, differs")
            _require(all(torch.equal(handed[key], given[key]) for key in given), where, "step wrote into the actions")
        restart = step.done
        if index % 7 == 0:  # now and then some that have not ended
            restart = restart | (torch.rand(env.num_envs, generator=generator) < 0.5).to(restart.device)
        if bool(restart.any()) or index == steps // 2:
            step = check_partial_reset(env, step, restart, where)
            for follower in followers:
                told = tensors_of(follower.reset(restart))
                check_equal(told, tensors_of(step), f"{where}, copies reset: equal environments differ")
            gone = {name: lost & ~restart.unsqueeze(-1) for name, lost in gone.items()}


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


def check_timestep(env: Environment, step: Timestep, where: str, *, fresh: bool) -> None:
    """Raises ProtocolError where a timestep does not fit the specs; `fresh` after a reset, which earns nothing."""
    envs = env.num_envs
    _require(step.groups.keys() == env.groups.keys(), where, f"groups {list(step.groups)}, not {list(env.groups)}")
    for name, spec in env.groups.items():
        _check_group(spec, step.groups[name], envs, f"{where}, group '{name}'", fresh=fresh)
        ended = step.groups[name].discount[step.terminated]
        _require(not bool(ended.any()), where, f"group '{name}': the discount of a terminated episode is not 0")
    _check_tensor(step.state, (envs, env.state_size), torch.float32, f"{where}, state")
    _check_tensor(step.team_reward, (envs,), torch.float32, f"{where}, team_reward")
    _check_tensor(step.terminated, (envs,), torch.bool, f"{where}, terminated")
    _check_tensor(step.truncated, (envs,), torch.bool, f"{where}, truncated")
    _require(not bool((step.terminated & step.truncated).any()), where, "a copy is both terminated and truncated")
    for figure, value in step.info.items():
        _require(value.shape[:1] == (envs,), where, f"info '{figure}' must be [E] or [E, A], found {_shape(value)}")
    for part, value in tensors_of(step).items():
        _require(value.device.type == env.device.type, where, f"{part} is on {value.device}, not on {env.device}")


def check_partial_reset(env: Environment, step: Timestep, restart: Tensor, where: str) -> Timestep:
    """Resets the copies of the [E] mask and gives what the environment says; the others must keep what they saw."""
    where = f"{where}, copies reset"
    fresh = env.reset(restart)
    check_timestep(env, fresh, where, fresh=True)
    _require(not bool(fresh.done[restart].any()), where, "a copy that was just reset is done")
    kept, before = tensors_of(fresh), tensors_of(step)
    for part, value in kept.items():
        if not part.endswith((".reward", ".discount", "team_reward")):
            same = torch.equal(value[~restart], before[part][~restart])
            _require(same, where, f"{part} changed in a copy that was not reset")
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
    return {name: value.clone() for name, value in flat.items()} if copy else flat


def _check_group(spec: GroupSpec, step: GroupStep, envs: int, where: str, *, fresh: bool) -> None:
    agents = (envs, spec.agents)
    names, wanted = list(step.observation), list(spec.observation)
    _require(set(names) == set(wanted), where, f"observation fields must be {wanted}, found {names}")
    for field, shape in spec.observation.items():
        value = step.observation[field]
        dtype = value.dtype if value.dtype == torch.int64 else torch.float32
        _check_tensor(value, (*agents, *shape), dtype, f"{where}, observation '{field}'")
    _check_tensor(step.action_mask, (*agents, spec.actions.mask_width), torch.bool, f"{where}, action_mask")
    for choice in _choices(spec, step.action_mask):
        _require(bool(choice.any(-1).all()), where, "an agent has no allowed action")
    _check_tensor(step.acts, agents, torch.bool, f"{where}, acts")
    _check_tensor(step.present, agents, torch.bool, f"{where}, present")
    _require(not bool((step.acts & ~step.present).any()), where, "an absent agent acts")
    _check_tensor(step.reward, agents, torch.float32, f"{where}, reward")
    _check_tensor(step.discount, agents, torch.float32, f"{where}, discount")
    _require(bool(((step.discount >= 0) & (step.discount <= 1)).all()), where, "a discount is outside [0, 1]")
    _require(not (fresh and bool(step.reward.any())), where, "a reset earns a reward")


def _choices(spec: GroupSpec, mask: Tensor) -> tuple[Tensor, ...]:
    """The flags of each choice an agent makes; none for continuous actions."""
    match spec.actions:
        case Continuous():
            return ()
        case MultiDiscrete(sizes):
            return torch.split(mask, list(sizes), dim=-1)
        case Discrete():
            return (mask,)


def _check_the_gone(before: Timestep, step: Timestep, gone: dict[str, Tensor], where: str) -> None:
    """Whoever's future has ended does not come back in this episode; whoever is away earns nothing."""
    for name, group in step.groups.items():
        at = f"{where}, group '{name}'"
        _require(not bool((group.acts & gone[name]).any()), at, "an agent acts after its discount was 0")
        away = ~before.groups[name].present & ~group.present
        _require(not bool(group.reward[away].any()), at, "an absent agent earns a reward")
        gone[name] = gone[name] | (group.discount == 0)


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
    _require(value.shape == shape, where, f"shape {list(shape)} is needed, found {_shape(value)}")
    _require(value.dtype == dtype, where, f"{dtype} is needed, found {value.dtype}")
    if value.is_floating_point():
        _require(bool(torch.isfinite(value).all()), where, "a number is not finite")


def _shape(value: Tensor) -> list[int]:
    return list(value.shape)


def _require(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise ProtocolError(f"{where}: {what}")
