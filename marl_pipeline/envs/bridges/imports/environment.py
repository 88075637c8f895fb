"""Copies of an outside environment, stepped one after the other, as one environment of the protocol.

Their state is saved as the seed of the episode and the actions played since, and restored by playing them again: no
object of theirs is ever unpickled, so that loading a checkpoint runs no code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from torch import Tensor

from marl_pipeline.envs.bridges.imports.seats import FIELD, Board, Seats, World
from marl_pipeline.envs.bridges.imports.spaces import mask_row, observation_row
from marl_pipeline.envs.protocol import GroupStep, Timestep
from marl_pipeline.errors import UserError
from marl_pipeline.seeding import stream_seed

Played = dict[str, NDArray[Any]]
"""group -> [A, *shape], the actions of one step of one copy."""


class OutsideEnvironment:
    """Implements `envs.protocol.Environment` over copies that know their agents by name.

    Every agent present is asked at every step. An agent that is terminated leaves for the rest of the episode; one
    that is truncated while others go on leaves as well, for the protocol cuts whole episodes only. The episode is over
    when nobody is left: truncated if somebody was, terminated otherwise. A copy that is over stands still until it is
    reset. The team's reward is the sum over the agents. The state is the environment's own `state()`, else the agents'
    observations side by side.

    A resumed run plays the unfinished episodes again (see the module), so it needs environments whose episodes are
    fixed by the seed given to their `reset` and by the actions; whether they were is checked on load.

    Args:
        build: makes one copy.
        name: for messages.
    """

    def __init__(
        self, num_envs: int, build: Callable[[], World], *, name: str, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.num_envs, self.device = num_envs, torch.device(device)
        self._name, self._seed = name, seed
        self._copies = [build() for _ in range(num_envs)]
        self._seats = Seats(name, self._copies[0])
        self.groups = self._seats.groups
        self._boards = {group: Board(spec, num_envs) for group, spec in self.groups.items()}
        self._own_state = _has_state(self._copies[0])
        self.state_size = len(self._state_of(0))
        self._state = np.zeros((num_envs, self.state_size), dtype=np.float32)
        self._terminated, self._truncated = np.zeros(num_envs, dtype=np.bool_), np.zeros(num_envs, dtype=np.bool_)
        self._episodes = [0] * num_envs
        self._played: list[list[Played]] = [[] for _ in range(num_envs)]

    def reset(self, where: Tensor | None = None) -> Timestep:
        """See the protocol."""
        for copy in range(self.num_envs) if where is None else where.nonzero().flatten().tolist():
            self._episodes[copy] += 1
            self._begin(copy)
        for board in self._boards.values():
            board.reward[:] = 0.0
        return self._timestep()

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol."""
        chosen = {group: action.detach().cpu().numpy() for group, action in actions.items()}
        for copy in range(self.num_envs):
            for board in self._boards.values():
                board.reward[copy] = 0.0
            if not (self._terminated[copy] or self._truncated[copy]):
                self._play(copy, {group: action[copy].copy() for group, action in chosen.items()})
        return self._timestep()

    def state_dict(self) -> dict[str, Any]:
        """The number of each copy's episode, which fixes its seed, and what was played in it; and what was last seen,
        to check on load that playing it again led there."""
        return {
            "episodes": list(self._episodes),
            "played": [
                {group: torch.from_numpy(np.stack([step[group] for step in steps])) for group in self.groups}
                for steps in self._played
                if steps
            ],
            "steps": [len(steps) for steps in self._played],
            "seen": {group: torch.from_numpy(board.observation.copy()) for group, board in self._boards.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises UserError if the environment is not fixed by its seed and the actions."""
        self._episodes, recorded = list(state["episodes"]), iter(state["played"])
        for copy, steps in enumerate(state["steps"]):
            if self._episodes[copy] > 0:  # 0: saved before its first episode
                self._begin(copy)
            played = next(recorded) if steps else {}
            for index in range(steps):
                self._play(copy, {group: action[index].numpy().copy() for group, action in played.items()})
        for group, board in self._boards.items():
            if not np.array_equal(board.observation, state["seen"][group].numpy()):
                raise UserError(
                    f"environment '{self._name}': the same seed and actions led to another observation of '{group}', "
                    "so a run on it cannot be resumed; give it its randomness by reset(seed=...), or start anew"
                )

    def _begin(self, copy: int) -> None:
        """Starts the episode whose number is in `_episodes`."""
        world = self._copies[copy]
        seed = stream_seed(self._seed, f"copy {copy}, episode {self._episodes[copy]}") % 2**31
        observations, infos = world.reset(seed=seed)
        self._played[copy] = []
        self._terminated[copy] = self._truncated[copy] = False
        for board in self._boards.values():
            board.clear(copy)
        self._see(copy, observations, infos, set(world.agents))

    def _play(self, copy: int, actions: Played) -> None:
        """One step of one copy that is not over."""
        world = self._copies[copy]
        self._played[copy].append(actions)
        asked = {}
        for agent in world.agents:
            group, index = self._seats.place[agent]
            asked[agent] = self._seats.outward[group](actions[group][index])
        observations, rewards, terminations, truncations, infos = world.step(asked)
        ended = {agent for agent in asked if terminations[agent] or truncations[agent]}
        there = set(world.agents) - ended
        if not there:
            there = {agent for agent in ended if not terminations[agent]}
            self._truncated[copy], self._terminated[copy] = bool(there), not there
        for agent, reward in rewards.items():
            group, index = self._seats.place[agent]
            self._boards[group].reward[copy, index] = reward
            self._boards[group].gone[copy, index] |= agent in ended - there
        if self._terminated[copy]:
            for board in self._boards.values():
                board.gone[copy] = True
        self._see(copy, observations, infos, there)

    def _see(self, copy: int, observations: Mapping[str, Any], infos: Mapping[str, Any], there: set[str]) -> None:
        """Writes down what the agents of one copy are told."""
        for agent, (group, index) in self._seats.place.items():
            board = self._boards[group]
            board.present[copy, index] = agent in there
            board.observation[copy, index], board.mask[copy, index] = 0.0, True
            if agent in observations:
                board.observation[copy, index] = observation_row(self._seats.seen[group], observations[agent])
            if agent in observations and agent in there:
                mask = mask_row(observations[agent], infos.get(agent, {}))
                board.mask[copy, index] = True if mask is None else mask
        self._state[copy] = self._state_of(copy)

    def _state_of(self, copy: int) -> NDArray[np.float32]:
        """[S]."""
        if self._own_state:
            return np.asarray(self._copies[copy].state(), dtype=np.float32).ravel()  # type: ignore[attr-defined]
        return np.concatenate([board.observation[copy].ravel() for board in self._boards.values()])

    def _timestep(self) -> Timestep:
        groups = {}
        for group, board in self._boards.items():
            present = self._tensor(board.present)
            groups[group] = GroupStep(
                observation={FIELD: self._tensor(board.observation)},
                action_mask=self._tensor(board.mask),
                acts=present,
                present=present,
                reward=self._tensor(board.reward),
                discount=(~self._tensor(board.gone)).float(),
            )
        team_reward = torch.stack([step.reward.sum(-1) for step in groups.values()]).sum(0)
        terminated, truncated = self._tensor(self._terminated), self._tensor(self._truncated)
        return Timestep(groups, self._tensor(self._state), team_reward, terminated, truncated, {})

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """A copy on the device: the arrays are written again."""
        return torch.from_numpy(values.copy()).to(self.device)


def _has_state(world: World) -> bool:
    """Whether `state()` answers: PettingZoo's base class has one that raises, and wrappers pass that on."""
    if getattr(type(world), "state", None) in (None, ParallelEnv.state):
        return False
    world.reset(seed=0)
    try:
        world.state()  # type: ignore[attr-defined]
    except NotImplementedError:  # how PettingZoo says that there is no state
        return False
    return True
