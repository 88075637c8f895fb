"""Memory for what a compiled step writes. New memory costs more than what is written into it, the more so the more of
it: memory that nobody reads any more is written again.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

Field = tuple[str, str]
"""Owner (`after`, `entries`, `view`: a tuple of the kernel) and name of an array."""

KEPT = 4
"""Buffers that are remembered; those of a caller who keeps more steps than that are let go."""


class Block(NamedTuple):
    """Arrays of one shape (beside the environments) and type, made in one piece."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    fields: tuple[Field, ...]


class StepBuffer:
    """Memory for all fields of `blocks`, for `envs` environments.

    Attributes:
        arrays: owner -> name -> [envs, *shape].
    """

    def __init__(self, blocks: Sequence[Block], envs: int) -> None:
        self.envs = envs
        self._owned: dict[str, dict[str, int]] = {}
        for index, (owner, name) in enumerate(field for block in blocks for field in block.fields):
            self._owned.setdefault(owner, {})[name] = index
        # Through torch, which places them at the bounds of cache lines.
        self._wholes: list[Any] = [
            torch.empty((len(block.fields), envs, *block.shape), dtype=block.dtype).numpy() for block in blocks
        ]
        self.arrays = self._by_owner(self._wholes)
        self._idle = self._holders()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """New tensors over the memory, by owner and name."""
        return self._by_owner(torch.from_numpy(whole).unbind(0) for whole in self._wholes)

    @property
    def idle(self) -> bool:
        """No tensor over this memory is left, nor a view of one: each of them holds the array it was made from."""
        return self._holders() == self._idle

    def _by_owner(self, blocks: Iterable[Iterable[Any]]) -> dict[str, dict[str, Any]]:
        rows = [*chain.from_iterable(blocks)]
        return {owner: {name: rows[k] for name, k in names.items()} for owner, names in self._owned.items()}

    def _holders(self) -> list[int]:
        return [sys.getrefcount(whole) for whole in self._wholes]


class BufferPool:
    """Hands out buffers for `blocks`."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._buffers: deque[StepBuffer] = deque(maxlen=KEPT)

    def take(self, envs: int) -> StepBuffer:
        """One whose memory nobody else can see."""
        for buffer in self._buffers:
            if buffer.envs == envs and buffer.idle:
                return buffer
        buffer = StepBuffer(self._blocks, envs)
        self._buffers.append(buffer)
        return buffer


def merged(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """One block for each shape and type."""
    fields: dict[tuple[tuple[int, ...], torch.dtype], tuple[Field, ...]] = {}
    for shape, dtype, names in blocks:
        fields[shape, dtype] = fields.get((shape, dtype), ()) + names
    return tuple(Block(shape, dtype, names) for (shape, dtype), names in fields.items())


def named(**owned: str) -> tuple[Field, ...]:
    """Fields by owner, their names in one string."""
    return tuple((owner, name) for owner, several in owned.items() for name in several.split())
