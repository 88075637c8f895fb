"""Random play keeps to the masks and bounds, reaches all that is allowed, and is fixed by its generator."""

from __future__ import annotations

import torch

from marl_pipeline.envs.protocol import Continuous, Discrete, MultiDiscrete
from marl_pipeline.envs.sampling import RandomPolicy, random_action
from tests.envs.menagerie import Menagerie


def test_one_choice_is_uniform_over_what_is_allowed() -> None:
    mask = torch.tensor([[[True, False, True, True]]]).expand(3000, 1, 4)
    drawn = random_action(Discrete(4), mask, torch.Generator().manual_seed(0))
    assert drawn.shape == (3000, 1)
    counts = torch.bincount(drawn.flatten(), minlength=4)
    assert counts[1] == 0
    assert (counts[[0, 2, 3]] - 1000).abs().max() < 100  # 4 standard deviations


def test_several_choices_keep_to_their_own_masks() -> None:
    mask = torch.tensor([[[True, False, False, True, True]]]).expand(500, 1, 5)
    drawn = random_action(MultiDiscrete((2, 3)), mask, torch.Generator().manual_seed(0))
    assert drawn.shape == (500, 1, 2)
    assert set(drawn[..., 0].flatten().tolist()) == {0}
    assert set(drawn[..., 1].flatten().tolist()) == {1, 2}


def test_numbers_fill_their_bounds() -> None:
    drawn = random_action(Continuous(2, -1.0, 3.0), torch.ones(2000, 1, 0, dtype=torch.bool), torch.Generator())
    assert drawn.shape == (2000, 1, 2)
    assert drawn.dtype == torch.float32
    assert -1.0 <= drawn.min() < -0.9
    assert 2.9 < drawn.max() <= 3.0


def test_a_seed_fixes_random_play() -> None:
    env = Menagerie(5, seed=0)
    step = env.reset()
    first, again, other = (RandomPolicy(env.groups, seed).act(step, {}, None)[0] for seed in (1, 1, 2))
    assert all(torch.equal(first[group], again[group]) for group in env.groups)
    assert not torch.equal(first["drivers"], other["drivers"])
