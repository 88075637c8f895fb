"""Codes of actions: the straight-through Gumbel-softmax, masks, ranges; and the noise of exploration."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.algos.common.action_codes import Choices, action_code
from marl_pipeline.algos.common.noise import Noise
from marl_pipeline.envs.protocol import Continuous, Discrete, MultiDiscrete

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (Discrete(3), torch.tensor([[0, 2], [1, 1]])),
        (MultiDiscrete((3, 2)), torch.tensor([[[0, 1], [2, 0]]])),
        (Continuous(2, -2.0, 3.0), torch.tensor([[[-2.0, 3.0], [0.5, 1.25]]])),
    ],
)
def test_a_code_means_its_action(space, action):
    code = action_code(space, temperature=1.0)
    assert code.encode(action).shape == (*action.shape[: action.dim() - len(space.shape)], code.width)
    assert torch.equal(code.decode(code.encode(action)), action)


def draws(logits, mask, count, temperature=0.7):
    code = Choices((len(logits),), scalar=True, temperature=temperature)
    generator = torch.Generator().manual_seed(0)
    raw = logits.expand(count, -1).clone().requires_grad_()
    return raw, code.sample(raw, mask.expand(count, -1), code.noise(raw.shape, generator, CPU))


def test_draws_are_one_hot_and_follow_the_probabilities():
    logits, mask = torch.tensor([0.0, 1.0, 2.0, 5.0]), torch.tensor([True, True, True, False])
    _, drawn = draws(logits, mask, 200_000)
    assert bool(((drawn == 0) | (drawn == 1)).all())
    assert torch.equal(drawn.sum(-1), torch.ones(200_000))
    wanted = logits.masked_fill(~mask, -torch.inf).softmax(-1)
    assert torch.allclose(drawn.detach().mean(0), wanted, atol=5e-3)
    assert not bool(drawn[:, 3].any())


def test_the_gradient_is_that_of_the_relaxed_draw():
    logits, mask = torch.tensor([0.0, 1.0, 2.0, 5.0]), torch.tensor([True, True, True, False])
    raw, drawn = draws(logits, mask, 50)
    weight = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    (drawn * weight).sum().backward()
    again = logits.expand(50, -1).clone().requires_grad_()
    gumbel = Choices((4,), scalar=True, temperature=1.0).noise(raw.shape, torch.Generator().manual_seed(0), CPU)
    soft = (((again + gumbel) / 0.7)[:, :3]).softmax(-1)
    (soft * weight[:, :3]).sum().backward()
    assert torch.allclose(raw.grad, again.grad, atol=1e-6)
    assert not bool(raw.grad[:, 3].any())
    assert bool(raw.grad[:, :3].any())


def test_without_noise_a_draw_is_the_best_allowed_action():
    code = Choices((3, 2), scalar=False, temperature=1.0)
    raw = torch.tensor([5.0, 1.0, 2.0, 0.0, 1.0])
    mask = torch.tensor([False, True, True, True, False])
    assert code.decode(code.sample(raw, mask, torch.zeros(5))).tolist() == [2, 0]


@pytest.mark.parametrize("space", [MultiDiscrete((4, 3)), Continuous(2, -1.0, 1.0)])
def test_uniform_draws_are_allowed_and_even(space):
    code = action_code(space, temperature=1.0)
    noise = code.noise(torch.Size((100_000, code.width)), torch.Generator().manual_seed(0), CPU)
    mask = torch.tensor([True, True, False, True, False, True, True])[: space.mask_width].expand(100_000, -1)
    drawn = code.uniform(mask, noise)
    if isinstance(space, Continuous):
        quarters = torch.histc(drawn, 4, -1, 1) / drawn.numel()
        assert torch.allclose(quarters, torch.full((4,), 0.25), atol=5e-3)
    else:
        wanted = torch.tensor([1 / 3, 1 / 3, 0, 1 / 3, 0, 1 / 2, 1 / 2])
        assert torch.allclose(drawn.mean(0), wanted, atol=5e-3)


def noise(kind):
    schedule = {"kind": "constant", "start": 0.3, "end": 0.3, "share": 1.0}
    return Noise.model_validate({"kind": kind, "scale": schedule, "reversion": 0.2})


@pytest.mark.parametrize(("kind", "correlation"), [("gaussian", 0.0), ("ornstein_uhlenbeck", 0.8)])
def test_noise_has_unit_deviation_and_its_memory(kind, correlation):
    process, generator = noise(kind), torch.Generator().manual_seed(0)
    state, path = torch.zeros(20_000), []
    for _ in range(40):
        state = process.after(state, torch.randn(20_000, generator=generator))
        path.append(state)
    assert float(path[-1].std()) == pytest.approx(1.0, abs=0.02)
    assert float((path[-1] * path[-2]).mean()) == pytest.approx(correlation, abs=0.02)
