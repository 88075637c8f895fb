"""Experience replay (Lin 1992): what an environment reported, kept raw, given back as transitions or as windows.

Every environment fills a ring of rows of its own. A row is one timestep and what followed: what was seen,
what was done, what it earned. The row after it is what came next, so nothing is kept twice; only a truncated episode
takes one more row, for its last observation, from which nobody acts. References stay references until `Inputs` looks
them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Memory
from marl_pipeline.envs.protocol import Environment, GroupSpec, GroupStep, Timestep
from marl_pipeline.errors import UserError


@dataclass(frozen=True)
class GroupObservation:
    """What one group was shown, as in `GroupStep`, with any leading dimensions in place of [E].

    Attributes:
        observation: field -> [..., A, *shape].
        action_mask: [..., A, mask width] bool.
        acts, present, truncated: [..., A] bool.
    """

    observation: dict[str, Tensor]
    action_mask: Tensor
    acts: Tensor
    present: Tensor
    truncated: Tensor

    def fields(self) -> dict[str, Tensor]:
        kept = {name: getattr(self, name) for name in ("action_mask", "acts", "present", "truncated")}
        return {f"observation.{name}": field for name, field in self.observation.items()} | kept

    def at(self, index: Tensor) -> GroupObservation:
        """The rows [...] of a table [N, A, ...]; with an index [..., A], every agent's own row."""
        observation = {name: _rows(table, index) for name, table in self.observation.items()}
        flags = (_rows(table, index) for table in (self.action_mask, self.acts, self.present, self.truncated))
        return GroupObservation(observation, *flags)

    def of_agents(self) -> GroupObservation:
        """A table [N, A, ...] as one of the rows of single agents, [N * A, ...]."""
        observation = {name: table.flatten(0, 1) for name, table in self.observation.items()}
        flags = (table.flatten(0, 1) for table in (self.action_mask, self.acts, self.present, self.truncated))
        return GroupObservation(observation, *flags)


@dataclass(frozen=True)
class ActionOutcome:
    """What one group did and what that earned it: action [..., A, *shape]; reward, discount [..., A]."""

    action: Tensor
    reward: Tensor
    discount: Tensor

    def fields(self) -> dict[str, Tensor]:
        return {"action": self.action, "reward": self.reward, "discount": self.discount}

    def at(self, index: Tensor) -> ActionOutcome:
        return ActionOutcome(_rows(self.action, index), _rows(self.reward, index), _rows(self.discount, index))


@dataclass(frozen=True)
class JointObservation:
    """What all groups were shown at once, and the state [..., S]."""

    groups: dict[str, GroupObservation]
    state: Tensor


@dataclass(frozen=True)
class Decisions:
    """Decisions of one group's agents and their next ones, each agent on its own clock.

    Attributes:
        now: at the decision, [B, A, ...].
        action: [B, A, *shape].
        returns: [B, A] discounted reward until `later`.
        factor: [B, A] the discount of what follows `later`; 0 where the agent's future ended before.
        later: the agent's next decision at or after n steps, or the last it saw before it or its episode was truncated,
            [B, A, ...].
        valid: [B, A] bool, the agent did decide, and `later` was found.
    """

    now: GroupObservation
    action: Tensor
    returns: Tensor
    factor: Tensor
    later: GroupObservation
    valid: Tensor


@dataclass(frozen=True)
class Transitions:
    """B timesteps of all groups and those n steps later (or where the episode, or an agent's part in it, ends).

    Attributes:
        now, later: [B, ...].
        action: group -> [B, A, *shape].
        returns, factor: group -> [B, A] discounted reward in between, and the discount of what follows.
        team_returns, team_factor: [B] the same of the team's reward; its factor is 0 only after a termination.
        valid: [B] bool, something was done at that row.
    """

    now: JointObservation
    later: JointObservation
    action: dict[str, Tensor]
    returns: dict[str, Tensor]
    factor: dict[str, Tensor]
    team_returns: Tensor
    team_factor: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Windows:
    """L + 1 consecutive rows of B environments, episode after episode.

    Attributes:
        observations: [L + 1, B, ...].
        outcomes: group -> [L, B, ...].
        team_reward: [L, B].
        terminated: [L, B] bool, the episode ended with this step, in a state without a future.
        truncated: [L, B] bool, the row after this step is the last observation of a truncated episode.
        valid: [L, B] bool, something was done: the row is not such a last observation itself.
        ends: [L, B] bool, the next row belongs to another episode: memory starts anew there.
        memory: what the acting policy remembered before the first row, group -> [B, A, H].
    """

    observations: JointObservation
    outcomes: dict[str, ActionOutcome]
    team_reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    ends: Tensor
    memory: Memory


