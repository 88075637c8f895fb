"""Networks that value the actions of a group's agents, and the policy that picks the best of them most of the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from marl_pipeline.algos.common.algorithm import Memory
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.config import Count, Section
from marl_pipeline.envs.protocol import Discrete, Environment, Timestep
from marl_pipeline.errors import UserError
from marl_pipeline.nn.value_networks import GRU, Duelling, linear, mlp
from marl_pipeline.seeding import forked


class NetworkSettings(Section):
    """The network of one group.

    Attributes:
        hidden: widths of the layers before the head (and before the memory).
        memory: width of the GRU's memory; 0 for a network without memory.
        share_parameters: one set of weights for all agents of a group, or one each.
        agent_ids: tells shared weights which agent it is: an own bias of the first layer, as a one-hot input gives.
    """

    hidden: Annotated[tuple[Count, ...], Field(min_length=1)]
    memory: Annotated[int, Field(ge=0)]
    duelling: bool
    layer_norm: bool
    share_parameters: bool
    agent_ids: bool


class QNetwork(nn.Module):
    """Rows [..., A, inputs] of a group to the values of its actions [..., A, actions]."""

    def __init__(self, inputs: int, agents: int, actions: int, settings: NetworkSettings) -> None:
        super().__init__()
        own = None if settings.share_parameters else agents
        self.first = linear(inputs, settings.hidden[0], own)
        bound = inputs**-0.5
        self.identity = (
            nn.Parameter(torch.empty(agents, settings.hidden[0]).uniform_(-bound, bound))
            if settings.agent_ids
            else None
        )
        norm = [nn.LayerNorm(settings.hidden[0])] if settings.layer_norm else []
        rest = mlp(settings.hidden[0], settings.hidden[1:], layer_norm=settings.layer_norm, agents=own)
        self.body = nn.Sequential(*norm, nn.ReLU(), *rest)
        self.memory = GRU(settings.hidden[-1], settings.memory, own) if settings.memory else None
        width = settings.memory or settings.hidden[-1]
        self.head = Duelling(width, actions, own) if settings.duelling else linear(width, actions, own)

    def forward(self, rows: Tensor, memory: Tensor | None, ends: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values [L, B, A, actions] of windows of rows [L, B, A, inputs], and the memory after them, as `GRU` does.

        Without a memory the leading dimensions may be any, and `memory` and `ends` are not looked at.
        """
        first: Tensor = self.first(rows)
        if self.identity is not None:
            first = first + self.identity
        hidden: Tensor = self.body(first)
        if self.memory is not None:
            hidden, memory = self.memory(hidden, memory, ends)
        values: Tensor = self.head(hidden)
        return values, memory


def q_networks(
    environment: Environment, inputs: Inputs, settings: NetworkSettings, *, seed: int, name: str
) -> nn.ModuleDict:
    """One network per group.

    Args:
        name: of the algorithm, for the message.

    Raises:
        UserError: a group's actions are not one of n.
    """
    networks = nn.ModuleDict()
    with forked(seed, "q networks", torch.device("cpu")):
        for group, spec in environment.groups.items():
            if not isinstance(spec.actions, Discrete):
                raise UserError(
                    f"{name}: group {group!r} has {spec.actions}, and action values need one of n actions; "
                    "use an algorithm with an actor, or an environment with discrete actions"
                )
            networks[group] = QNetwork(inputs.width(group), spec.agents, spec.actions.n, settings)
    return networks.to(environment.device)


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """The values with -inf for actions that are not allowed."""
    return values.masked_fill(~mask, -torch.inf)


class EpsilonGreedy:
    """Implements `algorithm.Policy`: the action of highest value; with a generator, now and then any allowed one.

    `epsilon` is the probability of that, for every agent alone; `memory` the width of what the networks remember.
    """

    def __init__(self, environment: Environment, networks: nn.ModuleDict, inputs: Inputs, *, memory: int) -> None:
        self._groups, self._device = environment.groups, environment.device
        self._networks, self._inputs, self._memory = networks, inputs, memory
        self.epsilon = 1.0

    @property
    def module(self) -> nn.Module:
        return self._networks

    def memory_sizes(self) -> Mapping[str, int]:
        """group -> H; nothing for networks without memory."""
        return dict.fromkeys(self._groups, self._memory) if self._memory else {}

    def start(self, num_envs: int) -> Memory:
        return {
            group: torch.zeros(num_envs, self._groups[group].agents, width, device=self._device)
            for group, width in self.memory_sizes().items()
        }

    @torch.no_grad()
    def act(
        self, timestep: Timestep, memory: Memory, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Memory]:
        actions, remembered = {}, {}
        for group, network in self._networks.items():
            step = timestep.groups[group]
            rows = self._inputs(group, step.observation).unsqueeze(0)
            values, kept = network(rows, memory.get(group), timestep.done.unsqueeze(0)[:0])
            actions[group] = masked(values[0], step.action_mask).argmax(-1)
            if kept is not None:
                remembered[group] = kept
            if generator is not None:
                actions[group] = self._explored(actions[group], step.action_mask, generator)
        return actions, remembered

    def _explored(self, greedy: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(*greedy.shape, 1 + mask.shape[-1], generator=generator, device=generator.device)
        drawn = drawn.to(greedy.device)
        anything = masked(drawn[..., 1:], mask).argmax(-1)
        return torch.where(drawn[..., 0] < self.epsilon, anything, greedy)
