"""A data set on a device, as the encoder and its pre-training read it: by bar, whole cross-sections at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from marl_pipeline.config import PretrainEncoderParams
from marl_pipeline.data import trailing
from marl_pipeline.data.dataset import Dataset, Panel
from marl_pipeline.data.graph import correlation_graph
from marl_pipeline.encoders.encoder import Cross

VOLATILITY_BARS = 60
RETURN_CLIP = 5.0


@dataclass(frozen=True)
class Source:
    """Tensors of one data set.

    Attributes:
        window: W.
        features: [T, N, F].
        windows: [T - W + 1, N, F, W] view of them; row i ends at bar i + W - 1.
        valid: [T, N].
        block: [T] row of the graph's tables.
        neighbours, weights: [B, N, k].
        level: [T, N] log close, 0 without a bar.
        volatility: [T, N] trailing deviation of log returns, 0 while unknown.
    """

    window: int
    features: Tensor
    windows: Tensor
    valid: Tensor
    block: Tensor
    neighbours: Tensor
    weights: Tensor
    level: Tensor
    volatility: Tensor

    @classmethod
    def of(cls, dataset: Dataset, window: int, params: PretrainEncoderParams, device: torch.device) -> Source:
        block, neighbours, weights = correlation_graph(dataset, params.correlation_window, params.graph_neighbours)
        level, volatility = _returns(dataset.panel)
        features = torch.from_numpy(np.ascontiguousarray(dataset.features)).to(device)
        valid = np.array(dataset.valid)
        valid[: window - 1] = False
        return cls(
            window=window,
            features=features,
            windows=features.unfold(0, window, 1),
            valid=torch.from_numpy(valid).to(device),
            block=torch.from_numpy(block).to(device),
            neighbours=torch.from_numpy(neighbours).to(device),
            weights=torch.from_numpy(weights).to(device),
            level=torch.from_numpy(level).to(device),
            volatility=torch.from_numpy(volatility).to(device),
        )

    @property
    def device(self) -> torch.device:
        return self.features.device

    def at(self, bars: Tensor) -> Cross:
        """[B] bars -> their cross-sections. Bars without W - 1 bars before them read the first window there is
        and are not valid."""
        windows = self.windows[(bars - (self.window - 1)).clamp_min(0)].transpose(2, 3).contiguous()
        valid, block = self.valid[bars], self.block[bars]
        return Cross(windows * valid[..., None, None], valid, self.neighbours[block], self.weights[block])

    def ahead(self, bars: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """What is to be foreseen from `bars`: the features `horizon` bars on and the return until then.

        Returns:
            target: [B, N, F + 1], the return in trailing standard deviations, clipped at `RETURN_CLIP`.
            known: [B, N] bool; valid at both ends.
        """
        known = self.valid[bars] & self.valid[bars + horizon] & (self.volatility[bars] > 0.0)
        scale = torch.where(known, self.volatility[bars] * horizon**0.5, 1.0)
        change = ((self.level[bars + horizon] - self.level[bars]) / scale).clamp(-RETURN_CLIP, RETURN_CLIP)
        return torch.cat([self.features[bars + horizon], change[..., None]], dim=-1), known


def _returns(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Log close and its trailing volatility, both [T, N] float32 with 0 for unknown."""
    volatility = trailing.deviation(trailing.log_returns(panel.close), VOLATILITY_BARS, VOLATILITY_BARS // 2)
    level = np.log(panel.close)
    known = [np.where(np.isfinite(values), values, 0.0) for values in (level, volatility)]
    return known[0].astype(np.float32), known[1].astype(np.float32)
