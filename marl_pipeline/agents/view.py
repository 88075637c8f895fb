"""The market as the agents see it: one table of rows per (bar, symbol), looked up by index.

Encoding the market once and gathering rows is where the speed comes from: rollouts store bar indices only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from marl_pipeline.data.dataset import Dataset, Embeddings, Signals


@dataclass(frozen=True)
class MarketView:
    """Rows of one encoder version, from bar `start` on.

    Attributes:
        start: bar of row 0.
        symbol_rows: [T', N, K] float32: embedding, current scaled features, supervised probabilities less 1/3,
            whether they and the features are available, sentiment.
        market_rows: [T', G] float32: regime and macro.
        columns: what the K columns are: name -> width, in order.
    """

    start: int
    symbol_rows: Tensor
    market_rows: Tensor
    columns: dict[str, int]

    @classmethod
    def build(cls, dataset: Dataset, signals: Signals, embeddings: Embeddings, device: torch.device) -> MarketView:
        rows = slice(embeddings.start, embeddings.start + len(embeddings.values))
        bars, symbols = embeddings.values.shape[:2]
        parts = {
            "embedding": embeddings.values,
            "features": dataset.features[rows],
            "signals": (signals.probabilities[rows] - 1 / 3).reshape(bars, symbols, -1),
            "available": np.stack([signals.available[rows], dataset.valid[rows]], axis=-1),
            "sentiment": dataset.sentiment[rows],
        }
        stacked = np.concatenate([part.astype(np.float32) for part in parts.values()], axis=-1)
        market = np.concatenate([dataset.regime[rows], dataset.macro[rows]], axis=-1).astype(np.float32)
        return cls(
            start=embeddings.start,
            symbol_rows=torch.from_numpy(stacked).to(device),
            market_rows=torch.from_numpy(market).to(device),
            columns={name: part.shape[-1] for name, part in parts.items()},
        )

    @property
    def symbol_width(self) -> int:
        return int(self.symbol_rows.shape[-1])

    @property
    def market_width(self) -> int:
        return int(self.market_rows.shape[-1])

    def symbols_at(self, bar: Tensor) -> Tensor:
        """[M] bar indices -> [M, N, K]."""
        return self.symbol_rows[bar - self.start]

    def market_at(self, bar: Tensor) -> Tensor:
        """[M] bar indices -> [M, G]."""
        return self.market_rows[bar - self.start]
