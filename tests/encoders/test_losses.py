"""The loss of masked forecasting by known answers: which values count, against what, and by how much."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from marl_pipeline.encoders import masked
from marl_pipeline.encoders.encoder import Cross
from marl_pipeline.encoders.masked import MaskedForecaster
from marl_pipeline.encoders.source import Source
from tests.signals.learnable_market import encoder_params

BARS, WINDOW = 6, 2


def source() -> Source:
    """Two symbols, one feature: 0.5, 1, ... 3 for the first; the second is 10 throughout and not valid at bar 3.
    The first's log close rises by 0.25 a bar, at a volatility of 0.5; the second's volatility is unknown."""
    features = torch.stack([torch.arange(1, BARS + 1) * 0.5, torch.full((BARS,), 10.0)], -1).unsqueeze(-1)
    valid = torch.ones(BARS, 2, dtype=torch.bool)
    valid[3, 1] = False
    return Source(
        window=WINDOW,
        features=features,
        windows=features.unfold(0, WINDOW, 1),
        valid=valid,
        block=torch.zeros(BARS, dtype=torch.int64),
        neighbours=torch.zeros(1, 2, 1, dtype=torch.int64),
        weights=torch.zeros(1, 2, 1),
        level=torch.stack([torch.arange(BARS) * 0.25, torch.zeros(BARS)], -1),
        volatility=torch.tensor([0.5, 0.0]).expand(BARS, 2),
    )


class Blind(nn.Module):
    """An encoder that says nothing and keeps the mask it was given."""

    def __init__(self, embedding: int, width: int) -> None:
        super().__init__()
        self.embedding, self.width = embedding, width
        self.mask: Tensor | None = None

    def forward(self, cross: Cross, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.mask = mask
        bars, symbols, window, _ = cross.windows.shape
        return torch.zeros(bars, symbols, self.embedding), torch.zeros(bars, symbols, window, self.width)


def forecaster(restored: float, foreseen: list[float], horizons: tuple[int, ...]) -> MaskedForecaster:
    """Heads that say the same of everything; a forecast is the feature and the return of each horizon."""
    params = encoder_params(horizons=horizons)
    model = MaskedForecaster(WINDOW, 1, params)
    model.encoder = Blind(params.embedding, params.width)
    for layer in (model.recall, model.restore, model.foresee):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        model.restore.bias.fill_(restored)
        model.foresee.bias.copy_(torch.tensor(foreseen))
    return model


def huber(error: float) -> float:
    return 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5


def test_only_hidden_values_of_valid_symbols_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """At bars 2 and 3, windows (1, 1.5) and (1.5, 2) of the first symbol; hidden: 1, 2 and, at bar 3 where it does not
    count, 10 of the second; and 10 at bar 2, where it does."""
    hidden = torch.zeros(2, 2, WINDOW, 1, dtype=torch.bool)
    hidden[0, 0, 0] = hidden[1, 0, 1] = hidden[1, 1, 1] = hidden[0, 1, 0] = True
    monkeypatch.setattr(masked, "draw_mask", lambda shape, fraction, generator: hidden)
    model = forecaster(0.25, [0.0, 0.0], (1,))
    losses = model.losses(source(), torch.tensor([2, 3]), torch.Generator())
    wanted = [huber(0.75), huber(1.75), huber(9.75)]
    assert float(losses.reconstruction.detach()) == pytest.approx(sum(wanted) / 3, rel=1e-6)
    assert model.encoder.mask is hidden, "the encoder does not see what it is to restore"
    losses.reconstruction.backward()
    assert float(model.restore.bias.grad) == pytest.approx((-0.75 - 1.0 - 1.0) / 3, rel=1e-6)


def test_the_forecast_is_held_against_the_bar_ahead_and_the_return_until_then() -> None:
    """From bar 2 of the first symbol: one bar on the feature is 2 and the return 0.25 / 0.5; two bars on 2.5 and
    0.5 / (0.5 sqrt 2). The second symbol has no volatility yet and does not count."""
    foreseen = [2.5, 0.0, 2.5, 1.0]
    losses = forecaster(0.0, foreseen, (1, 2)).losses(source(), torch.tensor([2]), torch.Generator())
    one = (huber(0.5) + huber(0.5)) / 2
    two = (huber(0.0) + huber(1.0 - 1.0 / math.sqrt(2.0))) / 2
    assert float(losses.forecast.detach()) == pytest.approx((one + two) / 2, rel=1e-6)


def test_the_forecast_descends_towards_what_came() -> None:
    model = forecaster(0.0, [2.5, 0.0], (1,))
    model.losses(source(), torch.tensor([2]), torch.Generator()).forecast.backward()
    assert model.foresee.bias.grad is not None
    assert model.foresee.bias.grad.tolist() == pytest.approx([0.5 / 2, -0.5 / 2], rel=1e-6)


def test_the_total_is_the_sum_and_nothing_known_costs_nothing() -> None:
    losses = masked.Losses(torch.tensor(0.75), torch.tensor(2.0))
    assert float(losses.total) == 2.75
    assert losses.as_metrics() == {"loss": 2.75, "reconstruction_loss": 0.75, "forecast_loss": 2.0}
    everywhere = torch.zeros(2, 2, dtype=torch.bool)
    assert float(masked._mean_where(torch.ones(2, 2), everywhere)) == 0.0
