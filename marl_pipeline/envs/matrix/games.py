"""The games of the literature: two-step (Rashid et al. 2018), climbing and penalty (Claus & Boutilier 1998).

They are fully known, so `seed` changes nothing; it is taken because every environment takes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_pipeline.envs.matrix.game import TabularGame
from marl_pipeline.errors import UserError


def two_step(num_envs: int, *, seed: int, device: torch.device | str = "cpu") -> TabularGame:
    """The two-step game of the QMIX paper (Rashid et al. 2018, section 5).

    The first agent's first action picks the second step's table: 0 the safe one, which pays 7 whatever is played, 1
    the one that pays 8 if both play 1. VDN learns the safe 7, QMIX the optimal 8.
    """
    del seed
    payoff = torch.zeros(3, 2, 2)
    payoff[1] = 7.0
    payoff[2] = torch.tensor([[0.0, 1.0], [1.0, 8.0]])
    successor = torch.full((3, 2, 2), 3)
    successor[0] = torch.tensor([[1, 1], [2, 2]])
    return TabularGame(num_envs, payoff=payoff, successor=successor, episode=None, device=device)


def climbing(num_envs: int, *, seed: int, device: torch.device | str = "cpu", episode: int = 25) -> TabularGame:
    """The climbing game, repeated: its optimum of 11 a step lies beside -30; over 25 steps it pays 275."""
    del seed
    table = torch.tensor([[11.0, -30.0, 0.0], [-30.0, 7.0, 0.0], [0.0, 6.0, 5.0]])
    return _repeated(num_envs, table, episode, device)


def penalty(
    num_envs: int, *, seed: int, device: torch.device | str = "cpu", episode: int = 25, penalty: float = -25.0
) -> TabularGame:
    """The penalty game, repeated: 10 a step for meeting at either corner, `penalty` for missing each other there, 2
    for the safe middle. Over 25 steps the optimum pays 250, the middle 50."""
    del seed
    table = torch.tensor([[penalty, 0.0, 10.0], [0.0, 2.0, 0.0], [10.0, 0.0, penalty]])
    return _repeated(num_envs, table, episode, device)


def _repeated(num_envs: int, table: Tensor, episode: int, device: torch.device | str) -> TabularGame:
    """One state, always observed as the number 1; truncated after `episode` steps (Papoudakis et al. 2021)."""
    if episode < 1:
        raise UserError(f"matrix game: an episode has at least 1 step, found episode={episode}")
    payoff = table.unsqueeze(0)
    return TabularGame(
        num_envs, payoff=payoff, successor=torch.zeros_like(payoff, dtype=torch.int64), episode=episode, device=device
    )
