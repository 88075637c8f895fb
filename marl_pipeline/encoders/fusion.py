"""Several views of one thing become one vector: each dimension weighs the views for itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GatedFusion(nn.Module):
    """Per-dimension softmax gates over projected views (after Arevalo et al. 2017, "Gated multimodal units"),
    then a LayerNorm without weights: every embedding has mean 0 and variance 1 across its dimensions."""

    def __init__(self, views: int, width: int, embedding: int) -> None:
        super().__init__()
        self.views = views
        self.project = nn.ModuleList(nn.Linear(width, embedding) for _ in range(views))
        self.gate = nn.Linear(views * width, views * embedding)
        self.norm = nn.LayerNorm(embedding, elementwise_affine=False)

    def forward(self, *views: Tensor) -> Tensor:
        """V tensors [B, N, H] -> [B, N, D]."""
        gates = self.gate(torch.cat(views, dim=-1)).unflatten(-1, (self.views, -1)).softmax(dim=-2)
        projected = torch.stack([torch.tanh(layer(view)) for layer, view in zip(self.project, views, strict=True)], -2)
        embedding: Tensor = self.norm((gates * projected).sum(dim=-2))
        return embedding
