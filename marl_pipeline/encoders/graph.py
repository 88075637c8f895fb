"""What a symbol's neighbours say: one round of message passing over a sparse graph, by gathering."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MessagePassing(nn.Module):
    """The weighted mean of the neighbours' messages, joined with the symbol's own state (Gilmer et al. 2017).

    Neighbours without a valid state send nothing and their weight goes to the others; a symbol that hears nothing
    keeps its own state alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.message = nn.Linear(width, width)
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.LayerNorm(width))

    def forward(self, states: Tensor, valid: Tensor, neighbours: Tensor, weights: Tensor) -> Tensor:
        """States [B, N, H], valid [B, N] bool, neighbours [B, N, k] int64 and weights [B, N, k] -> [B, N, H]."""
        bars, symbols, width = states.shape
        offset = torch.arange(bars, device=states.device)[:, None, None] * symbols
        flat = (neighbours + offset).reshape(-1)
        heard = weights * valid.reshape(-1)[flat].view_as(weights)
        heard = heard / heard.sum(dim=-1, keepdim=True).clamp_min(1e-6)
        sent = self.message(states).reshape(bars * symbols, width).index_select(0, flat)
        received = (sent.view(bars, symbols, -1, width) * heard[..., None]).sum(dim=2)
        updated: Tensor = self.update(torch.cat([states, received], dim=-1))
        return updated
