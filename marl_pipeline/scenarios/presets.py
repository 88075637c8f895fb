"""The settings of an algorithm on an environment: its defaults, the scenario's preset, what the user overrides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from ruamel.yaml import YAML

from marl_pipeline.agents import registry as algorithms
from marl_pipeline.config import laid_over
from marl_pipeline.scenarios import registry

Presets = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Environment -> algorithm -> the settings that differ from the algorithm's defaults."""


def choose(algo: str, env: str, overrides: Mapping[str, Any]) -> algorithms.Chosen:
    """The settings of algorithm `algo` on the environment called `env`.

    Args:
        overrides: nested mapping laid over the presets.

    Raises:
        UserError: no such algorithm or environment, an unknown setting, or a bad value.
    """
    here = presets_of(registry.folder_of(env)).get(env, {}).get(algo, {})
    return algorithms.choose(algo, laid_over(here, overrides))


@cache
def presets_of(folder: str) -> Presets:
    """The `presets.yaml` of a scenario's folder; empty where it has none."""
    file = resources.files(f"{__package__}.{folder}") / "presets.yaml"
    if not file.is_file():
        return {}
    values: Presets = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    return values


def all_presets() -> Presets:
    """Those of all scenarios."""
    return {env: found for folder in registry.folders() for env, found in presets_of(folder).items()}
