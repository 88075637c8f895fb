"""Environments by name: the built-in ones, outside ones through an adapter, the user's own by module and class."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from marl_pipeline.envs.matrix.games import climbing, penalty, two_step
from marl_pipeline.envs.mpe.spread import SimpleSpread
from marl_pipeline.envs.protocol import Environment
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
    """Builds `num_envs` copies of the environment called `name`.

    Args:
        name: one of `ENVIRONMENTS`, or `<module>:<Class>`, built as `Class(num_envs, seed=seed, device=device,
            **options)`. Modules are looked for in the working directory too.
        seed: fixes every episode.
        options: what the environment itself lets one choose.

    Raises:
        UserError: the name, the module or an option is unknown, an option has the wrong type, or what was built does
            not speak the protocol.
    """
    if num_envs < 1:
        raise UserError(f"environment '{name}': at least 1 copy is needed, found num_envs={num_envs}")
    builder = _builder(name)
    _check_options(name, builder, options)
    environment = builder(num_envs, seed=seed, device=device, **options)
    _check_speaks(name, environment)
    return environment


def _builder(name: str) -> Builder:
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name]
    kind, colon, rest = name.partition(":")
    if colon:
        return _own(name, kind, rest)
    raise UserError(f"environment '{name}' is not known{hint(name, ENVIRONMENTS)}, or write {' or '.join(PATTERNS)}")


def _own(name: str, module: str, attribute: str) -> Builder:
    found: Builder | None = getattr(import_module(name, module), attribute, None)
    if found is None:
        raise UserError(f"environment '{name}': module '{module}' has no '{attribute}'; write <module>:<Class>")
    return found


def import_module(name: str, module: str) -> Any:
    """The module of the environment `name`, from the path or from the working directory.

    Raises:
        UserError: it, or one that it imports, is not there.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"environment '{name}': no module named '{error.name}'; install it or run where it can be imported"
        ) from error


def hint(wrong: str, known: Mapping[str, Any]) -> str:
    """The known name closest to the wrong one, or all of them."""
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else f" (known: {', '.join(known) or 'none'})"


def _check_options(name: str, builder: Builder, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(builder).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # the builder takes any option and answers for it itself
    known = {
        option: parameter
        for option, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and option not in ("seed", "device")
    }
    for option, value in options.items():
        if option not in known:
            raise UserError(f"environment '{name}': unknown option '{option}'{hint(option, known)}")
        wanted = PLAIN.get(str(known[option].annotation))
        if wanted is not None and not (isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))):
            raise UserError(
                f"environment '{name}': option '{option}' must be {known[option].annotation}, found {value!r}"
            )


PLAIN: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,)}
"""Annotations that a value is checked against; other types are the builder's own affair."""


def _check_speaks(name: str, environment: object) -> None:
    wanted = ("groups", "state_size", "num_envs", "device", "reset", "step", "state_dict", "load_state_dict")
    missing = [attribute for attribute in wanted if not hasattr(environment, attribute)]
    if missing:
        raise UserError(
            f"environment '{name}': {type(environment).__name__} lacks {', '.join(missing)}; see envs/protocol.py"
        )