class Replay:
    """The last `buffer_size` steps of all environments together (a little fewer where episodes are truncated).

    A position is one number, `row * E + environment`; `ahead` moves it in time. Which positions may be used is the
    business of
    whoever draws them: `draw` uniformly, `prioritised.Priorities` by their errors.

    Args:
        first: the timestep from which the first step will be taken; it also shows the dtypes of all fields.
        buffer_size: environment steps; at least two per environment.
        state: keep the global state.
        memory: group -> H, what a recurrent policy remembers; kept for every `stride`-th row, where windows may start.
        stride: rows between two kept memories.
    """

    def __init__(
        self,
        environment: Environment,
        first: Timestep,
        *,
        buffer_size: int,
        state: bool = True,
        memory: Mapping[str, int] | None = None,
        stride: int = 1,
    ) -> None:
        envs, device = environment.num_envs, environment.device
        rows = -(-buffer_size // envs) + 1
        self.rows, self.num_envs, self.stride = -(-rows // stride) * stride, envs, stride
        if self.rows < 3:
            raise UserError(f"buffer_size: {buffer_size} steps do not hold two steps of each of {envs} environments")
        self.written = torch.zeros(envs, dtype=torch.int64, device=device)
        """[E] complete rows so far, the overwritten ones included; the row of that number is the present one."""
        positions = self.rows * envs
        self._copy = torch.arange(envs, device=device)
        self._observations = {name: _observation_table(step, positions) for name, step in first.groups.items()}
        self._outcomes = {name: _outcome_table(spec, positions, device) for name, spec in environment.groups.items()}
        self._state = torch.zeros(positions, environment.state_size if state else 0, device=device)
        self._team_reward = torch.zeros(positions, device=device)
        self._terminated = torch.zeros(positions, dtype=torch.bool, device=device)
        self.final = torch.zeros(positions, dtype=torch.bool, device=device)
        """[N] the row is the last observation of a truncated episode: nobody acted."""
        self._memory = {
            name: torch.zeros(positions // stride, environment.groups[name].agents, width, device=device)
            for name, width in (memory or {}).items()
        }
        self._see(first, {name: table.new_zeros(envs, *table.shape[1:]) for name, table in self._memory.items()})

    def position(self, row: Tensor) -> Tensor:
        """Positions of rows [..., E] counted from the first one ever written."""
        return row % self.rows * self.num_envs + self._copy

    def ahead(self, position: Tensor, steps: Tensor | int) -> Tensor:
        return (position + steps * self.num_envs) % len(self.final)

    def add(self, actions: Mapping[str, Tensor], after: Timestep, resumed: Timestep, memory: Memory) -> None:
        """Adds one step of every environment.

        Args:
            actions: group -> [E, A, *shape], what was done at the timestep added last.
            after: what the step led to.
            resumed: `after` itself, or what came of it by the reset of those environments that are done.
            memory: what the policy remembers at `resumed`.
        """
        here = self.position(self.written)
        for name, taken in self._outcomes.items():
            step = after.groups[name]
            taken.action.index_copy_(0, here, actions[name].to(taken.action.dtype))
            taken.reward.index_copy_(0, here, step.reward)
            taken.discount.index_copy_(0, here, step.discount)
        self._team_reward.index_copy_(0, here, after.team_reward)
        self._terminated.index_copy_(0, here, after.terminated)
        self.written = self.written + 1
        if resumed is not after:
            self._see(after, memory)
            last = self.position(self.written)
            self.final.index_copy_(0, last, after.truncated)
            self._terminated.index_copy_(0, last, torch.zeros_like(after.terminated))
            self.written = self.written + after.truncated
        self.final.index_fill_(0, self.position(self.written), False)  # as that of the row overwritten may not be
        self._see(resumed, memory)

    def _see(self, timestep: Timestep, memory: Memory) -> None:
        here = self.position(self.written)
        for name, seen in self._observations.items():
            step = timestep.groups[name]
            for field, table in seen.observation.items():
                table.index_copy_(0, here, step.observation[field])
            seen.action_mask.index_copy_(0, here, step.action_mask)
            seen.acts.index_copy_(0, here, step.acts)
            seen.present.index_copy_(0, here, step.present)
            seen.truncated.index_copy_(0, here, step.agents_truncated())
        if self._state.shape[-1]:
            self._state.index_copy_(0, here, timestep.state)
        for name, table in self._memory.items():
            slot = self._memory_slot(here)
            begins = (self.written % self.stride == 0)[:, None, None]
            table.index_copy_(0, slot, torch.where(begins, memory[name], table.index_select(0, slot)))

    def _memory_slot(self, position: Tensor) -> Tensor:
        row, env = position // self.num_envs, position % self.num_envs
        return row // self.stride * self.num_envs + env

    def check_size(self, look_ahead: int, name: str) -> None:
        """Sees to it that `draw` will find rows with `look_ahead` after them; `name` is the algorithm's.

        Raises:
            UserError: the replay is too small ever to hold one.
        """
        if self.rows < look_ahead + self.stride:
            raise UserError(
                f"{name}: buffer_size is too small: {self.rows - 1} steps in each of {self.num_envs} environments, and "
                f"learning looks {look_ahead} ahead; set buffer_size to at least "
                f"{(look_ahead + self.stride) * self.num_envs}"
            )

    def __len__(self) -> int:
        """Rows that can be learned from in the environment that has the fewest."""
        return min(int(self.written.min()), self.rows - 1)

    def draw(self, batch: int, look_ahead: int, generator: torch.Generator) -> Tensor:
        """[batch] positions, each environment as likely as the next, and in it each row that has `look_ahead` rows
        after it.

        With memories kept, only rows that have one. Rows that end a truncated episode may be drawn; what is read there
        is not `valid`.
        """
        oldest = (self.written - (self.rows - 1)).clamp(min=0)
        first = (oldest + self.stride - 1) // self.stride
        starts = (self.written - look_ahead) // self.stride - first + 1
        if bool((starts < 1).any()):
            raise ValueError(f"no row has {look_ahead} rows after it: the replay holds {len(self)}")
        device = self.written.device
        env = torch.randint(self.num_envs, (batch,), generator=generator, device=generator.device).to(device)
        share = torch.rand(batch, generator=generator, device=generator.device, dtype=torch.float64).to(device)
        chosen = (share * starts[env]).long()
        return (first[env] + chosen) * self.stride % self.rows * self.num_envs + env

    def decisions(
        self, group: str, position: Tensor, *, n: int, look_ahead: int, gamma: float, team: bool = False
    ) -> Decisions:
        """The decisions of a group at positions [B] and each agent's first one at or after `n` steps.

        With agents that always act this is the n-step return (Sutton 1988); with clocks, a semi-Markov one (Sutton,
        Precup & Singh 1999). An agent that does not decide within `look_ahead` >= n steps again is not `valid`. With
        `team` every agent is paid what the team earns until the episode ends; an absent one counts as one that decides,
        to no effect, because what the others go on to earn belongs to the decisions it took before.
        """
        seen, taken = self._observations[group], self._outcomes[group]
        path = self._path(position, look_ahead)
        acts, left = _rows(seen.acts, path), _rows(seen.truncated, path)
        final = _rows(self.final, path)
        discount = _rows(taken.discount, path[:-1])
        reward = _rows(taken.reward, path[:-1])
        if team:
            acts, left = acts | ~_rows(seen.present, path), torch.zeros_like(left)
            discount = (~_rows(self._terminated, path[:-1])).to(discount.dtype).unsqueeze(-1).expand_as(discount)
            reward = _rows(self._team_reward, path[:-1]).unsqueeze(-1).expand_as(reward)
        decided = acts[0] & ~final[0].unsqueeze(-1)
        returns, factor = torch.zeros_like(reward[0]), torch.ones_like(reward[0])
        later, waiting = position.unsqueeze(-1).expand_as(decided), decided
        for k in range(look_ahead):
            returns = returns + torch.where(waiting, factor * reward[k], 0.0)
            factor = torch.where(waiting, factor * gamma * discount[k], factor)
            later = torch.where(waiting, path[k + 1].unsqueeze(-1), later)
            found = final[k + 1].unsqueeze(-1) | left[k + 1] | (discount[k] == 0)
            waiting = waiting & ~(found | acts[k + 1] if k + 1 >= n else found)
        agents = torch.arange(decided.shape[-1], device=later.device)
        return Decisions(
            now=seen.at(position),
            action=_rows(taken.action, position),
            returns=returns,
            factor=factor,
            later=seen.of_agents().at(later * len(agents) + agents),
            valid=decided & ~waiting,
        )

    def transitions(self, position: Tensor, *, n: int, gamma: float) -> Transitions:
        """What all groups saw and did at positions [B], and what they saw `n` steps later.

        Where an agent alone is truncated on the way, `later` is that moment: it is the last that agent saw, and fewer
        steps are as good a target for the others.
        """
        path = self._path(position, n)
        final, terminated = _rows(self.final, path), _rows(self._terminated, path[:-1])
        team_reward = _rows(self._team_reward, path[:-1])
        taken = {name: table.at(path[:-1]) for name, table in self._outcomes.items()}
        left = torch.stack([_rows(seen.truncated, path).any(-1) for seen in self._observations.values()]).any(0)
        going = ~final[0]
        later, team_returns, team_factor = position, torch.zeros_like(team_reward[0]), torch.ones_like(team_reward[0])
        returns = {name: torch.zeros_like(table.reward[0]) for name, table in taken.items()}
        factor = {name: torch.ones_like(table.reward[0]) for name, table in taken.items()}
        for k in range(n):
            live = going.unsqueeze(-1)
            for name, step in taken.items():
                returns[name] = returns[name] + torch.where(live, factor[name] * step.reward[k], 0.0)
                factor[name] = torch.where(live, factor[name] * gamma * step.discount[k], factor[name])
            team_returns = team_returns + torch.where(going, team_factor * team_reward[k], 0.0)
            team_factor = torch.where(going, team_factor * gamma * ~terminated[k], team_factor)
            later = torch.where(going, path[k + 1], later)
            going = going & ~terminated[k] & ~final[k + 1] & ~left[k + 1]
        return Transitions(
            now=self._observations_at(position),
            later=self._observations_at(later),
            action={name: step.action[0] for name, step in taken.items()},
            returns=returns,
            factor=factor,
            team_returns=team_returns,
            team_factor=team_factor,
            valid=~final[0],
        )

    def windows(self, position: Tensor, length: int) -> Windows:
        """`length` steps of every environment from positions [B] on."""
        path = self._path(position, length)
        final = _rows(self.final, path)
        terminated = _rows(self._terminated, path[:-1])
        slot = self._memory_slot(position)
        return Windows(
            observations=self._observations_at(path),
            outcomes={name: table.at(path[:-1]) for name, table in self._outcomes.items()},
            team_reward=_rows(self._team_reward, path[:-1]),
            terminated=terminated,
            truncated=final[1:],
            valid=~final[:-1],
            ends=terminated | final[:-1],
            memory={name: _rows(table, slot) for name, table in self._memory.items()},
        )

    def _path(self, position: Tensor, steps: int) -> Tensor:
        """[steps + 1, B] the positions from [B] on."""
        return self.ahead(position, torch.arange(steps + 1, device=position.device).unsqueeze(-1))

    def _observations_at(self, index: Tensor) -> JointObservation:
        return JointObservation(
            {name: seen.at(index) for name, seen in self._observations.items()}, _rows(self._state, index)
        )

    def state_dict(self) -> dict[str, Any]:
        """Only rows that were written, so an early checkpoint is small."""
        filled = min(int(self.written.max()) + 1, self.rows)
        kept = -(-filled // self.stride)
        return {
            "written": self.written.cpu().clone(),
            "tables": _head(self._tables(), filled * self.num_envs),
            "memory": _head(self._memory, kept * self.num_envs),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.written = state["written"].to(self.written.device)
        for tables, saved in ((self._tables(), state["tables"]), (self._memory, state["memory"])):
            for name, table in tables.items():
                table.zero_()
                table[: len(saved[name])] = saved[name].to(table.device)

    def _tables(self) -> dict[str, Tensor]:
        tables = {
            "state": self._state,
            "team_reward": self._team_reward,
            "terminated": self._terminated,
            "final": self.final,
        }
        for name in self._observations:
            for part in (self._observations[name].fields(), self._outcomes[name].fields()):
                tables |= {f"{name}.{field}": table for field, table in part.items()}
        return tables


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """table [N, ...] at an index of any shape: [*index.shape, ...]."""
    return table.index_select(0, index.flatten()).view(*index.shape, *table.shape[1:])


def _head(tables: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    return {name: table[:length].cpu().clone() for name, table in tables.items()}


def _observation_table(step: GroupStep, positions: int) -> GroupObservation:
    def table(field: Tensor) -> Tensor:
        return torch.zeros(positions, *field.shape[1:], dtype=field.dtype, device=field.device)

    observation = {name: table(field) for name, field in step.observation.items()}
    return GroupObservation(
        observation, *(table(flags) for flags in (step.action_mask, step.acts, step.present, step.acts))
    )


def _outcome_table(spec: GroupSpec, positions: int, device: torch.device) -> ActionOutcome:
    shape = (positions, spec.agents)
    return ActionOutcome(
        torch.zeros(*shape, *spec.actions.shape, dtype=spec.actions.dtype, device=device),
        torch.zeros(shape, device=device),
        torch.zeros(shape, device=device),
    )
