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
            whether they and the features are available, sentiment. Without an encoder or supervised models their
            columns are left out.
        market_rows: [T', G] float32: regime and macro.
        columns: what the K columns are: name -> width, in order.
    """

    start: int
    symbol_rows: Tensor
    market_rows: Tensor
    columns: dict[str, int]

    @classmethod
    def build(
        cls, dataset: Dataset, signals: Signals | None, embeddings: Embeddings | None, device: torch.device
    ) -> MarketView:
        start = 0 if embeddings is None else embeddings.start
        stop = dataset.bars if embeddings is None else start + len(embeddings.values)
        rows = slice(start, stop)
        parts = {} if embeddings is None else {"embedding": embeddings.values}
        parts["features"] = dataset.features[rows]
        available = [dataset.valid[rows]]
        if signals is not None:
            parts["signals"] = (signals.probabilities[rows] - 1 / 3).reshape(
                stop - start, len(dataset.panel.symbols), -1
            )
            available.insert(0, signals.available[rows])
        parts["available"] = np.stack(available, axis=-1)
        parts["sentiment"] = dataset.sentiment[rows]
        stacked = np.concatenate([part.astype(np.float32) for part in parts.values()], axis=-1)
        market = np.concatenate([dataset.regime[rows], dataset.macro[rows]], axis=-1).astype(np.float32)
        return cls(
            start=start,
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
