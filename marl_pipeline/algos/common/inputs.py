"""From stored observations to the rows a network reads.

Rollouts and replay keep what the environment reported: references into tables and the small dynamic state. What a
network sees of it is looked up here, when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import GroupSpec


class Inputs(Protocol):
    """Rows of one group: field -> [..., A, *shape] gives [..., A, width(group)] float32."""

    def width(self, group: str) -> int: ...

    def of(self, groups: Mapping[str, GroupSpec]) -> Inputs:
        """The same for groups that observe further fields (a message of another group)."""
        ...

    def __call__(self, group: str, observation: Mapping[str, Tensor]) -> Tensor: ...


class DenseInputs:
    """The float fields of an observation side by side, in their order; references to tables are left out.

    Raises:
        ValueError: a group observes references only, so there would be nothing to see.
    """

    def __init__(self, groups: Mapping[str, GroupSpec], reference_fields: tuple[str, ...] = ()) -> None:
        self._reference_fields = reference_fields
        self._fields: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, spec in groups.items():
            fields = {field: shape for field, shape in spec.observation.items() if field not in reference_fields}
            if not fields:
                raise ValueError(f"group {name!r} observes references only ({sorted(spec.observation)}): look them up")
            self._fields[name] = fields

    def width(self, group: str) -> int:
        return sum(torch.Size(shape).numel() for shape in self._fields[group].values())

    def of(self, groups: Mapping[str, GroupSpec]) -> DenseInputs:
        return DenseInputs(groups, self._reference_fields)

    def __call__(self, group: str, observation: Mapping[str, Tensor]) -> Tensor:
        rows = [
            observation[field].flatten(-len(shape)) if shape else observation[field].unsqueeze(-1)
            for field, shape in self._fields[group].items()
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)
