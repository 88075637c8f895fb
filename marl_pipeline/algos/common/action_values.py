"""Networks that value the actions of a group's agents, and the policy that picks the best of them most of the time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.algorithm import Memory
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.envs.protocol import Discrete, Environment, Timestep
from marl_pipeline.errors import UserError
from marl_pipeline.nn.linear import AgentLinear, uniform
from marl_pipeline.nn.mlp import Trunk
from marl_pipeline.nn.recurrent import RecurrentState
from marl_pipeline.nn.settings import NetworkSettings
from marl_pipeline.seeding import stream


class ActionValueSettings(NetworkSettings):
    """The network of one group; see `NetworkSettings` too.

    Attributes:
        layer_norm: before each activation.
        agent_ids: every agent has a first bias of its own, which is what a one-hot agent id among the inputs adds; it
            tells agents apart that share all else.
    """

    duelling: bool
    layer_norm: bool
    agent_ids: bool


class Duelling(nn.Module):
    """Action values as a state's value plus advantages of mean zero (Wang et al. 2016, eq. 9)."""

    def __init__(self, inputs: int, actions: int, *, sets: int, generator: torch.Generator) -> None:
        super().__init__()
        self.value = AgentLinear(inputs, 1, sets=sets, initial=uniform(), generator=generator)
        self.advantage = AgentLinear(inputs, actions, sets=sets, initial=uniform(), generator=generator)

    def forward(self, rows: Tensor) -> Tensor:
        """[..., A, inputs] to [..., A, actions]."""
        value: Tensor = self.value(rows)
        advantage: Tensor = self.advantage(rows)
        return value + advantage - advantage.mean(-1, keepdim=True)


class QNetwork(nn.Module):
    """Rows [..., A, inputs] of a group to the values of its actions [..., A, actions]."""

    def __init__(
        self, inputs: int, agents: int, actions: int, settings: ActionValueSettings, generator: torch.Generator
    ) -> None:
        super().__init__()
        sets, width, initial = settings.sets(agents), settings.hidden[-1], uniform()
        self.first = AgentLinear(
            inputs,
            settings.hidden[0],
            sets=sets,
            biases=agents if settings.agent_ids else sets,
            initial=initial,
            generator=generator,
        )
        self.trunk = Trunk(
            settings,
            sets=sets,
            initial=initial,
            recurrent_initial=initial,
            generator=generator,
            layer_norm=settings.layer_norm,
        )
        self.head = (
            Duelling(width, actions, sets=sets, generator=generator)
            if settings.duelling
            else AgentLinear(width, actions, sets=sets, initial=initial, generator=generator)
        )

    def forward(self, rows: Tensor, state: RecurrentState | None) -> tuple[Tensor, Tensor | None]:
        """Values [T, B, A, actions] of sequences of rows [T, B, A, inputs], and the memory [B, A, H] after them.

        Without recurrence the leading dimensions may be any, and `state` is not looked at.
        """
        hidden, memory = self.trunk(self.first(rows), state)
        values: Tensor = self.head(hidden)
        return values, memory


def q_networks(
    environment: Environment, inputs: Inputs, settings: ActionValueSettings, *, seed: int, name: str
) -> nn.ModuleDict:
    """One network per group.

    Args:
        name: of the algorithm, for the message.

    Raises:
        UserError: a group's actions are not one of n.
    """
    networks, generator = nn.ModuleDict(), stream(seed, "q networks")
    for group, spec in environment.groups.items():
        if not isinstance(spec.actions, Discrete):
            raise UserError(
                f"{name}: group {group!r} has {spec.actions}, and action values need one of n actions; "
                "use an algorithm with an actor, or an environment with discrete actions"
            )
        networks[group] = QNetwork(inputs.width(group), spec.agents, spec.actions.n, settings, generator)
    return networks.to(environment.device)


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """The values with -inf for actions that are not allowed."""
    return values.masked_fill(~mask, -torch.inf)


class EpsilonGreedy:
    """Implements `algorithm.Policy`: the action of highest value; with a generator, now and then any allowed one.

    `epsilon` is the probability of that, for every agent alone; `memory` the width of the recurrent memory, 0 without.
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
            state = None
            if group in memory:
                fresh = torch.zeros_like(timestep.done).unsqueeze(0)
                state = RecurrentState(memory[group], fresh, step.present.unsqueeze(0))
            values, kept = network(rows, state)
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
