"""PettingZoo's parallel environments by module name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch

from marl_pipeline.envs.bridges.imports.environment import OutsideEnvironment
from marl_pipeline.envs.bridges.imports.seats import World
from marl_pipeline.envs.lookup import check_options
from marl_pipeline.errors import UserError


def pettingzoo_environment(
    name: str, module: ModuleType, num_envs: int, *, seed: int, device: torch.device | str, **options: Any
) -> OutsideEnvironment:
    """Copies of `module.parallel_env(**options)`; `name` is for messages.

    Raises:
        UserError: the module has no parallel environment, or an option is unknown.
    """
    build: Callable[..., World] | None = getattr(module, "parallel_env", None)
    if build is None:
        raise UserError(f"environment '{name}': module '{module.__name__}' has no parallel_env (agents move at once)")
    check_options(name, getattr(module, "raw_env", build), options)
    return OutsideEnvironment(num_envs, partial(build, **options), name=name, seed=seed, device=device)
