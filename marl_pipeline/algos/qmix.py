"""QMIX (Rashid et al. 2018, 2020): agents that act alone on utilities learned through the value of the team.

With `mixer: sum` it is VDN (Sunehag et al. 2018). Agents of all groups are mixed together, and learn from the team's
reward in windows of consecutive steps.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from marl_pipeline.algos.common.action_values import masked
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.algos.common.replay import Replay, Windows
from marl_pipeline.algos.common.returns import lambda_returns, n_step_returns
from marl_pipeline.algos.common.value_learning import ValueLearner, ValueSettings
from marl_pipeline.config import Count, Fraction, Section
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.nn.mixers import Monotonic, Sum
from marl_pipeline.nn.recurrent import RecurrentState
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.seeding import stream


class MixerSettings(Section):
    """`sum` (VDN) has no weights; `monotonic` (QMIX) a hidden layer of `width` and hypernetworks of `hyper`."""

    kind: Literal["sum", "monotonic"]
    width: Count
    hyper: Count


class QMIXSettings(ValueSettings):
    """Everything that can be chosen; see `ValueSettings` too.

    Attributes:
        targets: `n_step` returns of `n_step` steps, or `lambda` returns, inside the window.
        window: consecutive steps learned together, and the rows between two starts where a memory is kept.
        burn_in: the first steps of a window, which are left out of the loss and only warm up the memory (Kapturowski et
            al. 2019); 0 without a memory.
        batch: windows per update.
    """

    mixer: MixerSettings
    targets: Literal["n_step", "lambda"]
    n_step: Count
    td_lambda: Fraction
    window: Count
    burn_in: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if self.burn_in >= self.window:
            raise ValueError(f"burn_in {self.burn_in} leaves nothing of a window of {self.window} steps")
        if self.burn_in and self.network.recurrence == "none":
            raise ValueError(f"burn_in {self.burn_in}: a network without recurrence has nothing to warm up (burn_in 0)")
        return self


class QMIX(ValueLearner[QMIXSettings]):
    """Implements `algorithm.Algorithm`."""

    name = "qmix"

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: QMIXSettings,
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = NO_REDUCTION,
    ) -> None:
        super().__init__(environment, inputs, settings, seed=seed, timesteps=timesteps, reduction=reduction)
        self._target_networks = cast(nn.ModuleDict, self._target["networks"])
        self._loss = settings.acceleration.compiled(self._losses)

    def _all_learned(self, seed: int) -> nn.ModuleDict:
        environment, given = self._environment, self._settings.mixer
        agents = sum(spec.agents for spec in environment.groups.values())
        state = environment.state_size or sum(
            spec.agents * self._inputs.width(group) for group, spec in environment.groups.items()
        )
        mixer = (
            Sum()
            if given.kind == "sum"
            else Monotonic(agents, state, width=given.width, hyper=given.hyper, generator=stream(seed, "mixer"))
        )
        return nn.ModuleDict({"networks": self._networks, "mixer": mixer.to(environment.device)})

    def _new_replay(self, first: Timestep) -> Replay:
        s = self._settings
        return Replay(
            self._environment,
            first,
            buffer_size=s.buffer_size,
            memory=self.policy.memory_sizes(),
            stride=s.window if s.network.recurrence == "gru" else 1,
        )

    @property
    def _rows(self) -> int:
        return self._settings.window

    def _update(self) -> Tensor:
        """See `ValueLearner`; the value is the team's."""
        s = self._settings
        windows = self._replay.windows(self._replay.draw(s.batch, s.window, self._generator), s.window)
        rows = {group: self._inputs(group, seen.observation) for group, seen in windows.observations.groups.items()}
        with s.acceleration.autocast(self._environment.device):
            loss, q_mean = self._loss(windows, rows)
        norm = self._optimizer.step(loss, self.progress, windows.valid[s.burn_in :].sum())
        return torch.stack([loss.detach(), q_mean, norm])

    def _losses(self, windows: Windows, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean squared error of the team's value over the valid steps of the windows, and the mean value."""
        s = self._settings
        chosen, next_value = [], []
        for group, seen in windows.observations.groups.items():
            recurrent = _recurrent_state(windows, group)
            values, _ = self._networks[group](rows[group], recurrent)
            with torch.no_grad():
                target_values, _ = self._target_networks[group](rows[group], recurrent)
                ranked = masked(values.detach() if s.double else target_values, seen.action_mask)[1:]
                best = target_values[1:].gather(-1, ranked.argmax(-1, keepdim=True)).squeeze(-1)
                next_value.append(torch.where(seen.acts[1:], best, 0.0))
            utility = values[:-1].gather(-1, windows.outcomes[group].action.unsqueeze(-1)).squeeze(-1)
            chosen.append(torch.where(seen.acts[:-1], utility, 0.0))
        state = (
            windows.observations.state
            if windows.observations.state.shape[-1]
            else torch.cat([table.flatten(-2) for table in rows.values()], dim=-1)
        )
        team = self._learned["mixer"](torch.cat(chosen, dim=-1), state[:-1])
        with torch.no_grad():
            team_next_value = self._target["mixer"](torch.cat(next_value, dim=-1), state[1:])
            target = self._returns(windows, team_next_value)
        weight = windows.valid.float()
        weight[: s.burn_in] = 0.0
        weight = weight / weight.sum().clamp(min=1.0)
        loss = (functional.mse_loss(team.float(), target, reduction="none") * weight).sum()
        return loss, (team.detach() * weight).sum()

    def _returns(self, windows: Windows, next_value: Tensor) -> Tensor:
        s = self._settings
        reward = windows.team_reward * s.reward_scale
        discount = s.gamma * ~windows.terminated
        if s.targets == "lambda":
            return lambda_returns(reward, discount, next_value.float(), windows.truncated, s.td_lambda)
        return n_step_returns(reward, discount, next_value.float(), windows.truncated, s.n_step)


def _recurrent_state(windows: Windows, group: str) -> RecurrentState | None:
    """None for networks without recurrence. The memory that a window begins with belongs to its first row already."""
    if group not in windows.memory:
        return None
    fresh = torch.cat([torch.zeros_like(windows.ends[:1]), windows.ends])
    return RecurrentState(windows.memory[group], fresh, windows.observations.groups[group].present)
