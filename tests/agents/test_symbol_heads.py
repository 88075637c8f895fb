"""Heads keyed by symbol over a shared prior: listings and delistings need no new network."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.agents.master import pooled_intents
from marl_pipeline.agents.symbol import SymbolNetwork, rekey_heads


def network(symbols: int) -> SymbolNetwork:
    module = SymbolNetwork(inputs=5, symbols=symbols, actions=7, hidden=(8,), actor_gain=1.0, seed=3)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        module.actor_correction.copy_(torch.randn(module.actor_correction.shape, generator=generator))
        module.critic_correction.copy_(torch.randn(module.critic_correction.shape, generator=generator))
    return module


def test_each_symbol_has_its_own_head_on_the_shared_trunk():
    module, rows = network(3), torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    logits, values = module(rows)
    for n in range(3):
        hidden = module.trunk(rows[:, n])
        expected = module.actor(hidden) + hidden @ module.actor_correction[n]
        assert torch.allclose(logits[:, n], expected, atol=1e-6)
        assert torch.allclose(
            values[:, n], module.critic(hidden).squeeze(-1) + hidden @ module.critic_correction[n], atol=1e-6
        )


def test_a_fresh_network_gives_every_symbol_the_same_prior():
    module = SymbolNetwork(inputs=5, symbols=4, actions=7, hidden=(8,), actor_gain=1.0, seed=0)
    row = torch.randn(1, 1, 5, generator=torch.Generator().manual_seed(0)).expand(1, 4, 5)
    logits, values = module(row)
    assert torch.allclose(logits, logits[:, :1].expand_as(logits))
    assert torch.allclose(values, values[:, :1].expand_as(values))


def test_rekeyed_heads_follow_their_symbol():
    old = network(3)
    weights = rekey_heads(old.state_dict(), ["A", "B", "C"], ["C", "NEW", "A"])
    new = SymbolNetwork(inputs=5, symbols=3, actions=7, hidden=(8,), actor_gain=1.0, seed=9)
    new.load_state_dict(weights)
    row = torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(0)).expand(2, 3, 5)
    before, after = old(row)[0], new(row)[0]
    assert torch.allclose(after[:, 0], before[:, 2], atol=1e-6)
    assert torch.allclose(after[:, 2], before[:, 0], atol=1e-6)
    assert torch.allclose(after[:, 1], new.actor(new.trunk(row[:, 1])), atol=1e-6)


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
