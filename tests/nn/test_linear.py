"""The layers of agents are theirs side by side, whoever shares what."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from marl_pipeline.nn.central_critics import CentralCritics
from marl_pipeline.nn.linear import AgentLayerNorm, AgentLinear, orthogonal, uniform
from marl_pipeline.nn.recurrent import GRU, RecurrentState
from marl_pipeline.nn.settings import NetworkSettings


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def weights_of(layer, replica, agent):
    """The weight and bias of one agent of one replica."""
    weight, bias = layer.weight[replica], layer.bias[replica]
    return weight[agent if len(weight) > 1 else 0], bias[agent if len(bias) > 1 else 0]


@pytest.mark.parametrize(("sets", "biases"), [(1, 1), (1, 3), (3, 3)])
@pytest.mark.parametrize("replicas", [None, 1, 2])
def test_a_linear_layer_of_agents_is_one_layer_for_each(sets, biases, replicas):
    linear = AgentLinear(5, 4, sets=sets, biases=biases, replicas=replicas, initial=uniform(), generator=generator())
    seen, common = rows(*([replicas] if replicas else []), 2, 6, 3, 5), rows(2, 6, 5, seed=1)
    found, of_common = linear(seen), linear.seen_by_all(common)
    for replica in range(replicas or 1):
        pick = (lambda tensor, replica=replica: tensor[replica]) if replicas else (lambda tensor: tensor)
        assert pick(of_common).shape == (2, 6, biases, 4)
        for agent in range(3):
            own = weights_of(linear, replica, agent)
            wanted = nn.functional.linear(pick(seen)[:, :, agent], *own)
            torch.testing.assert_close(pick(found)[:, :, agent], wanted)
            wanted = nn.functional.linear(common, *own)
            torch.testing.assert_close(pick(of_common)[:, :, agent if biases > 1 else 0], wanted)


@pytest.mark.parametrize("sets", [1, 3])
def test_layer_norms_of_agents_are_theirs_side_by_side(sets):
    norm, seen = AgentLayerNorm(5, sets), rows(2, 6, 3, 5)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, generator=generator(1))
    for agent in range(3):
        own = agent if sets == 3 else 0
        wanted = nn.functional.layer_norm(seen[:, :, agent], (5,), norm.weight[own], norm.bias[own])
        torch.testing.assert_close(norm(seen)[:, :, agent], wanted)


def test_initial_weights_are_those_of_their_scheme_and_of_the_generator_alone():
    def layer(initial, seed=0):
        return AgentLinear(64, 64, sets=2, replicas=2, initial=initial, generator=generator(seed))

    state = torch.random.get_rng_state()
    straight, spread = layer(orthogonal(3.0)), layer(uniform(0.5))
    for weight in straight.weight.flatten(0, 1):
        torch.testing.assert_close(weight @ weight.T, 9.0 * torch.eye(64), atol=1e-4, rtol=0)
    assert not bool(straight.bias.any())
    for values in (spread.weight, spread.bias):
        assert 0.9 * 0.5 / 8 < float(values.detach().abs().max()) <= 0.5 / 8
    assert len(spread.weight.flatten(0, 1).unique(dim=0)) == 4, "every set is drawn by itself"
    assert torch.equal(layer(uniform()).weight, layer(uniform()).weight)
    assert not torch.equal(layer(uniform()).weight, layer(uniform(), seed=1).weight)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("sets", [1, 3])
def test_the_gru_equals_torchs_and_forgets_at_starts_and_absences(sets):
    ours = GRU(5, 4, sets=sets, initial=uniform(), generator=generator())
    seen, memory = rows(6, 2, 3, 5), rows(2, 3, 4, seed=1)
    fresh, present = torch.zeros(6, 2, dtype=torch.bool), torch.ones(6, 2, 3, dtype=torch.bool)
    fresh[3, 1] = True
    present[2, 0, 1] = False
    found = ours(seen, RecurrentState(memory, fresh, present))
    for agent in range(3):
        theirs = nn.GRUCell(5, 4)
        with torch.no_grad():
            for parameters, layer in (((theirs.weight_ih, theirs.bias_ih), ours.of_input),
                                      ((theirs.weight_hh, theirs.bias_hh), ours.of_memory)):  # fmt: skip
                for place, given in zip(parameters, weights_of(layer, 0, agent), strict=True):
                    place.copy_(given)
        for sequence in range(2):
            kept = memory[sequence, agent]
            for step in range(6):
                kept = theirs(seen[step, sequence, agent], torch.zeros(4) if fresh[step, sequence] else kept)
                kept = kept * present[step, sequence, agent]
                torch.testing.assert_close(found[step, sequence, agent], kept)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_central_critic_of_agents_is_one_network_for_each(share, replicas):
    settings = NetworkSettings(hidden=(8, 6), activation="relu", recurrence="none", share_parameters=share)
    critics = CentralCritics(
        settings, width=7, slot=3, action_width=2, agents=2, replicas=replicas, generator=generator()
    )
    joint = rows(5, 7)
    found = critics(joint)
    assert found.shape == (replicas, 5, 2)
    for replica in range(replicas):
        for agent in range(2):
            hidden = joint
            for layer in (critics.first, *critics.hidden.layers):
                hidden = nn.functional.linear(hidden, *weights_of(layer, replica, agent)).relu()
            wanted = nn.functional.linear(hidden, *weights_of(critics.output, replica, agent)).squeeze(-1)
            torch.testing.assert_close(found[replica, :, agent], wanted)
