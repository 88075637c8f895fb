"""Independent deep Q-learning (Mnih et al. 2015; Tampuu et al. 2017): every agent learns as if the others were weather.

With double targets (van Hasselt et al. 2016), duelling heads (Wang et al. 2016), n-step returns and prioritised replay
(Schaul et al. 2016), each to be chosen, on every agent's own clock.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from marl_pipeline.algos.acceleration import Acceleration
from marl_pipeline.algos.action_values import EpsilonGreedy, NetworkSettings, masked, q_networks
from marl_pipeline.algos.algorithm import Advance
from marl_pipeline.algos.descent import Descent, DescentSettings, TargetSettings, follow
from marl_pipeline.algos.inputs import Inputs
from marl_pipeline.algos.off_policy import Collector
from marl_pipeline.algos.prioritised import Priorities, PrioritySettings
from marl_pipeline.algos.reduction import ALONE, Reduction
from marl_pipeline.algos.replay import Decisions, Replay
from marl_pipeline.algos.schedules import Schedule
from marl_pipeline.config import Count, Fraction, Positive, Section
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.errors import UserError
from marl_pipeline.seeding import stream


class IDQNSettings(Section):
    """Everything that can be chosen.

    Attributes:
        reward: what an agent learns from: its `own` reward or the `team`'s.
        n_step: steps of a return; an agent that has to wait for its clock then is followed up to `look_ahead` steps.
        huber: errors beyond it count linearly.
        priorities: None draws uniformly.
        batch: timesteps per update, with all their agents.
        collect: steps of every copy per turn; `updates` follow.
        capacity: environment steps kept; `learn_from`: environment steps before the first update.
    """

    network: NetworkSettings
    descent: DescentSettings
    target: TargetSettings
    epsilon: Schedule
    gamma: Fraction
    reward: Literal["own", "team"]
    reward_scale: Positive
    n_step: Count
    look_ahead: Count
    double: bool
    huber: Positive
    priorities: PrioritySettings | None
    batch: Count
    collect: Count
    updates: Count
    capacity: Count
    learn_from: Count
    acceleration: Acceleration


class IDQN:
    """Implements `algorithm.Algorithm`.

    Raises:
        UserError: the settings contradict each other or do not fit the environment.
    """

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: IDQNSettings,
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = ALONE,
    ) -> None:
        if settings.network.memory:
            raise UserError("idqn: network.memory must be 0: it learns from single decisions; qmix has a memory")
        if settings.look_ahead < settings.n_step:
            raise UserError(
                f"idqn: look_ahead {settings.look_ahead} is shorter than n_step {settings.n_step}; raise look_ahead"
            )
        settings, own_seed = reduction.shared(settings, "batch", "capacity", "learn_from"), reduction.own_seed(seed)
        self._environment, self._inputs, self._settings, self._timesteps = environment, inputs, settings, timesteps
        self._learned = q_networks(environment, inputs, settings.network, seed=seed, name="idqn")
        self._target = copy.deepcopy(self._learned).requires_grad_(False)
        self._descent = Descent(self._learned.parameters(), settings.descent, reduction)
        self.policy = EpsilonGreedy(environment, self._learned, inputs, memory=0)
        first = environment.reset()
        self._replay = Replay(environment, first, capacity=settings.capacity, state=False)
        self._replay.check_room(settings.look_ahead, "idqn")
        self._collector = Collector(environment, first, self.policy, self._replay, stream(own_seed, "exploration"))
        self._priorities = (
            Priorities(self._replay, settings.priorities, look_ahead=settings.look_ahead)
            if settings.priorities is not None
            else None
        )
        self._generator = stream(own_seed, "replay")
        self._steps = self._updates = 0
        self._errors = settings.acceleration.compiled(self._temporal_differences)

    def advance(self) -> Advance:
        """`collect` steps of every copy, then `updates` updates if there is enough to learn from."""
        s = self._settings
        self.policy.epsilon = s.epsilon.at(self._steps / self._timesteps)
        metrics = self._collector.collect(s.collect) | {"epsilon": self.policy.epsilon}
        self._steps += s.collect * self._environment.num_envs
        if self._steps >= s.learn_from and len(self._replay) >= s.look_ahead:
            if self._priorities is not None:
                self._priorities.welcome()
            history = torch.stack([self._update() for _ in range(s.updates)])
            metrics |= dict(zip(("loss", "q_mean", "grad_norm"), history.mean(0).tolist(), strict=True))
        return Advance(s.collect * self._environment.num_envs, metrics)

    def _update(self) -> Tensor:
        """One gradient step; loss, mean value and gradient norm [3]."""
        s, progress = self._settings, self._steps / self._timesteps
        position, importance = self._draw(progress)
        losses, values, errors, counts = [], [], [], []
        for group in self._environment.groups:
            decisions = self._replay.decisions(
                group, position, n=s.n_step, look_ahead=s.look_ahead, gamma=s.gamma, team=s.reward == "team"
            )
            with s.acceleration.autocast(self._environment.device):
                error, value = self._errors(group, decisions)
            loss = functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=s.huber)
            losses.append((loss * importance.unsqueeze(-1)).sum())
            values.append(value.sum())
            errors.append(error.detach().abs().sum(-1))
            counts.append(decisions.valid.sum(-1))
        count = torch.stack(counts).sum(0)
        total = count.sum().clamp(min=1)
        loss = torch.stack(losses).sum() / total
        norm = self._descent.step(loss, progress, count.sum())
        if self._priorities is not None:
            self._priorities.update(position, torch.stack(errors).sum(0) / count.clamp(min=1))
        self._updates += 1
        if self._updates % s.target.every == 0:
            follow(self._target, self._learned, s.target.rate)
        return torch.stack([loss.detach(), torch.stack(values).sum() / total, norm])

    def _draw(self, progress: float) -> tuple[Tensor, Tensor]:
        """Positions [batch] and their importance weights [batch]."""
        s = self._settings
        if self._priorities is not None:
            return self._priorities.draw(s.batch, progress, self._generator)
        position = self._replay.draw(s.batch, s.look_ahead, self._generator)
        return position, torch.ones(s.batch, device=position.device)

    def _temporal_differences(self, group: str, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """Q(s, a) - target [B, A] and Q(s, a) [B, A] without gradient; 0 where there was no decision."""
        s = self._settings
        now = self._inputs(group, decisions.now.observation)
        later = self._inputs(group, decisions.later.observation)
        nobody = decisions.valid[:0]
        values = self._learned[group](now, None, nobody)[0]
        value = values.gather(-1, decisions.action.unsqueeze(-1)).squeeze(-1).float()
        with torch.no_grad():
            later_values = self._target[group](later, None, nobody)[0]
            ranked = self._learned[group](later, None, nobody)[0] if s.double else later_values
            best = masked(ranked, decisions.later.action_mask).argmax(-1, keepdim=True)
            following = later_values.gather(-1, best).squeeze(-1).float()
            target = s.reward_scale * decisions.returns + decisions.factor * following
        error = torch.where(decisions.valid, value - target, 0.0)
        return error, torch.where(decisions.valid, value.detach(), 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "learned": self._learned.state_dict(),
            "target": self._target.state_dict(),
            "descent": self._descent.state_dict(),
            "collector": self._collector.state_dict(),
            "priorities": self._priorities.state_dict() if self._priorities is not None else {},
            "generator": self._generator.get_state(),
            "steps": self._steps,
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._learned.load_state_dict(state["learned"])
        self._target.load_state_dict(state["target"])
        self._descent.load_state_dict(state["descent"])
        self._collector.load_state_dict(state["collector"])
        if self._priorities is not None:
            self._priorities.load_state_dict(state["priorities"])
        self._generator.set_state(state["generator"].cpu())
        self._steps, self._updates = state["steps"], state["updates"]
