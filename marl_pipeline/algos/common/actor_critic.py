"""Actor and critic of one group of agents: networks of their own, with or without memory, for any action space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.config import Positive
from marl_pipeline.envs.protocol import Continuous, GroupSpec, GroupStep
from marl_pipeline.errors import UserError
from marl_pipeline.nn.distributions import Distribution, distribution, parameter_count
from marl_pipeline.nn.first_layers import AgentStateLayer, ObservationLayer, StateLayer
from marl_pipeline.nn.linear import AgentHead, AgentLinear, orthogonal
from marl_pipeline.nn.mlp import Trunk
from marl_pipeline.nn.recurrent import RecurrentState
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.nn.running_norm import Moments, RunningNorm
from marl_pipeline.nn.settings import NetworkSettings
from marl_pipeline.nn.value_norm import ValueNorm

CriticView = Literal["local", "state", "agent_state"]
"""What a critic sees: the agent's own observation; the global state; both and which agent it values."""

GAIN = 2**0.5
"""Of the orthogonal weights before an activation."""

OBSERVED_ROWS = 65_536
"""Rows of a rollout looked up at once when their statistics are taken."""


class ActorCriticSettings(NetworkSettings):
    """Shape of actor and critic, which are networks of their own; see `NetworkSettings` too.

    Attributes:
        normalise_inputs: rows and states less their running mean, over their running deviation.
        layer_norm: layer normalisation (Ba et al. 2016) of what the first layer makes of a row, before its activation;
            of the row itself it would remove level and scale.
        actor_gain: of the actor's last layer; small, so that the first policy is nearly uniform.
        log_std: initial log deviation of a Gaussian policy, before the squashing.
        agent_heads: the output is a layer that all agents share plus a correction for each that starts at zero.
    """

    normalise_inputs: bool
    layer_norm: bool
    actor_gain: Positive
    log_std: float
    agent_heads: bool

    @model_validator(mode="after")
    def _heads_correct_something_shared(self) -> Self:
        if self.agent_heads and not self.share_parameters:
            raise ValueError("agent_heads correct a shared network: set share_parameters true, or agent_heads false")
        return self


