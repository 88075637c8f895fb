"""Symbol agents: one shared trunk, and for every symbol its own actor and critic as a correction to a shared one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from marl_pipeline.agents.view import MarketView
from marl_pipeline.algos.common.rollout import Decision, decide_from
from marl_pipeline.envs.protocol import GroupStep
from marl_pipeline.nn.networks import orthogonal_linear, trunk


class SymbolNetwork(nn.Module):
    """Actor and critic of N symbols.

    Each head is a shared prior plus a correction keyed by symbol that starts at zero: a symbol that was never seen
    (a listing) acts by the prior, and one that goes leaves nothing behind.
    """

    def __init__(
        self, *, inputs: int, symbols: int, actions: int, hidden: Sequence[int], actor_gain: float, seed: int
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.trunk = trunk(inputs, hidden, generator)
        self.actor = orthogonal_linear(hidden[-1], actions, actor_gain, generator)
        self.critic = orthogonal_linear(hidden[-1], 1, 1.0, generator)
        self.actor_correction = nn.Parameter(torch.zeros(symbols, hidden[-1], actions))
        self.critic_correction = nn.Parameter(torch.zeros(symbols, hidden[-1]))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[M, N, inputs] -> logits [M, N, actions], values [M, N]."""
        hidden = self.trunk(rows)
        by_symbol = hidden.transpose(0, 1)  # [N, M, H]: one batched product for all heads
        logits = self.actor(hidden) + torch.bmm(by_symbol, self.actor_correction).transpose(0, 1)
        correction = torch.bmm(by_symbol, self.critic_correction.unsqueeze(-1)).squeeze(-1).transpose(0, 1)
        return logits, self.critic(hidden).squeeze(-1) + correction


def rekey_heads(weights: Mapping[str, Tensor], old: Sequence[str], new: Sequence[str]) -> dict[str, Tensor]:
    """Weights of a `SymbolNetwork` for another universe: corrections follow their symbol, new symbols get zeros."""
    position = {symbol: index for index, symbol in enumerate(old)}
    rekeyed = dict(weights)
    for name in ("actor_correction", "critic_correction"):
        source = weights[name]
        target = source.new_zeros((len(new), *source.shape[1:]))
        for index, symbol in enumerate(new):
            if symbol in position:
                target[index] = source[position[symbol]]
        rekeyed[name] = target
    return rekeyed


class SymbolAgents:
    """A `SymbolNetwork` looking at one `MarketView`. Inputs: market row, market regime, own position, directive."""

    def __init__(self, module: SymbolNetwork, view: MarketView) -> None:
        self.module = module
        self.view = view

    @staticmethod
    def input_width(view: MarketView, observation: Mapping[str, tuple[int, ...]]) -> int:
        return view.symbol_width + view.market_width + observation["position"][0] + observation["directive"][0]

    @staticmethod
    def inputs(step: GroupStep) -> dict[str, Tensor]:
        """What a rollout stores of an observation: the bar [E], and the dynamic state [E, N, ...]."""
        seen = step.observation
        return {"bar": seen["bar"][:, 0], "position": seen["position"], "directive": seen["directive"]}

    def evaluate(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        rows = self.view.symbols_at(inputs["bar"])
        market = self.view.market_at(inputs["bar"]).unsqueeze(1).expand(-1, rows.shape[1], -1)
        logits, value = self.module(torch.cat([rows, market, inputs["position"], inputs["directive"]], dim=-1))
        return logits, value

    def decide(self, step: GroupStep, generator: torch.Generator | None) -> tuple[Decision, Tensor]:
        """A decision and the logits [E, N, actions] behind it."""
        inputs = self.inputs(step)
        logits, value = self.evaluate(inputs)
        return decide_from(inputs, logits, value, step.action_mask, generator), logits
