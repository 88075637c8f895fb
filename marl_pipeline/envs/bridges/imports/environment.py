"""Outside environments, stepped one after the other, as one environment of the protocol.

Their state is saved as the seed of the episode and the actions played since, and restored by playing them again: no
object of theirs is ever unpickled, so that loading a checkpoint runs no code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from torch import Tensor

from marl_pipeline.envs.bridges.imports.agent_groups import FIELD, AgentGroups, GroupArrays, ParallelWorld
from marl_pipeline.envs.bridges.imports.answers import (
    AnswerError,
    read_flag,
    read_mask,
    read_observation,
    read_reward,
    unpack,
)
from marl_pipeline.envs.bridges.imports.episode_log import EpisodeLog
from marl_pipeline.envs.conformance import choice_sizes
from marl_pipeline.envs.protocol import GroupStep, Timestep
from marl_pipeline.envs.validation import LONGEST_EPISODE, endless
from marl_pipeline.errors import UserError
from marl_pipeline.seeding import stream_seed


class OutsideEnvironment:
    """Implements `envs.protocol.Environment` over environments that know their agents by name.

    Every agent present acts at every step, but for those whose mask allows nothing while others may act: they wait,
    and are handed action 0. An agent that is terminated leaves for the rest of the episode; one that is truncated
    while others go on leaves as well, and its last observation still has a value (`GroupStep.truncated`). The episode
    is over when nobody is left: truncated if one of the last was, terminated otherwise. An environment that is over
    stands still until it is reset. The team's reward is the sum over the agents. The state is the environment's own
    `state()`, else the agents' observations side by side.

    A resumed run plays the unfinished episodes again (see the module), so it needs environments whose episodes are
    fixed by the seed given to their `reset` and by the actions; whether they were is checked on load.

    Args:
        build: makes one environment.
        name: for messages.
        max_episode_steps: truncates longer episodes; None refuses one of more than `LONGEST_EPISODE` steps.

    Raises:
        UserError: an answer that cannot be what the spaces say; names the agent, the episode and the step.
    """

    def __init__(
        self,
        num_envs: int,
        build: Callable[[], ParallelWorld],
        *,
        name: str,
        seed: int,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
    ) -> None:
        self.num_envs, self.device = num_envs, torch.device(device)
        self._name, self._seed, self._limit = name, seed, max_episode_steps
        with ExitStack() as opened:
            self._worlds = [_opened(build(), opened) for _ in range(num_envs)]
            self._agents = AgentGroups(name, self._worlds[0])
            self.groups = self._agents.groups
            self._sizes = {group: choice_sizes(spec.actions) for group, spec in self.groups.items()}
            self._arrays = {group: GroupArrays(spec, num_envs) for group, spec in self.groups.items()}
            self._own_state = _has_state(self._worlds[0])
            self.state_size = len(self._state_of(0))
            self._open = opened.pop_all()
        self._state = np.zeros((num_envs, self.state_size), dtype=np.float32)
        self._terminated, self._truncated = np.zeros(num_envs, dtype=np.bool_), np.zeros(num_envs, dtype=np.bool_)
        self._episodes = [0] * num_envs
        self._logs = [EpisodeLog(self.groups) for _ in range(num_envs)]

    def close(self) -> None:
        """Closes every environment that has a `close`; may be called twice."""
        self._open.close()

    def reset(self, where: Tensor | None = None) -> Timestep:
        """See the protocol."""
        for index in range(self.num_envs) if where is None else where.nonzero().flatten().tolist():
            self._episodes[index] += 1
            self._begin(index)
        for arrays in self._arrays.values():
            arrays.reward[:] = 0.0
        return self._timestep()

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol."""
        chosen = {group: action.detach().cpu().numpy() for group, action in actions.items()}
        for index in range(self.num_envs):
            for arrays in self._arrays.values():
                arrays.reward[index] = 0.0
            if not (self._terminated[index] or self._truncated[index]):
                self._step_one(index, {group: action[index] for group, action in chosen.items()})
        return self._timestep()

    def state_dict(self) -> dict[str, Any]:
        """The number of each environment's episode, which fixes its seed, and what was played in it; and what was last
        seen, to check on load that playing it again led there."""
        return {
            "episodes": list(self._episodes),
            "played": [log.tensors() for log in self._logs if len(log)],
            "steps": [len(log) for log in self._logs],
            "seen": {group: torch.from_numpy(arrays.observation.copy()) for group, arrays in self._arrays.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises UserError if the environment is not fixed by its seed and the actions."""
        self._episodes, recorded = list(state["episodes"]), iter(state["played"])
        for index, steps in enumerate(state["steps"]):
            if self._episodes[index] > 0:
                self._begin(index)
            else:  # saved before its first episode
                self._clear(index)
            played = next(recorded) if steps else {}
            for step in range(steps):
                self._step_one(index, {group: action[step].numpy() for group, action in played.items()})
        for group, arrays in self._arrays.items():
            if not np.array_equal(arrays.observation, state["seen"][group].numpy()):
                raise UserError(
                    f"environment '{self._name}': the same seed and actions led to another observation of '{group}', "
                    "so a run on it cannot be resumed; give it its randomness by reset(seed=...), or start anew"
                )

    def _clear(self, index: int) -> None:
        self._logs[index].clear()
        self._terminated[index] = self._truncated[index] = False
        for arrays in self._arrays.values():
            arrays.clear(index)

    def _begin(self, index: int) -> None:
        """Starts the episode whose number is in `_episodes`."""
        world = self._worlds[index]
        seed = stream_seed(self._seed, f"copy {index}, episode {self._episodes[index]}") % 2**31
        self._clear(index)
        with self._located(index, None):
            observations, infos = unpack(world.reset(seed=seed), ("observations", "infos"), "reset")
        self._require_known(index, world.agents)
        for agent in world.agents:
            self._require_same_spaces(index, agent)
        self._observe(index, observations, infos, set(world.agents))

    def _step_one(self, index: int, actions: Mapping[str, NDArray[Any]]) -> None:
        """One step of one environment that is not over."""
        world, log = self._worlds[index], self._logs[index]
        log.append(actions)
        if self._limit is None and len(log) > LONGEST_EPISODE:
            raise UserError(endless(self._name, LONGEST_EPISODE))
        asked = {}
        for agent in world.agents:
            group, place = self._agents.place[agent]
            action = actions[group][place].copy()
            if not self._arrays[group].acts[index, place]:
                action = np.zeros_like(action)
            asked[agent] = self._agents.outward[group](action)
        names = ("observations", "rewards", "terminations", "truncations", "infos")
        with self._located(index, None):
            observations, rewards, terminations, truncations, infos = unpack(world.step(asked), names, "step")
        for given in (rewards, terminations, truncations, world.agents):
            self._require_known(index, given)
        for arrays in self._arrays.values():
            arrays.leave(index)
        ended = {}  # agent -> whether it was terminated
        for agent in asked:
            with self._located(index, agent):
                for given, what in ((rewards, "reward"), (terminations, "termination"), (truncations, "truncation")):
                    if agent not in given:
                        raise AnswerError(f"its {what} is missing")
                terminated = read_flag(terminations[agent], "its termination")
                if terminated or read_flag(truncations[agent], "its truncation"):
                    ended[agent] = terminated
        there = set(world.agents) - set(ended)
        self._pay(index, rewards, set(asked) | there)
        truncated = {agent for agent, terminated in ended.items() if not terminated}
        if not there:
            self._truncated[index], self._terminated[index] = bool(truncated), not truncated
        elif self._limit is not None and len(log) >= self._limit:
            self._truncated[index] = True
        for agent, terminated in ended.items():
            group, place = self._agents.place[agent]
            self._arrays[group].gone[index, place] |= terminated
            self._arrays[group].truncated[index, place] = not terminated and bool(there)
        if self._terminated[index]:
            for arrays in self._arrays.values():
                arrays.gone[index] = True
        self._observe(index, observations, infos, there | truncated)

    def _pay(self, index: int, rewards: Mapping[str, Any], those: set[str]) -> None:
        """Writes the rewards down; nobody else than `those` is paid."""
        for agent, reward in rewards.items():
            group, place = self._agents.place[agent]
            with self._located(index, agent):
                paid = read_reward(reward)
                if paid != 0.0 and agent not in those:
                    raise AnswerError(f"it earns {paid} and is not among the environment's agents")
            self._arrays[group].reward[index, place] = paid

    def _observe(self, index: int, observations: Any, infos: Any, there: set[str]) -> None:
        """Writes down what the agents of one environment observe and may choose."""
        over = bool(self._terminated[index] or self._truncated[index])
        waiting, acting = [], False
        for agent, (group, place) in self._agents.place.items():
            arrays = self._arrays[group]
            arrays.observation[index, place], arrays.mask[index, place] = 0.0, True
            arrays.present[index, place] = arrays.acts[index, place] = agent in there
            if agent not in there:
                continue
            with self._located(index, agent):
                if not isinstance(observations, Mapping) or agent not in observations:
                    raise AnswerError("its observation is missing")
                arrays.observation[index, place] = read_observation(self._agents.seen[group], observations[agent])
                if arrays.gone[index, place]:
                    raise AnswerError("it comes back after its end in this episode")
                if arrays.truncated[index, place]:
                    arrays.acts[index, place] = False
                    continue
                info = infos.get(agent) if isinstance(infos, Mapping) else None
                mask = read_mask(observations[agent], info or {}, self._sizes[group])
            if mask is not None and not mask.any():
                waiting.append(agent)
                arrays.acts[index, place] = False
            else:
                acting = True
                arrays.mask[index, place] = True if mask is None else mask
        if waiting and not acting and not over:
            with self._located(index, waiting[0]):
                raise AnswerError("its action mask allows nothing, and no other agent may act either")
        with self._located(index, None):
            self._state[index] = self._state_of(index)

    def _state_of(self, index: int) -> NDArray[np.float32]:
        """[S]."""
        if self._own_state:
            state = np.asarray(self._worlds[index].state(), dtype=np.float32).ravel()  # type: ignore[attr-defined]
            if len(state) != getattr(self, "state_size", len(state)) or not np.isfinite(state).all():
                raise AnswerError(f"state() must give {self.state_size} finite numbers, found {state!r:.80}")
            return state
        return np.concatenate([arrays.observation[index].ravel() for arrays in self._arrays.values()])

    def _require_known(self, index: int, agents: Any) -> None:
        unknown = [agent for agent in agents if agent not in self._agents.place]
        if unknown:
            with self._located(index, str(unknown[0])):
                raise AnswerError(f"it is none of the possible agents {list(self._agents.place)}")

    def _require_same_spaces(self, index: int, agent: str) -> None:
        """The spaces of an agent are those with which the environment began."""
        world = self._worlds[index]
        found = (world.observation_space(agent), world.action_space(agent))
        for now, before, what in zip(found, self._agents.spaces[agent], ("observation", "action"), strict=True):
            if now is not before and now != before:
                with self._located(index, agent):
                    raise AnswerError(f"its {what} space has become {now}, from {before}")

    @contextmanager
    def _located(self, index: int, agent: str | None) -> Iterator[None]:
        """Says of which agent, episode and step an answer is that is refused."""
        try:
            yield
        except AnswerError as error:
            who = "" if agent is None else f", agent '{agent}'"
            when = f"episode {self._episodes[index]}, step {len(self._logs[index])}"
            raise UserError(f"environment '{self._name}'{who}, {when}: {error}") from None

    def _timestep(self) -> Timestep:
        groups = {}
        for group, arrays in self._arrays.items():
            groups[group] = GroupStep(
                observation={FIELD: self._tensor(arrays.observation)},
                action_mask=self._tensor(arrays.mask),
                acts=self._tensor(arrays.acts),
                present=self._tensor(arrays.present),
                reward=self._tensor(arrays.reward),
                discount=(~self._tensor(arrays.gone)).float(),
                truncated=self._tensor(arrays.truncated),
            )
        team_reward = torch.stack([step.reward.sum(-1) for step in groups.values()]).sum(0)
        terminated, truncated = self._tensor(self._terminated), self._tensor(self._truncated)
        return Timestep(groups, self._tensor(self._state), team_reward, terminated, truncated, {})

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """A copy on the device: the arrays are written again."""
        return torch.from_numpy(values.copy()).to(self.device)


def _opened(world: ParallelWorld, opened: ExitStack) -> ParallelWorld:
    """The environment, which is closed with `opened`."""
    close = getattr(world, "close", None)
    if close is not None:
        opened.callback(close)
    return world


def _has_state(world: ParallelWorld) -> bool:
    """Whether `state()` answers: PettingZoo's base class has one that raises, and wrappers pass that on."""
    if getattr(type(world), "state", None) in (None, ParallelEnv.state):
        return False
    world.reset(seed=0)
    try:
        world.state()  # type: ignore[attr-defined]
    except NotImplementedError:  # how PettingZoo says that there is no state
        return False
    return True
