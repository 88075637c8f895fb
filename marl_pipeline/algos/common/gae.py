"""Advantages for agents that decide on clocks of their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Advantages:
    """[L, E, A] each; entries where the agent did not act are 0 and carry no meaning."""

    advantage: Tensor
    value_target: Tensor


def generalised_advantages(
    *,
    reward: Tensor,
    discount: Tensor,
    acts: Tensor,
    value: Tensor,
    done: Tensor,
    final_value: Tensor,
    last_value: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Advantages:
    """GAE(lambda) (Schulman et al. 2016, eq. 16) between one decision of an agent and its next.

    An agent that decides every k steps is in a semi-Markov process: the reward of a decision is the discounted sum
    of the k rewards until the next one, and its discount the product of the k discounts (Sutton, Precup & Singh
    1999). With `acts` true throughout this is the usual recursion.

    Args:
        reward, discount: [L, E, A] of the transition from step t to t + 1; `discount` is the environment's.
        acts: [L, E, A] bool, the agent decided at step t, or what follows is to be distinguished from what went before.
        value: [L, E, A] the critic's estimate at step t.
        done: [L, E] bool, the episode ended with the transition of step t; or [L, E, A], the agent's part in it did.
        final_value: [L, E, A] the critic's estimate of the state in which it ended (`discount` is 0 where terminated).
        last_value: [E, A] the estimate after the last step.
        gamma, gae_lambda: the learner's discount per step and its bias-variance trade-off.
    """
    if done.dim() < reward.dim():
        done = done.unsqueeze(-1)
    advantage = torch.zeros_like(value)
    next_value = last_value
    next_advantage = torch.zeros_like(last_value)
    pending = torch.zeros_like(last_value)  # discounted reward since step t until the next decision
    pending_discount = torch.ones_like(last_value)
    for t in range(len(reward) - 1, -1, -1):
        ended = done[t]
        next_value = torch.where(ended, final_value[t], next_value)
        next_advantage = next_advantage.masked_fill(ended, 0.0)
        pending = pending.masked_fill(ended, 0.0)
        pending_discount = pending_discount.masked_fill(ended, 1.0)

        step_discount = gamma * discount[t]
        pending = reward[t] + step_discount * pending
        pending_discount = step_discount * pending_discount
        delta = pending + pending_discount * next_value - value[t]
        decided = delta + pending_discount * gae_lambda * next_advantage

        decides = acts[t]
        advantage[t] = torch.where(decides, decided, 0.0)
        next_advantage = torch.where(decides, decided, next_advantage)
        next_value = torch.where(decides, value[t], next_value)
        pending = pending.masked_fill(decides, 0.0)
        pending_discount = pending_discount.masked_fill(decides, 1.0)
    return Advantages(advantage, torch.where(acts, advantage + value, 0.0))
