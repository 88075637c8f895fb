"""Drawing what surprised most from a replay (Schaul et al. 2016, proportional variant), by a batched sum tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.algos.common.replay import Replay
from marl_pipeline.algos.common.schedules import Probability
from marl_pipeline.config import Fraction, Positive, Section


class SumTree:
    """`leaves` numbers >= 0; changes and draws of a batch take one pass over the levels.

    A binary heap: node i has the children 2 i and 2 i + 1 and is their sum; node 1 is the total.
    """

    def __init__(self, leaves: int, device: torch.device) -> None:
        self._base = 1 << (leaves - 1).bit_length()
        self._nodes = torch.zeros(2 * self._base, dtype=torch.float64, device=device)

    def __getitem__(self, leaf: Tensor) -> Tensor:
        return self._nodes[leaf + self._base]

    @property
    def total(self) -> Tensor:
        return self._nodes[1]

    def set(self, leaf: Tensor, value: Tensor) -> None:
        """Leaves [B] to values [B]; a leaf that is named more than once gets the largest."""
        node = leaf + self._base
        self._nodes.index_fill_(0, node, 0.0).scatter_reduce_(0, node, value.double(), "amax")
        for _ in range(self._base.bit_length() - 1):
            node = node // 2
            self._nodes[node] = self._nodes[2 * node] + self._nodes[2 * node + 1]

    def find(self, mass: Tensor) -> Tensor:
        """[B] the leaves in whose share of the running total the masses [B] in [0, total) fall."""
        node = torch.ones_like(mass, dtype=torch.int64)
        for _ in range(self._base.bit_length() - 1):
            left = self._nodes[2 * node]
            # rounding may leave a mass beyond a right child that is empty
            right = (mass >= left) & (self._nodes[2 * node + 1] > 0)
            mass = torch.where(right, mass - left, mass)
            node = 2 * node + right
        return node - self._base

    def state_dict(self) -> dict[str, Any]:
        return {"nodes": self._nodes.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._nodes.copy_(state["nodes"])


class PrioritySettings(Section):
    """`exponent` alpha (0 draws uniformly), importance exponent beta over the run, `floor` added to every error."""

    exponent: Fraction
    importance: Probability
    floor: Positive


class Priorities:
    """The positions of a replay that have `look_ahead` rows after them, drawn in proportion to their priorities.

    New ones get the highest priority so far, so that all are seen soon.
    """

    def __init__(self, replay: Replay, settings: PrioritySettings, *, look_ahead: int) -> None:
        self._replay, self._settings, self._look_ahead = replay, settings, look_ahead
        self._tree = SumTree(len(replay.final), replay.written.device)
        self._known = torch.zeros_like(replay.written)
        self._highest = torch.ones((), dtype=torch.float64, device=replay.written.device)

    def welcome(self) -> None:
        """Lets the positions be drawn that came into being since the last call, and no longer those overwritten."""
        written, rows = self._replay.written, self._replay.rows
        first_open = (written - self._look_ahead + 1).clamp(min=0)
        known = torch.maximum(self._known, written + 1 - rows)
        span = int((written + 1 - known).max())
        row = known + torch.arange(span, device=written.device).unsqueeze(-1)
        position = self._replay.position(row)
        usable = (row < first_open) & ~self._replay.final[position]
        inside = row <= written
        self._tree.set(position[inside], torch.where(usable, self._highest, 0.0)[inside])
        self._known = torch.maximum(first_open, known)

    def draw(self, batch: int, progress: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions [batch], one from each of `batch` equal parts of the total, and importance weights [batch] <= 1.

        Raises:
            ValueError: nothing may be drawn yet.
        """
        if float(self._tree.total) <= 0.0:
            raise ValueError(f"no row has {self._look_ahead} rows after it: the replay holds {len(self._replay)}")
        device = self._tree.total.device
        share = torch.rand(batch, generator=generator, device=generator.device, dtype=torch.float64).to(device)
        position = self._tree.find((torch.arange(batch, device=device) + share) / batch * self._tree.total)
        weight = self._tree[position] ** -self._settings.importance.at(progress)
        return position, (weight / weight.max()).float()

    def update(self, position: Tensor, error: Tensor) -> None:
        """New priorities (|error| + floor) ** exponent of positions [B]."""
        priority = (error.detach().double().abs() + self._settings.floor) ** self._settings.exponent
        self._tree.set(position, priority)
        self._highest = torch.maximum(self._highest, priority.max())

    def state_dict(self) -> dict[str, Any]:
        return {"tree": self._tree.state_dict(), "known": self._known.cpu(), "highest": self._highest.cpu()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._tree.load_state_dict(state["tree"])
        self._known = state["known"].to(self._known.device)
        self._highest = state["highest"].to(self._highest.device)
