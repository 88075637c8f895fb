"""The arithmetic of an update is counted, and beside the machine's own limit it is a share."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.algos.common.utilisation import Utilisation, utilisation
from tests.algos.learners import learner, settings
from tests.algos.targets import Targets


def test_operations_are_those_of_the_products():
    left, right = torch.ones(30, 40), torch.ones(40, 50)
    found = utilisation(lambda: left @ right, device=torch.device("cpu"), rounds=1)
    assert found.flops == 2 * 30 * 40 * 50
    assert found.seconds > 0
    assert found.peak > 1e8


def test_the_share_is_the_rate_over_the_peak():
    assert Utilisation(flops=3 * 10**9, seconds=0.5, peak=12e9).share == pytest.approx(0.5)


def test_twice_the_epochs_are_twice_the_operations():
    def flops(epochs):
        return learner(Targets(8, 0), settings("mappo", epochs=epochs)).utilisation(rounds=1).flops

    assert flops(6) == 2 * flops(3) > 0
