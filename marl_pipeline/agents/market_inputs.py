"""What any learner may read of the trading environment: the market's rows at an agent's bar, and its own fields."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from marl_pipeline.agents.view import MarketView
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.envs.protocol import GroupSpec
from marl_pipeline.envs.wrappers import JOINED, STATE

REFERENCES = ("bar", "symbol")


class MarketInputs:
    """Implements `algos.inputs.Inputs`: the row of the agent's symbol if it has one, the market's row, its own fields.

    Environments of this market must stay at bars that `view` has rows for.
    """

    def __init__(self, view: MarketView, groups: Mapping[str, GroupSpec]) -> None:
        self._view = view
        self._own = DenseInputs(groups, REFERENCES)
        self._with_symbol = {group for group, spec in groups.items() if "symbol" in spec.observation}

    def width(self, group: str) -> int:
        rows = self._view.symbol_width if group in self._with_symbol else 0
        return rows + self._view.market_width + self._own.width(group)

    def of(self, groups: Mapping[str, GroupSpec]) -> MarketInputs:
        return MarketInputs(self._view, groups)

    def __call__(self, group: str, observation: Mapping[str, Tensor]) -> Tensor:
        row = observation["bar"] - self._view.start
        parts = [self._view.market_rows[row], self._own(group, observation)]
        if group in self._with_symbol:
            parts.insert(0, self._view.symbol_rows[row, observation["symbol"]])
        return torch.cat(parts, dim=-1)


class JoinedMarketInputs:
    """Implements `algos.inputs.Inputs` for one agent over the whole portfolio (`envs.wrappers.JoinedAgents`): the rows
    of all symbols side by side, the market's row, all positions and the portfolio (the global state).
    """

    def __init__(self, view: MarketView, groups: Mapping[str, GroupSpec]) -> None:
        fields = groups[JOINED].observation
        self._view = view
        symbols, position = fields["position"]
        self._width = symbols * (view.symbol_width + position) + view.market_width + fields[STATE][0]

    def width(self, group: str) -> int:
        return self._width

    def of(self, groups: Mapping[str, GroupSpec]) -> JoinedMarketInputs:
        return JoinedMarketInputs(self._view, groups)

    def __call__(self, group: str, observation: Mapping[str, Tensor]) -> Tensor:
        bars = observation["bar"] - self._view.start
        rows = self._view.symbol_rows[bars, observation["symbol"]]
        market = self._view.market_rows[bars[..., 0]]
        return torch.cat([rows.flatten(-2), market, observation["position"].flatten(-2), observation[STATE]], dim=-1)
