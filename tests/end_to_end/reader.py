"""An agent that hangs on a single input, by the doors through which every agent reads; and one that reads it early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from marl_pipeline.agents.intents import pooled_intents
from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.algos.common.episodes import Memoryless
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.envs.trading.core.actions import ACTIONS, DIRECTIVE_ACTIONS
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.evaluation.records import Record
from marl_pipeline.evaluation.walk_forward import trade

INPUTS: tuple[tuple[Literal["symbols", "master"], str], ...] = (
    ("symbols", "features"),
    ("symbols", "signals"),
    ("symbols", "embedding"),
    ("symbols", "sentiment"),
    ("symbols", "regime"),
    ("symbols", "macro"),
    ("symbols", "position"),
    ("symbols", "mask"),
    ("master", "regime"),
    ("master", "macro"),
    ("master", "portfolio"),
    ("master", "intents"),
)
"""Everything that a decision can hang on: group, input. The directive is what the master decided before."""

STEEP = 30.0


@dataclass
class Reader:
    """Decides by one input of one group alone, so steeply that any change of it is likely to change the decision.

    The other group reads an input of its own, on time.

    Args:
        ahead: the input is that of the next bar, from the simulator's own next timestep.
    """

    market: TradingMarket
    environment: TradingEnv
    group: Literal["symbols", "master"]
    name: str
    ahead: bool

    def __call__(self, timestep: Timestep) -> Mapping[str, Tensor]:
        shown = peek(self.environment) if self.ahead else timestep
        symbols = timestep.groups["symbols"]
        by_symbols, by_master = (shown, timestep) if self.group == "symbols" else (timestep, shown)
        mask = (shown if self.name == "mask" else timestep).groups["symbols"].action_mask
        read = self.read("symbols", self.name if self.group == "symbols" else "features", by_symbols)
        scores = hashed(read, len(ACTIONS))
        heard = self.read("master", self.name if self.group == "master" else "portfolio", by_master)
        return {
            "symbols": scores.masked_fill(~mask, -torch.inf).argmax(-1).reshape(symbols.reward.shape),
            "master": hashed(heard, DIRECTIVE_ACTIONS).argmax(-1),
        }

    def read(self, group: Literal["symbols", "master"], name: str, timestep: Timestep) -> Tensor:
        """[1, A, width] the input at that timestep."""
        step = timestep.groups[group]
        if name == "mask":
            return step.action_mask.float()
        if name == "intents":
            own = timestep.groups["symbols"]
            return pooled_intents(
                hashed(self.read("symbols", "features", timestep), len(ACTIONS)), own.action_mask
            ).unsqueeze(1)
        rows = self.market.inputs(self.environment.groups)(group, step.observation)
        start, width = self.columns(group)[name]
        return rows[..., start : start + width]

    def columns(self, group: Literal["symbols", "master"]) -> dict[str, tuple[int, int]]:
        """Where each input lies in the rows of a group: start, width."""
        widths = dict(self.market.view.columns) if group == "symbols" else {}
        widths["regime"] = self.market.dataset.regime.shape[-1]
        widths["macro"] = self.market.dataset.macro.shape[-1]
        own = self.environment.groups[group].observation
        widths |= {name: shape[0] for name, shape in own.items() if shape}
        starts = torch.tensor([0, *widths.values()]).cumsum(0).tolist()
        assert starts[-1] == self.market.inputs(self.environment.groups).width(group)
        return {name: (start, width) for (name, width), start in zip(widths.items(), starts, strict=False)}


def hashed(read: Tensor, actions: int) -> Tensor:
    """[..., actions] scores that jump about as what is read changes a little."""
    weights = torch.randn(read.shape[-1], actions, generator=torch.Generator().manual_seed(actions))
    return torch.cos(STEEP * (read @ weights) + torch.arange(actions))


def peek(environment: TradingEnv) -> Timestep:
    """What the next bar will show if nothing is traded; the environment stays where it is."""
    state = environment.state_dict()
    quiet = torch.zeros(1, environment.market.size, dtype=torch.int64)
    later = environment.step({"symbols": quiet, "master": torch.zeros(1, 1, dtype=torch.int64)})
    environment.load_state_dict(state)
    return later


def read_window(
    market: TradingMarket, group: Literal["symbols", "master"], name: str, *, span: Span, ahead: bool
) -> Record:
    """A reader trades the bars of `span`."""
    environment = market.environment("portfolio", span, num_envs=1, episode=None, seed=0)
    reader = Reader(market, environment, group, name, ahead)
    return trade(environment, Memoryless(reader), market.dataset.panel, window=0, seed=0)
