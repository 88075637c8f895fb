"""The master agent: reads what the symbol agents intend, the book and the regime, and issues directives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from marl_pipeline.agents.view import MarketView
from marl_pipeline.algos.common.rollout import Decision, decide_from
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.nn.distributions import masked_log_softmax
from marl_pipeline.nn.networks import orthogonal_linear, trunk
from marl_pipeline.nn.value_norm import ValueNorm


class MasterNetwork(nn.Module):
    """Actor on the master's observation, critic on that and the global state (a central value function).

    The critic's output is in units of `value_norm`, when there is one.
    """

    def __init__(
        self,
        *,
        inputs: int,
        state: int,
        actions: int,
        hidden: Sequence[int],
        actor_gain: float,
        normalise_values: bool,
        seed: int,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.actor = nn.Sequential(
            trunk(inputs, hidden, generator), orthogonal_linear(hidden[-1], actions, actor_gain, generator)
        )
        self.value_norm = ValueNorm() if normalise_values else None
        self.critic = nn.Sequential(
            trunk(inputs + state, hidden, generator), orthogonal_linear(hidden[-1], 1, 1.0, generator)
        )

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """[M, inputs] and [M, S] -> logits [M, 1, actions], values [M, 1]."""
        logits = self.actor(observation).unsqueeze(1)
        return logits, self.critic(torch.cat([observation, state], dim=-1))


def pooled_intents(logits: Tensor, mask: Tensor) -> Tensor:
    """What the symbols intend, whatever their number: mean and maximum of their action probabilities.

    Args:
        logits: [E, N, actions] of the symbol agents; mask: their action mask.

    Returns:
        [E, 2 x actions]; symbols that can only hold do not count, and all zeros says that none can do else.
    """
    probabilities = masked_log_softmax(logits, mask).exp()
    free = (mask.sum(-1) > 1).unsqueeze(-1)
    counted = torch.where(free, probabilities, 0.0)
    mean = counted.sum(1) / free.sum(1).clamp(min=1)
    return torch.cat([mean, counted.amax(1)], dim=-1)


class MasterAgent:
    """A `MasterNetwork` looking at the regime rows of one `MarketView`."""

    def __init__(self, module: MasterNetwork, view: MarketView) -> None:
        self.module = module
        self.view = view

    @staticmethod
    def input_width(view: MarketView, observation: Mapping[str, tuple[int, ...]], symbol_actions: int) -> int:
        return view.market_width + observation["portfolio"][0] + 2 * symbol_actions

    def evaluate(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        market = self.view.market_at(inputs["bar"])
        observation = torch.cat([market, inputs["portfolio"], inputs["intents"]], dim=-1)
        logits, value = self.module(observation, inputs["state"])
        return logits, value

    def decide(self, timestep: Timestep, intents: Tensor, generator: torch.Generator | None) -> Decision:
        step = timestep.groups["master"]
        inputs = {
            "bar": step.observation["bar"][:, 0],
            "portfolio": step.observation["portfolio"][:, 0],
            "intents": intents,
            "state": timestep.state,
        }
        logits, value = self.evaluate(inputs)
        return decide_from(inputs, logits, value, step.action_mask, generator)
