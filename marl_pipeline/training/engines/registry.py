"""Engines by name. A library is imported when its engine is chosen, not before."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from marl_pipeline.errors import UserError
from marl_pipeline.training.engines.task import Task, Trained

_FUNCTIONS = {
    "torch": ("data_parallel", "train_in_one_process"),
    "ray": ("ray_train", "train"),
    "rllib": ("rllib", "train"),
    "sb3": ("sb3", "train"),
}
"""Engine -> its module of this package, and the function there."""

ENGINES = tuple(_FUNCTIONS)


def train(engine: str, task: Task) -> Trained:
    """Trains the task; `torch` with more than one worker is `ray`, which is Ray Train.

    Raises:
        UserError: no such engine, or it cannot do what the task asks for.
    """
    if engine not in ENGINES:
        raise UserError(f"engine '{engine}' is not known (known: {', '.join(ENGINES)})")
    return function_of("ray" if engine == "torch" and task.workers > 1 else engine)(task)


def function_of(engine: str) -> Callable[[Task], Trained]:
    """The function that trains a task on one of `ENGINES`; imports its library."""
    module, name = _FUNCTIONS[engine]
    function: Callable[[Task], Trained] = getattr(import_module(f"marl_pipeline.training.engines.{module}"), name)
    return function
