"""Environments by name: the built-in ones, outside ones through an adapter, the user's own by module and class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from marl_pipeline.envs.lookup import check_options, hint, import_module, split_limit
from marl_pipeline.envs.matrix.games import climbing, penalty, two_step
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.envs.validation import Validated
from marl_pipeline.errors import UserError

Builder = Callable[..., Environment]
"""Called as `builder(num_envs, seed=..., device=..., **options)`."""

ENVIRONMENTS: Mapping[str, Builder] = {
    "mpe/simple_spread": SimpleSpread,
    "matrix/two_step": two_step,
    "matrix/climbing": climbing,
    "matrix/penalty": penalty,
}

PATTERNS = ("pettingzoo:<module>", "gymnasium:<id>", "<module>:<Class>")
"""What else a name may be; `make` says what each means."""


def make(name: str, num_envs: int, *, seed: int, device: torch.device | str = "cpu", **options: Any) -> Environment:
    """Builds `num_envs` environments called `name`; whoever asked closes them (`protocol.close_environment`).

    Args:
        name: one of `ENVIRONMENTS`; or `pettingzoo:<module>`, of its `parallel_env(**options)`; or `gymnasium:<id>`, of
            `gymnasium.make(id, **options)`; or `<module>:<Class>`, the user's own, built as `Class(num_envs, seed=seed,
            device=device, **options)`. Modules are looked for in the working directory too.
        seed: fixes every episode.
        options: what the environment itself lets one choose; and, of environments from outside, `max_episode_steps`,
            which truncates longer episodes.

    Raises:
        UserError: the name, the module or an option is unknown, an option is missing or has the wrong type, or what
            was built does not speak the protocol.
    """
    if num_envs < 1:
        raise UserError(f"environment '{name}': at least 1 is needed, found num_envs={num_envs}")
    builder = _builder(name)
    own = name not in ENVIRONMENTS and not isinstance(builder, partial)
    limit, options = split_limit(name, builder, options) if own else (None, options)
    check_options(name, builder, options, ours=("num_envs", "seed", "device"))
    given = {"seed": seed, "device": device, **options}
    try:
        inspect.signature(builder).bind(num_envs, **given)
    except TypeError as error:
        raise UserError(
            f"environment '{name}' is built as (num_envs, seed=..., device=..., **options), which does not fit: {error}"
        ) from error
    environment = builder(num_envs, **given)
    _check_speaks(name, environment)
    return Validated(environment, name, limit) if own else environment


def is_outside(name: str) -> bool:
    """Whether an environment comes from elsewhere, so that nobody has tested it here."""
    return ":" in name


def _builder(name: str) -> Builder:
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name]
    kind, _, rest = name.partition(":")
    if kind == "pettingzoo" and rest:
        from marl_pipeline.envs.bridges.imports.pettingzoo import pettingzoo_environment

        return partial(pettingzoo_environment, name, import_module(name, rest))
    if kind == "gymnasium" and rest:
        from marl_pipeline.envs.bridges.imports.gymnasium import gymnasium_environment

        return partial(gymnasium_environment, name, rest)
    if kind and rest:
        return _own(name, kind, rest)
    raise UserError(f"environment '{name}' is not known{hint(name, ENVIRONMENTS)}, or write {' or '.join(PATTERNS)}")


def _own(name: str, module: str, attribute: str) -> Builder:
    found: Builder | None = getattr(import_module(name, module), attribute, None)
    if found is None:
        raise UserError(f"environment '{name}': module '{module}' has no '{attribute}'; write <module>:<Class>")
    return found


def _check_speaks(name: str, environment: object) -> None:
    wanted = ("groups", "state_size", "num_envs", "device", "reset", "step", "state_dict", "load_state_dict")
    missing = [attribute for attribute in wanted if not hasattr(environment, attribute)]
    if missing:
        raise UserError(
            f"environment '{name}': {type(environment).__name__} lacks {', '.join(missing)}; see envs/protocol.py"
        )
