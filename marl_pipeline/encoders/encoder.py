"""The shared encoder: windows of all symbols at some bars -> one embedding per bar and symbol."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from marl_pipeline.config import PretrainEncoderParams
from marl_pipeline.encoders.fusion import GatedFusion
from marl_pipeline.encoders.graph import MessagePassing
from marl_pipeline.encoders.temporal import BiLSTM, Convolution, Transformer


class Cross(NamedTuple):
    """The whole cross-section at B bars: what the encoder reads.

    Attributes:
        windows: [B, N, W, F] scaled features, 0 where not valid.
        valid: [B, N] bool.
        neighbours: [B, N, k] int64.
        weights: [B, N, k] float32.
    """

    windows: Tensor
    valid: Tensor
    neighbours: Tensor
    weights: Tensor


class Encoder(nn.Module):
    """Transformer, BiLSTM and convolution over the window, messages over the graph, gated fusion."""

    def __init__(self, window: int, features: int, params: PretrainEncoderParams) -> None:
        super().__init__()
        width = params.width
        self.step = nn.Linear(features, width)
        self.hidden = nn.Parameter(torch.zeros(features))
        """What stands in for a masked value during pre-training."""
        self.transformer = Transformer(window, width, params.heads, params.layers, params.dropout)
        self.recurrent = BiLSTM(width)
        self.convolution = Convolution(width, params.dropout)
        self.merge = nn.Linear(3 * width, width)
        self.graph = MessagePassing(width)
        self.fusion = GatedFusion(4, width, params.embedding)

    def forward(self, cross: Cross, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encodes B bars.

        Args:
            cross: the bars.
            mask: [B, N, W, F] bool, values to hide from the encoder.

        Returns:
            embedding: [B, N, D], zero where not valid.
            states: [B, N, W, H], what the three readers say of each bar of the window, summed.
        """
        bars, symbols, window, features = cross.windows.shape
        values = cross.windows if mask is None else torch.where(mask, self.hidden, cross.windows)
        steps = self.step(values.reshape(bars * symbols, window, features))
        read = [reader(steps) for reader in (self.transformer, self.recurrent, self.convolution)]
        summaries = [summary.view(bars, symbols, -1) for _, summary in read]
        local = self.merge(torch.cat(summaries, dim=-1))
        around = self.graph(local, cross.valid, cross.neighbours, cross.weights)
        embedding = self.fusion(*summaries, around) * cross.valid[..., None]
        states = read[0][0] + read[1][0] + read[2][0]
        return embedding, states.view(bars, symbols, window, -1)
