"""How the tiers decide together: symbol agents alone on their accounts, or under a master in one portfolio."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from marl_pipeline.agents.master import MasterAgent, pooled_intents
from marl_pipeline.agents.symbol import SymbolAgents
from marl_pipeline.algos.common.rollout import Decision
from marl_pipeline.envs.protocol import Timestep


@dataclass(frozen=True)
class Alone:
    """Symbol agents without a master: phase one, one account per symbol."""

    symbols: SymbolAgents

    def decide(self, timestep: Timestep, generator: torch.Generator | None) -> dict[str, Decision]:
        decision, _ = self.symbols.decide(timestep.groups["symbols"], generator)
        return {"symbols": decision}


@dataclass(frozen=True)
class Hierarchy:
    """Symbol agents under a master: phase two, one portfolio.

    The master sees the intents that the symbol agents form at the same bar; its directive is in force from the
    next decision on. `explore_symbols` lets the symbol agents sample while they learn; a frozen tier takes its mode,
    as it will when it trades.
    """

    symbols: SymbolAgents
    master: MasterAgent
    explore_symbols: bool = True

    def decide(self, timestep: Timestep, generator: torch.Generator | None) -> dict[str, Decision]:
        step = timestep.groups["symbols"]
        decision, logits = self.symbols.decide(step, generator if self.explore_symbols else None)
        intents = pooled_intents(logits, step.action_mask)
        return {"symbols": decision, "master": self.master.decide(timestep, intents, generator)}
