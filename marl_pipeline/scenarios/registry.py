"""Environments by name, as a run needs them: one to train in, one to be tested in, and what the networks read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.envs import registry
from marl_pipeline.envs.conformance import check_named
from marl_pipeline.envs.protocol import Environment, closing
from marl_pipeline.scenarios.scenario import Scenario
from marl_pipeline.seeding import stream_seed
from marl_pipeline.store.digest import source_digest

FIRST_STEPS, CHECKED = 40, 2
"""How many steps are played, in how many environments, before training on one from outside."""


def scenario(root: Path, name: str, options: Mapping[str, Any], device: str) -> Scenario:
    """The environment called `name`: one of `envs.registry`, or `market/portfolio` and `market/accounts`.

    Raises:
        UserError: no such environment, or options that it does not have.
    """
    if name.startswith("market/"):
        from marl_pipeline.scenarios.market import market_scenario

        return market_scenario(root, name, options, device)

    def make(copies: int, seed: int) -> Environment:
        return registry.make(name, copies, seed=stream_seed(seed, "environment"), device=device, **options)

    with closing(make(1, 0)) as environment:
        inputs = DenseInputs(environment.groups)
    return Scenario(make, make, inputs, _source(name))


def check_first_steps(name: str, made: Scenario, seed: int) -> None:
    """Plays the first steps of an environment from outside as `marl env check` does, before anything is learned on it.

    Raises:
        UserError: what `marl env check` would report, in the same words.
    """
    if registry.is_outside(name):
        check_named(name, lambda: made.training(CHECKED, seed), steps=FIRST_STEPS)


def _source(name: str) -> dict[str, str]:
    """The source of an environment from elsewhere, which `make` has imported: edited, it is another environment."""
    kind, *rest = name.split(":")
    if not rest:
        return {}
    modules = {"gymnasium": [kind, *rest[:-1]], "pettingzoo": rest}.get(kind, [kind])
    paths: list[Path] = []
    for module in modules:
        top = sys.modules[module.partition(".")[0]]
        folders = getattr(top, "__path__", None)
        paths += [Path(path) for path in folders] if folders is not None else [Path(cast(str, top.__file__))]
    return {"source of the environment": source_digest(paths)}
