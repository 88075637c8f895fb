"""Actor and critic of one group of agents: networks of their own, with or without memory, for any action space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.config import Count, Positive, Section
from marl_pipeline.envs.protocol import Continuous, GroupSpec, GroupStep
from marl_pipeline.errors import UserError
from marl_pipeline.nn.distributions import Distribution, distribution, parameter_count
from marl_pipeline.nn.orthogonal import AgentNorm, OrthogonalGRU, OrthogonalLinear
from marl_pipeline.nn.value_norm import ValueNorm

CriticView = Literal["local", "state", "agent_state"]
"""What a critic sees: the agent's own observation; the global state; both and which agent it values."""

GAIN = 2**0.5
"""Of the orthogonal weights before an activation."""


class NetworkSettings(Section):
    """Shape of actor and critic, which are networks of their own.

    Attributes:
        hidden: widths of the hidden layers.
        activation: after each of them.
        normalise_inputs: LayerNorm on the rows that come in; it hides their common scale.
        actor_gain: of the actor's last layer; small, so that the first policy is nearly uniform.
        log_std: initial log deviation of a Gaussian policy, before the squashing.
        memory: a GRU between the last hidden layer and the output, as wide as that layer.
        share_parameters: one network for all agents of a group, or one for each.
    """

    hidden: Annotated[tuple[Count, ...], Field(min_length=1)]
    activation: Literal["tanh", "relu"]
    normalise_inputs: bool
    actor_gain: Positive
    log_std: float
    memory: Literal["none", "gru"]
    share_parameters: bool


@dataclass(frozen=True)
class Recall:
    """What a network with memory is told besides its rows; see `OrthogonalGRU`."""

    memory: Tensor
    fresh: Tensor
    present: Tensor


