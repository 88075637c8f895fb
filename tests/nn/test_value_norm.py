from __future__ import annotations

import torch

from marl_pipeline.nn.value_norm import ValueNorm


def test_denormalise_undoes_normalise():
    norm = ValueNorm()
    targets = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 7 + 30
    norm.update(targets)
    assert torch.allclose(norm.denormalise(norm.normalise(targets)), targets, atol=1e-4)


def test_first_update_standardises_its_own_batch():
    norm = ValueNorm()
    targets = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 7 + 30
    norm.update(targets)
    scaled = norm.normalise(targets)
    assert abs(float(scaled.mean())) < 1e-3
    assert abs(float(scaled.std()) - 1) < 1e-2


def test_before_any_update_values_pass_through():
    values = torch.tensor([-2.0, 0.0, 5.0])
    assert torch.equal(ValueNorm().denormalise(values), values)
