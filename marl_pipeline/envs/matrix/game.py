"""Two agents, a table of payoffs, a table of successors: a common-payoff Markov game in batched tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Discrete, GroupSpec, GroupStep, Timestep


class TabularGame:
    """Implements `envs.protocol.Environment`: one group `agents` of 2 that both see the state, one-hot.

    Both agents are paid the entry of the table, and so is the team: `team_reward` is that entry, not the sum of the
    agents' rewards, as the papers report it. An end is terminated, an episode that ends after `episode` steps is
    truncated. Nothing is random.

    Args:
        payoff: [S, n, n] float32, by state and the actions of the first and the second agent. Episodes start in
            state 0.
        successor: [S, n, n] int64, the next state; S stands for the end of the episode.
        episode: steps after which an episode is truncated; None where the table itself ends it.

    Attributes:
        optimum: what an episode of the best joint actions pays.
        payoff: [S, n, n], as above.
        best: [S, n, n] bool, the joint actions that are best at the start of an episode.

    `info` of a step: `optimal` [E], 1 where the joint action was one that the optimal joint policy may take, else 0.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        payoff: Tensor,
        successor: Tensor,
        episode: int | None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_envs, self.device = num_envs, torch.device(device)
        states, actions, _ = payoff.shape
        self.groups = {"agents": GroupSpec(2, {"state": (states,)}, Discrete(actions))}
        self.state_size = states
        self._episode, self._end = episode, states
        self._payoff = torch.cat([payoff, torch.zeros_like(payoff[:1])]).to(self.device)
        self._successor = torch.cat([successor, torch.full_like(successor[:1], states)]).to(self.device)
        self._best, self.optimum = self._best_play(states if episode is None else episode)
        self.payoff, self.best = self._payoff[:-1], self._best[-1, :-1]
        self._one_hot = torch.eye(states + 1, states, device=self.device)
        self._all = torch.ones(num_envs, 2, dtype=torch.bool, device=self.device)
        self._mask = torch.ones(num_envs, 2, actions, dtype=torch.bool, device=self.device)
        self._state = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._clock = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    def reset(self, where: Tensor | None = None) -> Timestep:
        """See the protocol."""
        if where is None:
            where = torch.ones_like(self._all[:, 0])
        self._state = self._state.masked_fill(where, 0)
        self._clock = self._clock.masked_fill(where, 0)
        return self._timestep(torch.zeros(self.num_envs, device=self.device), {})

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol."""
        first, second = actions["agents"].unbind(-1)
        reward = self._payoff[self._state, first, second]
        left = (
            torch.full_like(self._clock, -1)
            if self._episode is None
            else (self._episode - self._clock - 1).clamp(min=0)
        )
        optimal = self._best[left, self._state, first, second]
        self._state = self._successor[self._state, first, second]
        self._clock = self._clock + 1
        return self._timestep(reward, {"optimal": optimal.float()})

    def state_dict(self) -> dict[str, Any]:
        return {"state": self._state.cpu().clone(), "clock": self._clock.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._state, self._clock = state["state"].to(self.device), state["clock"].to(self.device)

    def _best_play(self, steps: int) -> tuple[Tensor, float]:
        """[steps, S + 1, n, n] whether a joint action is best with 1, 2, ... `steps` steps left, by dynamic
        programming, and what the optimal joint policy earns over all of them."""
        value, best = torch.zeros(self._end + 1, device=self.device), []
        for _ in range(steps):
            earned = self._payoff + value[self._successor]
            value = earned.flatten(1).amax(1)
            best.append(earned >= value[:, None, None] - 1e-4)
        return torch.stack(best), float(value[0])

    def _timestep(self, reward: Tensor, info: Mapping[str, Tensor]) -> Timestep:
        seen = self._one_hot[self._state]
        terminated = self._state == self._end
        truncated = torch.zeros_like(terminated) if self._episode is None else self._clock >= self._episode
        agents = GroupStep(
            observation={"state": seen.unsqueeze(1).expand(-1, 2, -1)},
            action_mask=self._mask,
            acts=self._all,
            present=self._all,
            reward=reward.unsqueeze(-1).expand(-1, 2),
            discount=(~terminated).float().unsqueeze(-1).expand(-1, 2),
        )
        return Timestep({"agents": agents}, seen, reward, terminated, truncated & ~terminated, info)
