"""How a long computation tells where it is: a callback, so that the core needs no terminal and no MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class OnStep(Protocol):
    """Called after each unit of work.

    Args:
        label: what is being done ("LSTM62 refit 3/6", "curriculum: broad").
        step: units done so far, 1-based.
        total: units in all.
        metrics: figures worth recording at this step; names use the field's terms.
    """

    def __call__(self, label: str, step: int, total: int, metrics: Mapping[str, float]) -> None: ...


def silent(label: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
    """The callback of tests and of callers who do not look."""
