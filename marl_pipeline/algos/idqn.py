"""Independent deep Q-learning (Mnih et al. 2015; Tampuu et al. 2017): every agent learns alone and takes the others as
part of its environment.

With double targets (van Hasselt et al. 2016), duelling heads (Wang et al. 2016), n-step returns and prioritised replay
(Schaul et al. 2016), each to be chosen, on every agent's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from marl_pipeline.algos.common.action_values import masked
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.algos.common.prioritised import Priorities, PrioritySettings
from marl_pipeline.algos.common.replay import Decisions, GroupObservation, Replay
from marl_pipeline.algos.common.value_learning import ValueLearner, ValueSettings
from marl_pipeline.config import Count, Positive
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.errors import UserError
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction


class IDQNSettings(ValueSettings):
    """Everything that can be chosen; see `ValueSettings` too.

    Attributes:
        reward: what an agent learns from: `agent`, its own reward, or `team`, what the team earned.
        n_step: steps of a return; an agent that has to wait for its clock then is followed up to `look_ahead` steps.
        huber_delta: errors beyond it count linearly.
        priorities: None draws uniformly.
        batch: timesteps per update, with all their agents.
    """

    reward: Literal["agent", "team"]
    n_step: Count
    look_ahead: Count
    huber_delta: Positive
    priorities: PrioritySettings | None


class IDQN(ValueLearner[IDQNSettings]):
    """Implements `algorithm.Algorithm`.

    Raises:
        UserError: the settings contradict each other or do not fit the environment.
    """

    name = "idqn"

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: IDQNSettings,
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = NO_REDUCTION,
    ) -> None:
        if settings.network.recurrence != "none":
            raise UserError(
                "idqn: network.recurrence must be none: it learns from single decisions; qmix learns sequences"
            )
        if settings.look_ahead < settings.n_step:
            raise UserError(
                f"idqn: look_ahead {settings.look_ahead} is shorter than n_step {settings.n_step}; raise look_ahead"
            )
        super().__init__(environment, inputs, settings, seed=seed, timesteps=timesteps, reduction=reduction)
        self._priorities = (
            Priorities(self._replay, settings.priorities, look_ahead=settings.look_ahead)
            if settings.priorities is not None
            else None
        )
        self._errors = settings.acceleration.compiled(self._temporal_differences)

    def _new_replay(self, first: Timestep) -> Replay:
        return Replay(self._environment, first, buffer_size=self._settings.buffer_size, state=False)

    @property
    def _rows(self) -> int:
        return self._settings.look_ahead

    def _take_in(self) -> None:
        """See `ValueLearner`."""
        if self._priorities is not None:
            self._priorities.welcome()

    def _update(self) -> Tensor:
        """See `ValueLearner`."""
        s = self._settings
        position, importance = self._draw()
        losses, values, errors, counts = [], [], [], []
        for group in self._environment.groups:
            decisions = self._replay.decisions(
                group, position, n=s.n_step, look_ahead=s.look_ahead, gamma=s.gamma, team=s.reward == "team"
            )
            with s.acceleration.autocast(self._environment.device):
                error, value = self._errors(group, decisions)
            loss = functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=s.huber_delta)
            losses.append((loss * importance.unsqueeze(-1)).sum())
            values.append(value.sum())
            errors.append(error.detach().abs().sum(-1))
            counts.append(decisions.valid.sum(-1))
        count = torch.stack(counts).sum(0)
        total = count.sum().clamp(min=1)
        loss = torch.stack(losses).sum() / total
        norm = self._optimizer.step(loss, self.progress, count.sum())
        if self._priorities is not None:
            self._priorities.update(position, torch.stack(errors).sum(0) / count.clamp(min=1))
        return torch.stack([loss.detach(), torch.stack(values).sum() / total, norm])

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Positions [batch] and their importance weights [batch]."""
        s = self._settings
        if self._priorities is not None:
            return self._priorities.draw(s.batch, self.progress, self._generator)
        position = self._replay.draw(s.batch, s.look_ahead, self._generator)
        return position, torch.ones(s.batch, device=position.device)

    def _temporal_differences(self, group: str, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """Q(s, a) - target [B, A] and Q(s, a) [B, A] without gradient; 0 where there was no decision."""
        s = self._settings
        now, later = self._seen_by(group, decisions.now), self._seen_by(group, decisions.later)
        values = self._networks[group](now, None)[0]
        value = values.gather(-1, decisions.action.unsqueeze(-1)).squeeze(-1).float()
        with torch.no_grad():
            later_values = self._target[group](later, None)[0]
            ranked = self._networks[group](later, None)[0] if s.double else later_values
            best = masked(ranked, decisions.later.action_mask).argmax(-1, keepdim=True)
            next_value = later_values.gather(-1, best).squeeze(-1).float()
            target = s.reward_scale * decisions.returns + decisions.factor * next_value
        error = torch.where(decisions.valid, value - target, 0.0)
        return error, torch.where(decisions.valid, value.detach(), 0.0)

    def _seen_by(self, group: str, seen: GroupObservation) -> Tensor:
        """Rows [B, A, inputs]; of an absent agent nothing is seen."""
        return self._inputs(group, seen.observation).masked_fill(~seen.present.unsqueeze(-1), 0.0)

    def state_dict(self) -> dict[str, Any]:
        priorities = self._priorities.state_dict() if self._priorities is not None else {}
        return super().state_dict() | {"priorities": priorities}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self._priorities is not None:
            self._priorities.load_state_dict(state["priorities"])
