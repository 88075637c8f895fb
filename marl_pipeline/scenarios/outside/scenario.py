"""`pettingzoo:<module>`, `gymnasium:<id>` and `<module>:<Class>` (the user's own)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from marl_pipeline.envs.lookup import import_module, split_limit
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.envs.validation import Validated
from marl_pipeline.errors import UserError
from marl_pipeline.scenarios.scenario import Make, Scenario, maker, plain
from marl_pipeline.store.digest import source_digest

Builder = Callable[..., Environment]
"""Called as `builder(num_envs, seed=..., device=..., **options)`."""


def scenario(name: str, root: Path, options: Mapping[str, Any], device: torch.device | str) -> Scenario:
    """See `scenarios.registry.make`. The source of the environment is part of the facts: edited, it is another one.

    Raises:
        UserError: no such module, class or option, or an environment that does not implement the protocol.
    """
    builder = _builder(name)
    own = not isinstance(builder, partial)
    limit, rest = split_limit(name, builder, options) if own else (None, options)
    make = maker(name, builder, rest, device)
    try:
        inspect.signature(builder).bind(1, seed=0, device=device, **rest)
    except TypeError as error:
        raise UserError(
            f"environment '{name}' is built as (num_envs, seed=..., device=..., **options), which does not fit: {error}"
        ) from error
    checked = _checked(name, make)
    return plain(_validated(name, checked, limit) if own else checked, identify=lambda: _source(name))


def _builder(name: str) -> Builder:
    kind, _, rest = name.partition(":")
    if kind == "pettingzoo":
        from marl_pipeline.envs.bridges.imports.pettingzoo import pettingzoo_environment

        return partial(pettingzoo_environment, name, import_module(name, rest))
    if kind == "gymnasium":
        module, colon, _ = rest.rpartition(":")
        if colon:
            import_module(name, module)
        from marl_pipeline.envs.bridges.imports.gymnasium import gymnasium_environment

        return partial(gymnasium_environment, name, rest)
    found: Builder | None = getattr(import_module(name, kind), rest, None)
    if found is None:
        raise UserError(f"environment '{name}': module '{kind}' has no '{rest}'; write <module>:<Class>")
    return found


def _checked(name: str, make: Make) -> Make:
    def checked(num_envs: int, seed: int) -> Environment:
        environment = make(num_envs, seed)
        wanted = ("groups", "state_size", "num_envs", "device", "reset", "step", "state_dict", "load_state_dict")
        missing = [attribute for attribute in wanted if not hasattr(environment, attribute)]
        if missing:
            raise UserError(
                f"environment '{name}': {type(environment).__name__} lacks {', '.join(missing)}; see envs/protocol.py"
            )
        return environment

    return checked


def _validated(name: str, make: Make, limit: int | None) -> Make:
    return lambda num_envs, seed: Validated(make(num_envs, seed), name, limit)


def _source(name: str) -> dict[str, str]:
    """Of the modules behind the environment, which are imported by now."""
    kind, *rest = name.split(":")
    modules = {"gymnasium": [kind, *rest[:-1]], "pettingzoo": rest}.get(kind, [kind])
    paths: list[Path] = []
    for module in modules:
        top = sys.modules[module.partition(".")[0]]
        folders = getattr(top, "__path__", None)
        paths += [Path(path) for path in folders] if folders is not None else [Path(cast(str, top.__file__))]
    return {"source of the environment": source_digest(paths)}
