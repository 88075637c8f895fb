"""Targets of a value from windows of consecutive steps that may run over the ends of episodes."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(reward: Tensor, discount: Tensor, next_value: Tensor, done: Tensor, td_lambda: float) -> Tensor:
    """TD(lambda) (Sutton & Barto 2018, eq. 12.20), [L, B]: G = r + d ((1 - lambda) V' + lambda G').

    Where an episode is done, and at the end of the window, G' is V'.

    Args:
        reward: [L, B] of the steps.
        discount: [L, B] gamma, and 0 where the episode terminated with the step.
        next_value: [L, B] the estimate V' of the state after each step.
        done: [L, B] bool, nothing after this step belongs to its episode, yet it has a value.
    """
    returns = torch.empty_like(next_value)
    later = next_value[-1]
    for k in range(len(reward) - 1, -1, -1):
        later = torch.where(done[k], next_value[k], torch.lerp(next_value[k], later, td_lambda))
        later = returns[k] = reward[k] + discount[k] * later
    return returns


def n_step_returns(reward: Tensor, discount: Tensor, next_value: Tensor, done: Tensor, n: int) -> Tensor:
    """Sum of `n` discounted rewards and the value after them, [L, B]; fewer where the episode or the window ends.

    The arguments are those of `lambda_returns`.
    """
    returns = reward + discount * next_value
    for _ in range(n - 1):
        longer = torch.cat([returns[1:], next_value[-1:]])
        returns = reward + discount * torch.where(done, next_value, longer)
    return returns
