"""Small on-policy learners for the tests: presets with overrides, and what of them can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

import marl_pipeline.algos
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.mappo import MAPPOSettings
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.algos.ppo import PPOSettings

PRESETS = Path(marl_pipeline.algos.__file__).parent / "presets"
FAST = {"kind": "linear", "start": 0.03, "end": 0.0, "share": 1.0}


def settings(algorithm: str, network: Mapping[str, Any] | None = None, **overrides: Any) -> PPOSettings:
    """The default preset, made small and fast."""
    preset = YAML(typ="safe").load((PRESETS / f"{algorithm}.yaml").read_text())["default"]
    small = {
        "horizon": 12,
        "epochs": 4,
        "minibatches": 1,
        "target_kl": None,
        "learning_rate": FAST,
        "gamma": 0.9,
        "entropy": 0.0,
    }
    preset["network"] |= {"hidden": [16, 16]} | dict(network or {})
    kind = MAPPOSettings if algorithm == "mappo" else PPOSettings
    return kind.model_validate(preset | small | overrides)


def learner(environment: Any, chosen: PPOSettings, *, seed: int = 0, timesteps: int = 4_000) -> OnPolicy:
    return OnPolicy(environment, DenseInputs(environment.groups), chosen, seed=seed, timesteps=timesteps)


def leaves(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a nested state with where they are."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from leaves(value, f"{path}/{index}")
    else:
        yield path, state


def assert_same_bytes(found: Any, wanted: Any) -> None:
    ours, theirs = dict(leaves(found)), dict(leaves(wanted))
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert ours[path].dtype == value.dtype, path
            assert ours[path].contiguous().numpy().tobytes() == value.contiguous().numpy().tobytes(), path
        else:
            assert ours[path] == value, path
