"""PettingZoo's parallel environments by module name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch

from marl_pipeline.envs.bridges.imports.agent_groups import ParallelWorld
from marl_pipeline.envs.bridges.imports.environment import OutsideEnvironment
from marl_pipeline.envs.lookup import check_options, split_limit
from marl_pipeline.errors import UserError


def pettingzoo_environment(
    name: str, module: ModuleType, num_envs: int, *, seed: int, device: torch.device | str, **options: Any
) -> OutsideEnvironment:
    """Environments of `module.parallel_env(**options)`; `name` is for messages.

    `max_episode_steps` truncates longer episodes here, unless the environment has an option of that name itself.

    Raises:
        UserError: the module has no parallel environment, or an option is unknown.
    """
    build: Callable[..., ParallelWorld] | None = getattr(module, "parallel_env", None)
    if build is None:
        raise UserError(f"environment '{name}': module '{module.__name__}' has no parallel_env (agents move at once)")
    own = getattr(module, "raw_env", build)
    limit, options = split_limit(name, own, options)
    check_options(name, own, options)
    return OutsideEnvironment(
        num_envs, partial(build, **options), name=name, seed=seed, device=device, max_episode_steps=limit
    )
