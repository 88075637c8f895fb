"""Modules and options that a user names: found, checked against signatures, and mistakes reported in one line."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from marl_pipeline.errors import UserError

PLAIN: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,)}
"""Annotations that a value is checked against; other types are the builder's own affair."""


def import_module(name: str, module: str) -> ModuleType:
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


def check_options(
    name: str, builder: Callable[..., Any], options: Mapping[str, Any], *, ours: tuple[str, ...] = ()
) -> None:
    """Compares `options` with the keyword parameters of `builder`, less those that are `ours` to give.

    Raises:
        UserError: an option is unknown or its plain type is wrong; names the environment `name`.
    """
    parameters = inspect.signature(builder).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # the builder takes any option and answers for it itself
    known = {
        option: str(parameter.annotation)
        for option, parameter in parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and option not in ours
    }
    for option, value in options.items():
        if option not in known:
            raise UserError(f"environment '{name}': unknown option '{option}'{hint(option, known)}")
        wanted = PLAIN.get(known[option])
        if wanted is not None and not (isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))):
            raise UserError(f"environment '{name}': option '{option}' must be {known[option]}, found {value!r}")


LIMIT = "max_episode_steps"
"""The option by which episodes that are longer are truncated."""


def split_limit(
    name: str, builder: Callable[..., Any], options: Mapping[str, Any]
) -> tuple[int | None, dict[str, Any]]:
    """`max_episode_steps` and the rest of the options; None where it is not given or is the builder's own to take.

    Raises:
        UserError: it is not a whole number of at least 1.
    """
    rest = dict(options)
    if LIMIT not in rest or LIMIT in inspect.signature(builder).parameters:
        return None, rest
    limit = rest.pop(LIMIT)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise UserError(f"environment '{name}': option '{LIMIT}' must be a whole number of at least 1, found {limit!r}")
    return limit, rest


def hint(wrong: str, known: Iterable[str]) -> str:
    """The known name closest to the wrong one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f" (known: {', '.join(names) or 'none'})"
