"""Masked forecasting: the encoder learns without labels, by filling in what was hidden and foreseeing what comes.

Reconstruction of masked values after Zerveas et al. (2021), "A transformer-based framework for multivariate time
series representation learning"; the forecast heads see the embedding only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_pipeline.config import PretrainEncoderParams
from marl_pipeline.encoders.encoder import Encoder
from marl_pipeline.encoders.source import Source


class Losses(NamedTuple):
    """Means over what is known: `reconstruction` of masked values, `forecast` over all horizons."""

    reconstruction: Tensor
    forecast: Tensor

    @property
    def total(self) -> Tensor:
        return self.reconstruction + self.forecast

    def as_metrics(self) -> dict[str, float]:
        return {
            "loss": self.total.item(),
            "reconstruction_loss": self.reconstruction.item(),
            "forecast_loss": self.forecast.item(),
        }


class MaskedForecaster(nn.Module):
    """The encoder with the heads that pre-training needs and nobody afterwards."""

    def __init__(self, window: int, features: int, params: PretrainEncoderParams) -> None:
        super().__init__()
        self.horizons = params.horizons
        self.mask_fraction = params.mask_fraction
        self.encoder = Encoder(window, features, params)
        self.recall = nn.Linear(params.embedding, params.width)
        self.restore = nn.Linear(params.width, features)
        self.foresee = nn.Linear(params.embedding, len(params.horizons) * (features + 1))

    def losses(self, source: Source, bars: Tensor, generator: torch.Generator) -> Losses:
        """The losses at [B] bars, all of which have the longest horizon within the data that may be seen."""
        cross = source.at(bars)
        mask = draw_mask(cross.windows.shape, self.mask_fraction, generator)
        embedding, states = self.encoder(cross, mask)
        restored = self.restore(functional.gelu(states + self.recall(embedding)[:, :, None]))
        hidden = mask & cross.valid[..., None, None]
        reconstruction = _mean_where(_huber(restored, cross.windows), hidden)
        foreseen = self.foresee(embedding).unflatten(-1, (len(self.horizons), -1))
        forecasts = []
        for place, horizon in enumerate(self.horizons):
            target, known = source.ahead(bars, horizon)
            forecasts.append(_mean_where(_huber(foreseen[:, :, place], target), known[..., None].expand_as(target)))
        return Losses(reconstruction, torch.stack(forecasts).mean())


def draw_mask(shape: torch.Size, fraction: float, generator: torch.Generator) -> Tensor:
    """[B, N, W, F] bool with `fraction` of the values hidden: about half of them whole bars, which neighbours in
    time must give back, half single values, which other features of the bar can."""
    part = 1.0 - (1.0 - fraction) ** 0.5
    device = generator.device
    bars = torch.rand(shape[:3], generator=generator, device=device) < part
    values = torch.rand(shape, generator=generator, device=device) < part
    mask: Tensor = bars[..., None] | values
    return mask


def _huber(predicted: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = functional.huber_loss(predicted, target, reduction="none")
    return loss


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp_min(1)