class ActorCriticNetwork(nn.Module):
    """What actor and critic have in common: a first layer, the layers after it, and the output."""

    def __init__(
        self,
        first: nn.Module,
        settings: ActorCriticSettings,
        outputs: int,
        *,
        agents: int,
        gain: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sets, width = settings.sets(agents), settings.hidden[-1]
        self.first = first
        self.layer_norm = settings.layer_norm
        self.trunk = Trunk(
            settings, sets=sets, initial=orthogonal(GAIN), recurrent_initial=orthogonal(), generator=generator
        )
        output = AgentLinear(width, outputs, sets=sets, initial=orthogonal(gain), generator=generator)
        self.output = AgentHead(output, agents) if settings.agent_heads else output

    def finish(self, first: Tensor, state: RecurrentState | None) -> tuple[Tensor, Tensor | None]:
        """[..., A, width] of the first layer to outputs [..., A, outputs], and the memory by then."""
        if self.layer_norm:
            first = functional.layer_norm(first, first.shape[-1:])
        rows, memory = self.trunk(first, state)
        return self.output(rows).float(), memory

    def norms(self) -> list[RunningNorm]:
        """The input statistics, none where inputs are not normalised."""
        return [module for module in self.modules() if isinstance(module, RunningNorm)]


class Actor(ActorCriticNetwork):
    """Parameters of the action distributions from the agents' own rows."""

    def __init__(self, spec: GroupSpec, inputs: int, settings: ActorCriticSettings, generator: torch.Generator) -> None:
        sets = settings.sets(spec.agents)
        gaussian = isinstance(spec.actions, Continuous)
        outputs = parameter_count(spec.actions) // (2 if gaussian else 1)
        first = ObservationLayer(
            inputs,
            settings.hidden[0],
            normalise=settings.normalise_inputs,
            sets=sets,
            initial=orthogonal(GAIN),
            generator=generator,
        )
        super().__init__(first, settings, outputs, agents=spec.agents, gain=settings.actor_gain, generator=generator)
        self.log_std = nn.Parameter(torch.full((sets, outputs), settings.log_std)) if gaussian else None

    def forward(self, rows: Tensor, state: RecurrentState | None) -> tuple[Tensor, Tensor | None]:
        """[..., A, inputs] -> parameters [..., A, P], memory [B, A, H]."""
        parameters, memory = self.finish(self.first(rows), state)
        if self.log_std is not None:
            parameters = torch.cat([parameters, self.log_std.expand_as(parameters)], -1)
        return parameters, memory

    def observe(self, rows: Moments) -> None:
        """Of the rows of agents that were present, for the statistics of the inputs."""
        for norm in self.norms():
            norm.observe_moments(rows)


class Critic(ActorCriticNetwork):
    """The value of every agent from what `view` says it sees."""

    def __init__(
        self,
        view: CriticView,
        spec: GroupSpec,
        inputs: int,
        state: int,
        settings: ActorCriticSettings,
        generator: torch.Generator,
    ) -> None:
        sets, width = settings.sets(spec.agents), settings.hidden[0]
        given: dict[str, Any] = {
            "normalise": settings.normalise_inputs, "sets": sets, "initial": orthogonal(GAIN), "generator": generator,
        }  # fmt: skip
        first: nn.Module
        match view:
            case "local":
                first = ObservationLayer(inputs, width, **given)
            case "state":
                first = StateLayer(state, width, **given)
            case "agent_state":
                first = AgentStateLayer(state, inputs, width, agents=spec.agents, **given)
        super().__init__(first, settings, 1, agents=spec.agents, gain=1.0, generator=generator)
        self.view = view
        self.rows = sets if view == "state" else spec.agents

    def forward(
        self, rows: Tensor, state: Tensor | None, present: Tensor, recurrent: RecurrentState | None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows [..., A, inputs], state [..., S], present [..., A] -> values [..., A], memory [B, A or 1, H]."""
        match self.view:
            case "local":  # of an absent agent nothing is seen
                first = self.first(rows.masked_fill(~present.unsqueeze(-1), 0.0))
            case "state":
                first = self.first(state)
            case "agent_state":
                first = self.first(rows, state, present)
        if recurrent is not None and self.view == "state":  # what it sees is there, whoever is present
            there = torch.ones((), dtype=torch.bool, device=present.device).expand(*present.shape[:-1], self.rows)
            recurrent = RecurrentState(recurrent.memory, recurrent.fresh, there)
        value, memory = self.finish(first, recurrent)
        return value.squeeze(-1).expand_as(present), memory

    def observe(self, rows: Moments, state: Moments | None) -> None:
        """Of the rows of agents that were present, and of the states where the critic reads them."""
        for norm, seen in zip(self.norms(), self._seen(rows, state), strict=False):
            norm.observe_moments(seen)

    def _seen(self, rows: Moments, state: Moments | None) -> list[Moments]:
        """In the order of `norms`."""
        if self.view == "local" or state is None:
            return [rows]
        return [state] if self.view == "state" else [state, rows]


@dataclass(frozen=True)
class ActorCriticOutput:
    """Parameters [..., A, P], values [..., A], and the memories of actor and critic by then (None without a GRU)."""

    parameters: Tensor
    value: Tensor
    actor_memory: Tensor | None
    critic_memory: Tensor | None


class GroupActorCritic:
    """Implements `ppo.ActorCritic` for one group of an environment.

    What a rollout keeps of a timestep (`stored`) is the observation as it was reported, who is present, the state where
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
        settings: ActorCriticSettings,
        *,
        normalise_values: bool,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        if view != "local" and state_size == 0:
            raise UserError(f"critic: '{view}' reads the global state, and this environment has none; train ippo here")
        self.name, self.spec, self.view = name, spec, view
        self.recurrent = settings.recurrence == "gru"
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
        output = self.output(inputs)
        return output.parameters, output.value

    def output(self, inputs: Mapping[str, Tensor]) -> ActorCriticOutput:
        """Of stored single steps [M, ...] or sequences [M, C, ...].

        The memories of a sequence are read at its first step only; the networks move them on themselves.
        """
        if not self.recurrent:
            return self._output(inputs, None, None)
        if inputs["actor_memory"].dim() == 3:
            single = self._output(
                {key: tensor.unsqueeze(0) for key, tensor in inputs.items()},
                inputs["actor_memory"],
                inputs["critic_memory"],
            )
            return ActorCriticOutput(
                single.parameters.squeeze(0), single.value.squeeze(0), single.actor_memory, single.critic_memory
            )
        first = [inputs[key][:, 0] for key in ("actor_memory", "critic_memory")]
        along = self._output({key: tensor.transpose(0, 1) for key, tensor in inputs.items()}, *first)
        return ActorCriticOutput(
            along.parameters.transpose(0, 1), along.value.transpose(0, 1), along.actor_memory, along.critic_memory
        )

    def act(self, step: GroupStep, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Parameters [E, A, P] of the actor alone, and its memory by then."""
        rows = self._inputs(self.name, step.observation)
        parameters: Tensor
        if memory is None:
            parameters, _ = self.actor(rows, None)
            return parameters, None
        fresh = torch.zeros(1, len(rows), dtype=torch.bool, device=rows.device)
        parameters, memory = self.actor(rows.unsqueeze(0), RecurrentState(memory, fresh, step.present.unsqueeze(0)))
        return parameters.squeeze(0), memory

    def _output(
        self, inputs: Mapping[str, Tensor], actor_memory: Tensor | None, critic_memory: Tensor | None
    ) -> ActorCriticOutput:
        """Of rows [M, ...] or, with memories, of sequences [C, M, ...]."""
        rows, present = self._rows(inputs), inputs["present"]

        def recurrent(memory: Tensor | None) -> RecurrentState | None:
            return None if memory is None else RecurrentState(memory, inputs["fresh"], present)

        parameters, actor_memory = self.actor(rows, recurrent(actor_memory))
        value, critic_memory = self.critic(rows, inputs.get("state"), present, recurrent(critic_memory))
        return ActorCriticOutput(parameters, value, actor_memory, critic_memory)

    def _rows(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self._inputs(self.name, {field: inputs[f"observation.{field}"] for field in self.spec.observation})

    def absorb(self, inputs: Mapping[str, Tensor], reduction: Reduction = NO_REDUCTION) -> None:
        """Counts a rollout's stored inputs [L, E, ...] into the statistics that inputs are normalised by.

        For after the update on it: a rollout is learned from with the statistics it was collected with.
        """
        norms = [*self.actor.norms(), *self.critic.norms()]
        if not norms:
            return
        present, state = inputs["present"], inputs.get("state")
        steps = max(OBSERVED_ROWS // present[0].numel(), 1)
        for start in range(0, len(present), steps):
            part = {key: tensor[start : start + steps] for key, tensor in inputs.items()}
            rows, there = self._rows(part), part["present"]
            moments = Moments.of(rows.flatten(0, -2) if bool(there.all()) else rows[there])
            self.actor.observe(moments)
            self.critic.observe(moments, None if state is None else Moments.of(part["state"].flatten(0, 1)))
        for norm in norms:
            norm.absorb(reduction)


KEYED_BY_AGENT = ("correction", "identity")
"""The last part of the name of a parameter whose first dimension is the agents of a group that share all others."""


def rekeyed(weights: Mapping[str, Tensor], old: Sequence[str], new: Sequence[str]) -> dict[str, Tensor]:
    """The state of a module with shared parameters for other agents: what is an agent's own follows its name, and
    agents that were not there start at zero.

    Args:
        old, new: names of the agents, in order.
    """
    position = {agent: index for index, agent in enumerate(old)}
    kept = [(index, position[agent]) for index, agent in enumerate(new) if agent in position]
    found = dict(weights)
    for name, source in weights.items():
        if name.rpartition(".")[2] in KEYED_BY_AGENT:
            found[name] = source.new_zeros((len(new), *source.shape[1:]))
            for index, was in kept:
                found[name][index] = source[was]
    return found
