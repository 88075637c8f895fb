"""Ways to make an update faster that change its numbers a little: lower precision, compiled graphs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar, cast

import torch

from marl_pipeline.config import Section

Function = TypeVar("Function", bound=Callable[..., object])


class Acceleration(Section):
    """`precision` of the matrix products (weights and optimizers stay float32); `compile` traces the update's loss."""

    precision: Literal["float32", "bfloat16"]
    compile: bool

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Where the losses are computed."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def compiled(self, function: Function) -> Function:
        """The function, or what `torch.compile` makes of it."""
        if not self.compile:
            return function
        return cast(Function, torch.compile(function, dynamic=False))
