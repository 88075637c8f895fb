"""What every environment of `envs/protocol.py` must hold, checked by playing it with random allowed actions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Environment, Timestep


def check_environment(make: Callable[[], Environment], steps: int = 40, seed: int = 0) -> None:
    """Plays `steps` steps on environments from `make` (which must give equal ones, seeded alike).

    Checks shapes, dtypes and masks against the specs, the partial reset, the state round trip bit for bit, that equal
    seeds give equal episodes, and that the caller's tensors are left alone.
    """
    env, twin = make(), make()
    step = env.reset()
    check_timestep(env, step, after_reset=True)
    assert_equal(tensors_of(twin.reset()), tensors_of(step))
    generator = torch.Generator().manual_seed(seed)
    resumed = make()
    for index in range(steps):
        if index == steps // 2:
            resumed.load_state_dict(env.state_dict())
        actions = random_actions(step, generator, env.device)
        kept = {name: action.clone() for name, action in actions.items()}
        step = env.step(actions)
        check_timestep(env, step, after_reset=False)
        for name, action in actions.items():
            assert torch.equal(action, kept[name]), "step changed the caller's actions"
        assert_equal(tensors_of(twin.step(kept)), tensors_of(step))
        if index >= steps // 2:
            assert_equal(tensors_of(resumed.step(kept)), tensors_of(step))
        if bool(step.done.any()):
            done = step.done
            twin.reset(where=done)
            if index >= steps // 2:
                resumed.reset(where=done)
            step = check_partial_reset(env, step)


def random_actions(step: Timestep, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """One allowed action per agent, uniformly."""
    actions = {}
    for name, group in step.groups.items():
        weights = group.action_mask.float().cpu()
        drawn = torch.multinomial(weights.flatten(0, 1), 1, generator=generator)
        actions[name] = drawn.view(weights.shape[:2]).to(device)
    return actions


def check_timestep(env: Environment, step: Timestep, *, after_reset: bool) -> None:
    envs = env.num_envs
    assert step.groups.keys() == env.groups.keys()
    for name, spec in env.groups.items():
        group, agents = step.groups[name], spec.agents
        assert group.observation.keys() == spec.observation.keys()
        for field, shape in spec.observation.items():
            value = group.observation[field]
            assert value.shape == (envs, agents, *shape), (name, field, value.shape)
            assert value.dtype in (torch.float32, torch.int64), (name, field)
            assert bool(torch.isfinite(value).all()), (name, field)
        assert group.action_mask.shape == (envs, agents, spec.actions.mask_width)
        assert group.action_mask.dtype == torch.bool
        assert bool(group.action_mask.any(-1).all()), f"an agent of {name} has no allowed action"
        assert group.acts.shape == (envs, agents)
        assert group.acts.dtype == torch.bool
        assert group.present.shape == (envs, agents)
        assert group.present.dtype == torch.bool
        assert not bool((group.acts & ~group.present).any()), f"an absent agent of {name} acts"
        assert group.reward.shape == group.discount.shape == (envs, agents)
        assert group.reward.dtype == group.discount.dtype == torch.float32
        assert bool(torch.isfinite(group.reward).all())
        assert bool(((group.discount >= 0) & (group.discount <= 1)).all())
        if after_reset:
            assert not bool(group.reward.any()), "a reset earns nothing"
        assert not bool(group.discount[step.terminated].any()), "a terminated episode has no future"
    assert step.state.shape == (envs, env.state_size)
    assert step.state.dtype == torch.float32
    assert step.team_reward.shape == (envs,)
    assert step.team_reward.dtype == torch.float32
    for flag in (step.terminated, step.truncated):
        assert flag.shape == (envs,)
        assert flag.dtype == torch.bool
    assert not bool((step.terminated & step.truncated).any())
    for name, figure in step.info.items():
        assert figure.shape[0] == envs, name


def check_partial_reset(env: Environment, step: Timestep) -> Timestep:
    """Resets the copies that are done; the others keep what they saw."""
    done = step.done
    fresh = env.reset(where=done)
    check_timestep(env, fresh, after_reset=True)
    assert not bool(fresh.done[done].any())
    assert torch.equal(fresh.done[~done], step.done[~done])
    for name, group in fresh.groups.items():
        for field, value in group.observation.items():
            assert torch.equal(value[~done], step.groups[name].observation[field][~done]), (name, field)
        assert torch.equal(group.action_mask[~done], step.groups[name].action_mask[~done])
    return fresh


def tensors_of(step: Timestep) -> dict[str, Tensor]:
    """All tensors of a timestep by name."""
    flat = {
        "state": step.state,
        "team_reward": step.team_reward,
        "terminated": step.terminated,
        "truncated": step.truncated,
    }
    for name, group in step.groups.items():
        flat |= {f"{name}.{field}": value for field, value in group.observation.items()}
        flat |= {f"{name}.mask": group.action_mask, f"{name}.acts": group.acts}
        flat |= {f"{name}.present": group.present}
        flat |= {f"{name}.reward": group.reward, f"{name}.discount": group.discount}
    return flat


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert torch.equal(value, wanted[name]), f"{name} differs"
