"""Algorithms by name, and their settings: the preset, and what is laid over it.

The registry lies above the algorithms because one of them, the hierarchy, is built of others.

A preset (`algos/presets/<name>.yaml`) says in `envs` how many environments to train in, and holds under `default` every
field of the algorithm's settings. What differs on one environment is the preset of its scenario (`scenarios.presets`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from marl_pipeline.agents.hierarchy import Hierarchy, HierarchySettings
from marl_pipeline.algos.common.algorithm import Algorithm
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.algos.idqn import IDQN, IDQNSettings
from marl_pipeline.algos.maddpg import MADDPG, MADDPGSettings
from marl_pipeline.algos.mappo import MAPPOSettings
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.algos.ppo import PPOSettings
from marl_pipeline.algos.qmix import QMIX, QMIXSettings
from marl_pipeline.config import Section, explain, laid_over
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.errors import UserError
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction


@dataclass(frozen=True)
class RegisteredAlgorithm:
    """`algorithm` is called as `algorithm(environment, inputs, settings, seed=..., timesteps=...)`."""

    settings: type[Section]
    algorithm: Callable[..., Algorithm]


ALGORITHMS: Mapping[str, RegisteredAlgorithm] = {
    "ppo": RegisteredAlgorithm(PPOSettings, OnPolicy),
    "ippo": RegisteredAlgorithm(PPOSettings, OnPolicy),
    "mappo": RegisteredAlgorithm(MAPPOSettings, OnPolicy),
    "dqn": RegisteredAlgorithm(IDQNSettings, IDQN),
    "idqn": RegisteredAlgorithm(IDQNSettings, IDQN),
    "vdn": RegisteredAlgorithm(QMIXSettings, QMIX),
    "qmix": RegisteredAlgorithm(QMIXSettings, QMIX),
    "maddpg": RegisteredAlgorithm(MADDPGSettings, MADDPG),
    "hierarchy": RegisteredAlgorithm(HierarchySettings, Hierarchy),
}


def registered(name: str) -> RegisteredAlgorithm:
    """The algorithm called `name`.

    Raises:
        UserError: there is none.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    close = difflib.get_close_matches(name, list(ALGORITHMS), n=1)
    known = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(ALGORITHMS)}"
    raise UserError(f"algorithm '{name}' is not known; {known}")


def preset(name: str) -> dict[str, Any]:
    """The file of an algorithm's settings as it is."""
    registered(name)
    text = (resources.files("marl_pipeline.algos") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return values


@dataclass(frozen=True)
class Chosen:
    """Attributes:
    envs: environments to train in.
    settings: of the algorithm.
    """

    envs: int
    settings: Section

    def as_dict(self) -> dict[str, Any]:
        """All of it in one mapping; `parse` reads it back."""
        return {"envs": self.envs, **self.settings.model_dump(mode="json")}


def choose(name: str, overrides: Mapping[str, Any]) -> Chosen:
    """The settings of algorithm `name`.

    Args:
        overrides: nested mapping laid over the preset.

    Raises:
        UserError: no such algorithm, an unknown setting, or a bad value.
    """
    values = preset(name)
    return parse(name, laid_over({"envs": values["envs"], **values["default"]}, overrides))


def parse(name: str, values: Mapping[str, Any]) -> Chosen:
    """The settings of algorithm `name` from complete values, as `Chosen.as_dict` gives them.

    Raises:
        UserError: an unknown or missing setting, or a bad value.
    """
    model = registered(name).settings
    envs = values.get("envs")
    if not isinstance(envs, int) or isinstance(envs, bool) or envs < 1:
        raise UserError(f"settings of {name}: 'envs' must be a whole number of environments from 1 on (found {envs!r})")
    try:
        settings = {key: value for key, value in values.items() if key != "envs"}
        return Chosen(envs, model.model_validate(settings))
    except ValidationError as error:
        raise UserError(f"settings of {name}: {explain(error, model)}") from None


def build(
    name: str,
    environment: Environment,
    inputs: Inputs,
    settings: Section,
    *,
    seed: int,
    timesteps: int,
    reduction: Reduction = NO_REDUCTION,
) -> Algorithm:
    """The algorithm called `name`, ready to train on `environment` for `timesteps` environment steps.

    Raises:
        UserError: it cannot learn what this environment asks for.
    """
    algorithm = registered(name).algorithm
    return algorithm(environment, inputs, settings, seed=seed, timesteps=timesteps, reduction=reduction)
