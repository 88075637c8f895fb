"""What the tests of the off-policy learners share: settings from a preset, short runs, and kills."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from ruamel.yaml import YAML

from marl_pipeline.algos.common.algorithm import Algorithm, Policy, forget
from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.config import Section
from marl_pipeline.envs.protocol import Environment

PRESETS = Path(__file__).parents[2] / "marl_pipeline" / "algos" / "presets"
Settings = TypeVar("Settings", bound=Section)


def preset(kind: type[Settings], name: str, changes: Mapping[str, Any]) -> Settings:
    """The default preset of an algorithm with some values changed."""
    values = YAML(typ="safe").load(PRESETS / f"{name}.yaml")["default"]
    return kind.model_validate(values | dict(changes))


def constant(value: float) -> dict[str, Any]:
    return {"kind": "constant", "start": value, "end": value, "share": 1.0}


def iterate(algorithm: Algorithm, count: int) -> None:
    for _ in range(count):
        algorithm.iterate()


def bytes_of(algorithm: Algorithm) -> bytes:
    """Everything a checkpoint would hold."""
    buffer = io.BytesIO()
    torch.save(algorithm.state_dict(), buffer)
    return buffer.getvalue()


def check_kill_and_resume(make: Callable[[], Algorithm], folder: Path, *, at: int, total_iterations: int) -> None:
    """A run that is killed after `at` iterations and resumed ends in the bytes of an undisturbed one."""
    undisturbed = make()
    iterate(undisturbed, total_iterations)
    killed = make()
    iterate(killed, at)
    FileCheckpointer(folder).save(killed.state_dict())
    resumed = make()
    saved = FileCheckpointer(folder).load()
    assert saved is not None
    resumed.load_state_dict(saved)
    iterate(resumed, total_iterations - at)
    assert_equal_states(undisturbed.state_dict(), resumed.state_dict(), "state")
    assert not_equal(make().state_dict(), resumed.state_dict()), "the run changed nothing"


def assert_equal_states(first: Any, second: Any, where: str) -> None:
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype, where
        assert first.shape == second.shape, where
        assert first.numpy().tobytes() == second.numpy().tobytes(), where
    elif isinstance(first, Mapping):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal_states(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal_states(one, other, f"{where}[{index}]")
    else:
        assert first == second, where


def not_equal(first: Any, second: Any) -> bool:
    try:
        assert_equal_states(first, second, "")
    except AssertionError:
        return True
    return False


def greedy_rewards(environment: Environment, policy: Policy, steps: int) -> dict[str, float]:
    """Mean reward per step, environment and agent of each group under the greedy policy."""
    timestep, memory = environment.reset(), policy.start(environment.num_envs)
    earned = dict.fromkeys(environment.groups, 0.0)
    for _ in range(steps):
        actions, memory = policy.act(timestep, memory, None)
        timestep = environment.step(actions)
        for name in earned:
            earned[name] += float(timestep.groups[name].reward.mean()) / steps
        if bool(timestep.done.any()):
            memory, timestep = forget(memory, timestep.done), environment.reset(timestep.done)
    return earned
