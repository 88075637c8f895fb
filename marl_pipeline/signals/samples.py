"""Windows of features as batches: each symbol's bars lie together in memory, so a window is one contiguous row and
a batch is one gather."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from marl_pipeline.data.dataset import Dataset, IntArray


@dataclass(frozen=True)
class Windows:
    """All windows of a data set on one device.

    Attributes:
        rows: [N * T - W + 1, W * F] overlapping view; the window that ends at bar t of symbol n is row
            n * T + t - W + 1.
        bars: T.
        window: W.
        features: F.
    """

    rows: Tensor
    bars: int
    window: int
    features: int

    @classmethod
    def of(cls, dataset: Dataset, window: int, device: torch.device) -> Windows:
        bars, symbols, features = dataset.features.shape
        flat = torch.from_numpy(np.ascontiguousarray(dataset.features.transpose(1, 0, 2))).to(device).reshape(-1)
        rows = torch.as_strided(flat, (symbols * bars - window + 1, window * features), (features, 1))
        return cls(rows, bars, window, features)

    def ending_at(self, bar: Tensor, symbol: Tensor) -> Tensor:
        """[B] bars and symbols -> [B, W, F]; only for bars with W - 1 before them."""
        index = symbol * self.bars + bar - (self.window - 1)
        return self.rows[index].view(len(index), self.window, self.features)


@dataclass(frozen=True)
class Samples:
    """Pairs of bar and symbol, [B] each, bar by bar."""

    bar: IntArray
    symbol: IntArray

    def __len__(self) -> int:
        return len(self.bar)

    def draw(self, at_most: int, generator: np.random.Generator) -> Samples:
        """A sample without replacement, in order of time; all of them if there are fewer."""
        if len(self) <= at_most:
            return self
        chosen = np.sort(generator.choice(len(self), at_most, replace=False))
        return Samples(self.bar[chosen], self.symbol[chosen])