class Tower(nn.Module):
    """What follows the first linear layer: activation, further layers, an optional GRU and the output."""

    def __init__(
        self, settings: NetworkSettings, outputs: int, copies: int, gain: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        hidden = settings.hidden
        self._activation = torch.tanh if settings.activation == "tanh" else functional.relu
        self.layers = nn.ModuleList(
            OrthogonalLinear(width, following, copies, GAIN, generator) for width, following in pairwise(hidden)
        )
        self.gru = OrthogonalGRU(hidden[-1], hidden[-1], copies, generator) if settings.memory == "gru" else None
        self.output = OrthogonalLinear(hidden[-1], outputs, copies, gain, generator)

    def forward(self, entered: Tensor, recall: Recall | None) -> tuple[Tensor, Tensor | None]:
        """[..., A, hidden] from the first layer -> outputs [..., A, outputs], and what is remembered by then."""
        rows = self._activation(entered)
        for layer in self.layers:
            rows = self._activation(layer(rows))
        memory = None
        if self.gru is not None:
            assert recall is not None
            rows = self.gru(rows, recall.memory, recall.fresh, recall.present)
            memory = rows[:, -1].float()
        return self.output(rows).float(), memory


class RowsEntry(nn.Module):
    """The first layer of a network that sees an agent's own row."""

    def __init__(self, inputs: int, settings: NetworkSettings, copies: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = AgentNorm(inputs, copies) if settings.normalise_inputs else nn.Identity()
        self.linear = OrthogonalLinear(inputs, settings.hidden[0], copies, GAIN, generator)

    def forward(self, rows: Tensor) -> Tensor:
        entered: Tensor = self.linear(self.norm(rows))
        return entered


class StateEntry(nn.Module):
    """The first layer of a network that sees the global state [..., S], read once for all agents.

    One set of weights gives one row [..., 1, hidden] for all; A sets give [..., A, hidden].
    """

    def __init__(self, state: int, settings: NetworkSettings, copies: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(state) if settings.normalise_inputs else nn.Identity()
        self.linear = OrthogonalLinear(state, settings.hidden[0], copies, GAIN, generator)

    def forward(self, state: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        entered = functional.linear(self.norm(state), weight.flatten(0, 1), bias.flatten())
        return entered.reshape(*state.shape[:-1], *bias.shape)


class AgentStateEntry(nn.Module):
    """The first layer of a critic that sees the state, the agent's own row and which agent it is (Yu et al. 2022, the
    agent-specific state).

    A linear layer of the three side by side is the sum of three: the state's share is computed once for all agents, so
    the cost grows with their number and not with its square. Of an absent agent only its identity is seen (death
    masking).
    """

    def __init__(
        self, state: int, inputs: int, agents: int, settings: NetworkSettings, copies: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.state = StateEntry(state, settings, copies, generator)
        self.rows = RowsEntry(inputs, settings, copies, generator)
        self.identity = nn.Parameter(torch.zeros(agents, settings.hidden[0]))

    def forward(self, rows: Tensor, state: Tensor, present: Tensor) -> Tensor:
        seen: Tensor = self.state(state) + self.rows(rows)
        return seen.masked_fill(~present.unsqueeze(-1), 0.0) + self.identity


class Actor(nn.Module):
    """Parameters of the action distributions from the agents' own rows."""

    def __init__(self, spec: GroupSpec, inputs: int, settings: NetworkSettings, generator: torch.Generator) -> None:
        super().__init__()
        copies = 1 if settings.share_parameters else spec.agents
        gaussian = isinstance(spec.actions, Continuous)
        outputs = parameter_count(spec.actions) // (2 if gaussian else 1)
        self.entry = RowsEntry(inputs, settings, copies, generator)
        self.tower = Tower(settings, outputs, copies, settings.actor_gain, generator)
        self.log_std = nn.Parameter(torch.full((copies, outputs), settings.log_std)) if gaussian else None

    def forward(self, rows: Tensor, recall: Recall | None) -> tuple[Tensor, Tensor | None]:
        """[..., A, inputs] -> parameters [..., A, P], memory [M, A, H]."""
        parameters, memory = self.tower(self.entry(rows), recall)
        if self.log_std is not None:
            parameters = torch.cat([parameters, self.log_std.expand_as(parameters)], -1)
        return parameters, memory


class Critic(nn.Module):
    """The value of every agent from what `view` says it sees."""

    def __init__(
        self,
        view: CriticView,
        spec: GroupSpec,
        inputs: int,
        state: int,
        settings: NetworkSettings,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        copies = 1 if settings.share_parameters else spec.agents
        self.view = view
        self.rows = copies if view == "state" else spec.agents
        self.entry: nn.Module
        match view:
            case "local":
                self.entry = RowsEntry(inputs, settings, copies, generator)
            case "state":
                self.entry = StateEntry(state, settings, copies, generator)
            case "agent_state":
                self.entry = AgentStateEntry(state, inputs, spec.agents, settings, copies, generator)
        self.tower = Tower(settings, 1, copies, 1.0, generator)

    def forward(
        self, rows: Tensor, state: Tensor | None, present: Tensor, recall: Recall | None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows [..., A, inputs], state [..., S], present [..., A] -> values [..., A], memory [M, A or 1, H]."""
        match self.view:
            case "local":  # of an absent agent nothing is seen
                entered = self.entry(rows.masked_fill(~present.unsqueeze(-1), 0.0))
            case "state":
                entered = self.entry(state)
            case "agent_state":
                entered = self.entry(rows, state, present)
        if recall is not None and self.view == "state":  # what it sees is there, whoever is present
            there = torch.ones((), dtype=torch.bool, device=present.device).expand(*present.shape[:-1], self.rows)
            recall = Recall(recall.memory, recall.fresh, there)
        value, memory = self.tower(entered, recall)
        return value.squeeze(-1).expand_as(present), memory


@dataclass(frozen=True)
class Judgement:
    """Parameters [..., A, P], values [..., A], and what actor and critic remember by then (None without memory)."""

    parameters: Tensor
    value: Tensor
    actor_memory: Tensor | None
    critic_memory: Tensor | None


class GroupActorCritic:
    """Implements `ppo.ActorCritic` for one group of an environment.

    What a rollout keeps of a timestep (`stored`) is the observation as it was told, who is present, the state where
    the critic reads it, and the memories with the flag of a new episode.

    Raises:
        ValueError: the critic is to see the state of an environment that has none.
    """

    def __init__(
        self,
        name: str,
        spec: GroupSpec,
        inputs: Inputs,
        state_size: int,
        view: CriticView,
        settings: NetworkSettings,
        *,
        normalise_values: bool,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        if view != "local" and state_size == 0:
            raise UserError(f"critic: '{view}' reads the global state, and this environment has none; train ippo here")
        self.name, self.spec, self.view = name, spec, view
        self.recurrent = settings.memory == "gru"
        self.width = settings.hidden[-1]
        self._inputs = inputs
        self.actor = Actor(spec, inputs.width(name), settings, generator)
        self.critic = Critic(view, spec, inputs.width(name), state_size, settings, generator)
        self.norm = ValueNorm() if normalise_values else None
        parts: dict[str, nn.Module] = {"actor": self.actor, "critic": self.critic}
        if self.norm is not None:
            parts["norm"] = self.norm
        self._module = nn.ModuleDict(parts).to(device)

    @property
    def module(self) -> nn.Module:
        return self._module

    def distribution(self, parameters: Tensor, mask: Tensor) -> Distribution:
        return distribution(self.spec.actions, parameters, mask)

    def stored(self, step: GroupStep, state: Tensor) -> dict[str, Tensor]:
        """The inputs of `evaluate` but for the memories, [E, ...] each."""
        kept = {f"observation.{field}": tensor for field, tensor in step.observation.items()}
        kept["present"] = step.present
        if self.view != "local":
            kept["state"] = state
        return kept

    def evaluate(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        judgement = self.judge(inputs)
        return judgement.parameters, judgement.value

    def judge(self, inputs: Mapping[str, Tensor]) -> Judgement:
        """What the networks make of stored single steps [M, ...] or sequences [M, C, ...].

        The memories of a sequence are read at its first step only; the networks move them on themselves.
        """
        if not self.recurrent:
            return self._judge(inputs, None, None)
        if inputs["actor_memory"].dim() == 4:
            return self._judge(inputs, inputs["actor_memory"][:, 0], inputs["critic_memory"][:, 0])
        single = {key: tensor.unsqueeze(1) for key, tensor in inputs.items()}
        told = self._judge(single, inputs["actor_memory"], inputs["critic_memory"])
        return Judgement(told.parameters.squeeze(1), told.value.squeeze(1), told.actor_memory, told.critic_memory)

    def act(self, step: GroupStep, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Parameters [E, A, P] of the actor alone, and its memory by then."""
        rows = self._inputs(self.name, step.observation)
        parameters: Tensor
        if memory is None:
            parameters, _ = self.actor(rows, None)
            return parameters, None
        fresh = torch.zeros(len(rows), 1, dtype=torch.bool, device=rows.device)
        parameters, memory = self.actor(rows.unsqueeze(1), Recall(memory, fresh, step.present.unsqueeze(1)))
        return parameters.squeeze(1), memory

    def _judge(
        self, inputs: Mapping[str, Tensor], actor_memory: Tensor | None, critic_memory: Tensor | None
    ) -> Judgement:
        rows = self._inputs(self.name, {field: inputs[f"observation.{field}"] for field in self.spec.observation})
        present = inputs["present"]

        def recall(memory: Tensor | None) -> Recall | None:
            return None if memory is None else Recall(memory, inputs["fresh"], present)

        parameters, actor_memory = self.actor(rows, recall(actor_memory))
        value, critic_memory = self.critic(rows, inputs.get("state"), present, recall(critic_memory))
        return Judgement(parameters, value, actor_memory, critic_memory)
