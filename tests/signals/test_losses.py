"""The classifiers' loss and calibration by known answers, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from marl_pipeline.data.dataset import Dataset
from marl_pipeline.data.windows import Refit, Span
from marl_pipeline.signals.calibration import BOUNDS, fit_temperature, log_loss, log_softmax
from marl_pipeline.signals.fit import _epoch, _Task
from marl_pipeline.signals.labels import Labels
from marl_pipeline.signals.samples import Samples, Windows
from tests.signals.learnable_market import WINDOW, learnable_market, signal_params


@pytest.fixture(scope="module")
def market() -> Dataset:
    return learnable_market()


def test_the_log_loss_of_known_probabilities() -> None:
    said = log_softmax(np.log(np.array([[2.0, 1.0, 1.0], [1.0, 8.0, 1.0]])))
    np.testing.assert_allclose(np.exp(said), [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    assert log_loss(said, np.array([0, 1])) == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)
    assert log_loss(said, np.array([1, 0])) == pytest.approx(-(math.log(0.25) + math.log(0.1)) / 2)


def test_logits_that_are_too_sure_are_divided_by_a_known_temperature() -> None:
    """(log 8, 0, 0) says 0.8 of what happens half of the time: at T = 3 it says 2 / (2 + 1 + 1) = 0.5."""
    logits = np.tile([math.log(8.0), 0.0, 0.0], (8, 1))
    assert fit_temperature(logits, np.array([0, 0, 0, 0, 1, 1, 2, 2])) == pytest.approx(3.0, rel=1e-3)


def test_logits_that_are_too_shy_are_divided_by_less_than_one() -> None:
    """(log 2, 0, 0) says 0.5 of what happens 4 times in 5: at T = 1/3 it says 8 / (8 + 1 + 1) = 0.8."""
    logits = np.tile([math.log(2.0), 0.0, 0.0], (10, 1))
    assert fit_temperature(logits, np.array([0] * 8 + [1, 2])) == pytest.approx(1 / 3, rel=1e-3)


def test_a_classifier_that_is_always_wrong_is_made_as_unsure_as_the_bounds_allow() -> None:
    logits = np.tile([3.0, 0.0, 0.0], (10, 1))
    assert fit_temperature(logits, np.array([1, 2] * 5)) == pytest.approx(BOUNDS[1], rel=1e-2)


def task(dataset: Dataset, classes: list[int]) -> _Task:
    """A fit on one bar a class, all of the first symbol."""
    bars = np.arange(100, 100 + len(classes))
    labels = np.zeros(dataset.valid.shape, dtype=np.int64)
    labels[bars, 0] = classes
    rows = Samples(bars, np.zeros(len(classes), dtype=np.int64))
    params = signal_params(batch_size=len(classes), dropout=0.0)
    windows = Windows.of(dataset, WINDOW, torch.device("cpu"))
    known = Labels(labels, np.zeros(dataset.valid.shape), reach=1)
    return _Task("MLP72", Refit(0, 300, Span(300, 400)), rows, rows, windows, known, params, 0, torch.device("cpu"))


class Constant(nn.Module):
    """The same logits for every window."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(windows), 3)


def test_an_epoch_descends_the_cross_entropy_of_what_happened(market: Dataset) -> None:
    """Probabilities (1/2, 1/4, 1/4), classes 0, 2, 2, 2: loss (log 2 + 3 log 4) / 4, slopes p - share of each class."""
    model = Constant([math.log(2.0), 0.0, 0.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loss = _epoch(model, optimizer, task(market, [0, 2, 2, 2]), 0)
    assert loss == pytest.approx((math.log(2.0) + 3 * math.log(4.0)) / 4, rel=1e-5)
    slope = [0.5 - 0.25, 0.25 - 0.0, 0.25 - 0.75]
    assert model.logits.grad is not None
    assert model.logits.grad.tolist() == pytest.approx(slope, abs=1e-5)
    moved = [math.log(2.0) - slope[0], -slope[1], -slope[2]]
    assert model.logits.tolist() == pytest.approx(moved, abs=1e-5), "what happened more often becomes likelier"
