"""Engines by name. A library is imported when its engine is chosen, not before."""

from __future__ import annotations

from importlib import import_module

from marl_pipeline.errors import UserError
from marl_pipeline.training.engines.task import Task, Trained

ENGINES = ("torch", "ray", "rllib", "sb3")


def train(engine: str, task: Task) -> Trained:
    """Trains the task; `torch` with more than one worker is `ray`, which is Ray Train.

    Raises:
        UserError: no such engine, or it cannot do what the task asks for.
    """
    if engine not in ENGINES:
        raise UserError(f"engine '{engine}' is not known (known: {', '.join(ENGINES)})")
    module, function = {
        "torch": ("ray_train", "train") if task.workers > 1 else ("data_parallel", "train_in_one_process"),
        "ray": ("ray_train", "train"),
        "rllib": ("rllib", "train"),
        "sb3": ("sb3", "train"),
    }[engine]
    trained: Trained = getattr(import_module(f"marl_pipeline.training.engines.{module}"), function)(task)
    return trained
