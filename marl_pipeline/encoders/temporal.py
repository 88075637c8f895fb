"""Three ways to read a window of bars: attention, recurrence, convolution. Each gives one state per bar [B, W, H] and
a summary of the whole window [B, H]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class AttentionBlock(nn.Module):
    """Multi-head self-attention and a feed-forward layer, normalised first (Vaswani et al. 2017; Xiong et al.
    2020)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """[B, W, H] -> [B, W, H]."""
        batch, window, width = states.shape
        packed = self.project(self.before_attention(states)).view(batch, window, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        states = states + self.dropout(self.merge(attended.transpose(1, 2).reshape(batch, window, width)))
        out: Tensor = states + self.dropout(self.feed_forward(states))
        return out


class Transformer(nn.Module):
    """Learned positions and `layers` attention blocks. The window is all past, so every bar of it may see every
    other."""

    def __init__(self, window: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(window, width) * 0.02)
        self.blocks = nn.Sequential(*(AttentionBlock(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """[B, W, H] -> states [B, W, H] and that of the last bar [B, H]."""
        states = self.norm(self.blocks(steps + self.position))
        return states, states[:, -1]


class BiLSTM(nn.Module):
    """Half of the width reads forwards, half backwards (Schuster and Paliwal 1997)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """[B, W, H] -> states [B, W, H] and where each direction ends, the last bar and the first [B, H]."""
        states, _ = self.cell(steps)
        half = states.shape[-1] // 2
        return states, torch.cat([states[:, -1, :half], states[:, 0, half:]], dim=-1)


class Convolution(nn.Module):
    """Residual 1-D convolutions over 3 bars at distances 1, 2 and 4 (Bai, Kolter and Koltun 2018)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, padding=gap, dilation=gap) for gap in (1, 2, 4))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """[B, W, H] -> states [B, W, H] and that of the last bar [B, H]."""
        states = steps.transpose(1, 2)
        for layer in self.layers:
            states = states + self.dropout(functional.gelu(layer(states)))
        normed = self.norm(states.transpose(1, 2))
        return normed, normed[:, -1]
