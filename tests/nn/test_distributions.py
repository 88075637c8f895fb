"""Our distributions against torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch import distributions as reference

from marl_pipeline.envs.protocol import Continuous, Discrete, MultiDiscrete
from marl_pipeline.nn.distributions import distribution, parameter_count

SPACES = [Discrete(5), MultiDiscrete((3, 4, 2)), Continuous(3, -2.0, 1.0)]
NO_MASK = torch.ones(0, dtype=torch.bool)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def masked(batch, sizes, seed=0):
    """Logits and a mask with at least one allowed action in every choice."""
    draw = generator(seed)
    logits = torch.randn(batch, sum(sizes), generator=draw, dtype=torch.float64) * 2
    mask = torch.rand(batch, sum(sizes), generator=draw) > 0.4
    first = 0
    for size in sizes:
        mask[:, first] |= ~mask[:, first : first + size].any(-1)
        first += size
    return logits, mask


def references(logits, mask, sizes):
    parts = zip(logits.split(sizes, -1), mask.split(sizes, -1), strict=True)
    return [reference.Categorical(logits=part.masked_fill(~allowed, -torch.inf)) for part, allowed in parts]


@pytest.mark.parametrize("space", [Discrete(5), MultiDiscrete((3, 4, 2))])
def test_categoricals_equal_torchs(space):
    sizes = (space.n,) if isinstance(space, Discrete) else space.sizes
    logits, mask = masked(200, sizes)
    ours, theirs = distribution(space, logits, mask), references(logits, mask, sizes)
    action = ours.sample(generator())
    choices = action.unsqueeze(-1) if isinstance(space, Discrete) else action
    log_prob = sum(their.log_prob(choices[:, k]) for k, their in enumerate(theirs))
    torch.testing.assert_close(ours.log_prob(action), log_prob)
    # torch's own entropy of a masked choice takes the smallest number for -inf; its sum is right where masked is 0
    plain = [their.probs * torch.where(their.probs > 0, their.probs, 1.0).log() for their in theirs]
    torch.testing.assert_close(ours.entropy(), -sum(part.sum(-1) for part in plain))
    mode = ours.mode().reshape(200, -1)
    assert torch.equal(mode, torch.stack([their.probs.argmax(-1) for their in theirs], -1))


@pytest.mark.parametrize("sizes", [(5,), (3, 4, 2)])
def test_what_is_masked_is_never_drawn_and_has_no_gradient(sizes):
    space = Discrete(sizes[0]) if len(sizes) == 1 else MultiDiscrete(sizes)
    logits, mask = masked(4096, sizes, seed=1)
    logits.requires_grad_()
    ours = distribution(space, logits, mask)
    drawn = ours.sample(generator(2)).reshape(4096, -1)
    first = 0
    for k, size in enumerate(sizes):
        assert mask[:, first : first + size].gather(-1, drawn[:, k : k + 1]).all()
        first += size
    (ours.log_prob(drawn.squeeze(-1)) + ours.entropy()).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[~mask].any()
    assert logits.grad[mask].any()


def squashed_reference(parameters, space):
    mean, log_std = parameters.chunk(2, -1)
    half = (space.high - space.low) / 2
    moves = [reference.TanhTransform(cache_size=1), reference.AffineTransform(space.low + half, half)]
    return reference.TransformedDistribution(reference.Normal(mean, log_std.exp()), moves)


def gaussian_parameters(batch, size, seed=0):
    draw = generator(seed)
    mean = torch.randn(batch, size, generator=draw, dtype=torch.float64)
    log_std = torch.rand(batch, size, generator=draw, dtype=torch.float64) * 2 - 1.5
    return torch.cat([mean, log_std], -1)


def test_a_squashed_gaussian_equals_torchs():
    space = Continuous(3, -2.0, 1.0)
    parameters = gaussian_parameters(500, 3)
    ours, theirs = distribution(space, parameters, NO_MASK), squashed_reference(parameters, space)
    action = ours.sample(generator())
    assert ((action > -2.0) & (action < 1.0)).all()
    action = action.clamp(-1.9999, 0.9999)  # nearer to the bounds ours is held
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action).sum(-1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.mode(), -0.5 + 1.5 * parameters[:, :3].tanh())


def test_the_entropy_of_a_squashed_gaussian_is_the_mean_of_minus_its_log_density():
    space = Continuous(2, 0.0, 1.0)
    parameters = gaussian_parameters(6, 2, seed=3)
    torch.manual_seed(0)
    drawn = squashed_reference(parameters, space).sample((400_000,))
    ours = distribution(space, parameters, NO_MASK)
    monte_carlo = -ours.log_prob(drawn).mean(0)
    torch.testing.assert_close(ours.entropy(), monte_carlo, atol=5e-3, rtol=0)


def test_a_squashed_action_keeps_its_bounds_to_the_last_bit():
    space = Continuous(1, 0.1, 0.9)
    parameters = torch.tensor([[-20.0, 0.0], [20.0, 0.0]])
    low, high = distribution(space, parameters, NO_MASK).mode().flatten()
    assert (low, high) == (torch.tensor(0.1), torch.tensor(0.9))


def test_a_squashed_action_at_its_bound_has_a_finite_density():
    ours = distribution(Continuous(1, 0.0, 1.0), torch.tensor([[40.0, 0.0], [-40.0, 0.0]]), NO_MASK)
    assert ours.mode().flatten().tolist() == [1.0, 0.0]
    assert torch.isfinite(ours.log_prob(ours.mode())).all()


@pytest.mark.parametrize("space", SPACES)
def test_samples_have_the_spaces_shape_and_their_generator_decides(space):
    parameters = torch.randn(7, 2, parameter_count(space), generator=generator())
    ours = distribution(space, parameters, torch.ones(7, 2, space.mask_width, dtype=torch.bool))
    drawn = ours.sample(generator(5))
    assert drawn.shape == (7, 2, *space.shape)
    assert drawn.dtype == space.dtype
    assert torch.equal(drawn, ours.sample(generator(5)))
    assert not torch.equal(drawn, ours.sample(generator(6)))
    assert ours.mode().shape == drawn.shape
    assert ours.log_prob(drawn).shape == ours.entropy().shape == (7, 2)


def test_gaussian_draws_follow_the_density():
    parameters = torch.tensor([0.3, -0.5]).expand(200_000, 2)
    drawn = distribution(Continuous(1, -1.0, 1.0), parameters, NO_MASK).sample(generator(1)).atanh()
    assert float(drawn.mean()) == pytest.approx(0.3, abs=5e-3)
    assert float(drawn.std().log()) == pytest.approx(-0.5, abs=1e-2)
