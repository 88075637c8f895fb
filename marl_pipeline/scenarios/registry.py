"""The one registry of environments: built-in scenarios, outside environments and the user's own, by name.

Every folder of this package that says in `NAMES` which environments it has is a scenario; its module `scenario` builds
them (`scenario(name, root, options, device)`), its file `presets.yaml` holds what algorithms do differently there.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from marl_pipeline.envs.conformance import check_named
from marl_pipeline.envs.lookup import hint
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.errors import UserError
from marl_pipeline.scenarios.scenario import Make, Scenario
from marl_pipeline.seeding import stream_seed

OUTSIDE = "outside"
"""The folder of every name with a colon."""

PATTERNS = ("pettingzoo:<module>", "gymnasium:<id>", "<module>:<Class>")
"""What a name may be besides those of the folders; see `scenarios.outside`."""

FIRST_STEPS, CHECKED = 40, 2
"""How many steps are played, in how many environments, before training on one from outside."""


def make(name: str, num_envs: int, *, seed: int, device: torch.device | str = "cpu", **options: Any) -> Environment:
    """Builds `num_envs` environments of the scenario `name`, those to train in.

    `market/...` reads the params.yaml and the data set of the repository around the working directory.

    Args:
        name: one of `names()`; or `pettingzoo:<module>`, environments of its `parallel_env(**options)`; or
            `gymnasium:<id>`, those of `gymnasium.make(id, **options)`; or `<module>:<Class>`, the user's own, built as
            `Class(num_envs, seed=seed, device=device, **options)`. Modules are looked for in the working directory too.
        seed: fixes every episode.
        options: what the environment itself lets one choose; and, of environments from outside, `max_episode_steps`,
            which truncates longer episodes.

    Raises:
        UserError: the name, the module or an option is unknown, an option is missing or has the wrong type, or what
            was built does not implement the protocol.
    """
    if num_envs < 1:
        raise UserError(f"environment '{name}': at least 1 environment is needed, found num_envs={num_envs}")
    return _found(_around(Path.cwd()), name, options, device).training(num_envs, seed)


def scenario(root: Path, name: str, options: Mapping[str, Any], device: torch.device | str) -> Scenario:
    """All that belongs to the environment called `name`; see `make`. Its seeds are a stream apart from all others.

    Args:
        root: of the repository.

    Raises:
        UserError: no such environment, or options that it does not have.
    """
    found = _found(root, name, options, device)
    return replace(found, training=_streamed(found.training), test=_streamed(found.test))


def check_first_steps(name: str, made: Scenario, seed: int) -> None:
    """Plays the first steps of an environment from outside as `marl env check` does, before anything is learned on it.

    Raises:
        UserError: what `marl env check` would report, in the same words.
    """
    if folder_of(name) == OUTSIDE:
        check_named(name, lambda: made.training(CHECKED, seed), steps=FIRST_STEPS)


@cache
def folders() -> tuple[str, ...]:
    """Of all scenarios."""
    return tuple(sorted(entry.name for entry in pkgutil.iter_modules([str(Path(__file__).parent)]) if entry.ispkg))


@cache
def names() -> Mapping[str, str]:
    """Environment -> the folder of its scenario, outside environments left out."""
    return {name: folder for folder in folders() for name in _module(folder).NAMES}


def folder_of(name: str) -> str:
    """The folder of the scenario that has the environment called `name`.

    Raises:
        UserError: there is none.
    """
    if name in names():
        return names()[name]
    kind, _, rest = name.partition(":")
    if kind and rest:
        return OUTSIDE
    raise UserError(f"environment '{name}' is not known{hint(name, names())}, or write {' or '.join(PATTERNS)}")


def _found(root: Path, name: str, options: Mapping[str, Any], device: torch.device | str) -> Scenario:
    module = import_module(f"{__package__}.{folder_of(name)}.scenario")
    found: Scenario = module.scenario(name, root, options, device)
    return found


def _module(folder: str) -> ModuleType:
    return import_module(f"{__package__}.{folder}")


def _streamed(make: Make) -> Make:
    return lambda num_envs, seed: make(num_envs, stream_seed(seed, "environment"))


def _around(folder: Path) -> Path:
    """The nearest folder with a params.yaml, from `folder` upwards; `folder` itself where there is none."""
    return next((at for at in (folder, *folder.parents) if (at / "params.yaml").exists()), folder)
