"""What symbol agents intend, pooled for the master."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.agents.intents import pooled_intents


def test_intents_are_pooled_over_the_symbols_that_can_act():
    logits = torch.zeros(1, 3, 2)
    logits[0, 0] = torch.tensor([0.0, 2.0])
    logits[0, 2] = torch.tensor([0.0, 50.0])  # cannot act: must not count
    mask = torch.tensor([[[True, True], [True, True], [True, False]]])
    p = float(torch.tensor(2.0).sigmoid())
    pooled = pooled_intents(logits, mask)[0].tolist()
    assert pooled == pytest.approx([(0.5 + 1 - p) / 2, (0.5 + p) / 2, 0.5, p], abs=1e-6)


def test_nobody_free_to_act_is_all_zeros_and_finite():
    mask = torch.zeros(2, 3, 7, dtype=torch.bool)
    mask[..., 0] = True
    assert torch.equal(pooled_intents(torch.randn(2, 3, 7), mask), torch.zeros(2, 14))
