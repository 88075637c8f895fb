"""Advantages against a second, plain implementation, and by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.algos.common.gae import generalised_advantages


def plain(reward, discount, acts, value, done, final_value, last_value, gamma, lam):
    """One agent, as sums over the decisions that follow: no recursion shared with the implementation."""
    steps = len(reward)
    decisions = []  # (step, discounted reward, discount, next value, next decision in the same episode or None)
    for t in range(steps):
        if not acts[t]:
            continue
        total, factor, k = 0.0, 1.0, t
        while True:
            total += factor * reward[k]
            factor *= gamma * discount[k]
            if done[k]:
                decisions.append((t, total, factor, final_value[k], None))
                break
            k += 1
            if k == steps:
                decisions.append((t, total, factor, last_value, None))
                break
            if acts[k]:
                decisions.append((t, total, factor, value[k], k))
                break
    by_step = {}
    for t, total, factor, next_value, successor in reversed(decisions):
        delta = total + factor * next_value - value[t]
        by_step[t] = delta + (factor * lam * by_step[successor] if successor is not None else 0.0)
    return [by_step.get(t, 0.0) for t in range(steps)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.0, 1.0), st.floats(0.5, 1.0))
def test_advantages_equal_the_sums_they_stand_for(seed, steps, lam, gamma):
    draw = torch.Generator().manual_seed(seed)
    envs, agents = 3, 2

    def uniform(*shape):
        return torch.rand(shape, generator=draw, dtype=torch.float64)

    reward, value = uniform(steps, envs, agents) - 0.5, uniform(steps, envs, agents)
    discount = (uniform(steps, envs, agents) > 0.2).double()
    acts = uniform(steps, envs, agents) > 0.4
    done = uniform(steps, envs) > 0.75
    final_value, last_value = uniform(steps, envs, agents), uniform(envs, agents)
    result = generalised_advantages(
        reward=reward, discount=discount, acts=acts, value=value, done=done, final_value=final_value,
        last_value=last_value, gamma=gamma, gae_lambda=lam,
    )  # fmt: skip
    for e in range(envs):
        for a in range(agents):
            expected = plain(
                reward[:, e, a].tolist(), discount[:, e, a].tolist(), acts[:, e, a].tolist(), value[:, e, a].tolist(),
                done[:, e].tolist(), final_value[:, e, a].tolist(), last_value[e, a].item(), gamma, lam,
            )  # fmt: skip
            assert result.advantage[:, e, a].tolist() == pytest.approx(expected, abs=1e-12)
    live = acts
    assert torch.allclose(result.value_target[live], (result.advantage + value)[live])


def test_a_decision_every_second_step_earns_both_rewards():
    column = lambda *values: torch.tensor(values).reshape(-1, 1, 1)  # noqa: E731
    result = generalised_advantages(
        reward=column(1.0, 2.0, 3.0, 4.0),
        discount=torch.ones(4, 1, 1),
        acts=torch.tensor([True, False, True, False]).reshape(4, 1, 1),
        value=column(10.0, 99.0, 20.0, 99.0),
        done=torch.zeros(4, 1, dtype=torch.bool),
        final_value=torch.zeros(4, 1, 1),
        last_value=torch.full((1, 1), 40.0),
        gamma=0.5,
        gae_lambda=0.0,
    )
    # first: 1 + 0.5 x 2 + 0.25 x 20 - 10 = -3; second: 3 + 0.5 x 4 + 0.25 x 40 - 20 = -5
    assert result.advantage.flatten().tolist() == [-3.0, 0.0, -5.0, 0.0]
