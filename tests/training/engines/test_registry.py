"""Engines are named by strings, so a rename must not leave one behind."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

from marl_pipeline.training.engines.registry import ENGINES, function_of
from marl_pipeline.training.engines.task import Task, Trained


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_is_a_function_from_a_task_to_what_was_trained(engine: str) -> None:
    function = function_of(engine)
    needed = [one.name for one in inspect.signature(function).parameters.values() if one.default is one.empty]
    assert len(needed) == 1
    hints = get_type_hints(function)
    assert (hints[needed[0]], hints["return"]) == (Task, Trained)
