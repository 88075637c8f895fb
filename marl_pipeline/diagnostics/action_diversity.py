"""How varied the actions of recorded episodes are: their shares, their entropy, and what the mask made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import FloatArray
from marl_pipeline.diagnostics.episodes import Episodes

COLLAPSED = 0.95
"""One action above this share of the free decisions: the policy says the same whatever it sees."""


@dataclass(frozen=True)
class ActionDiversity:
    """Of the decisions of symbols in the universe; a decision is free where more than HOLD was allowed.

    Attributes:
        free: share of the decisions that were free.
        chosen, executed: action -> share of all decisions, before and after the mask.
        taken: action -> share of the free decisions, as executed.
        entropy: of `taken`, as a share of that of the even spread, 0..1; 0 without a free decision.
        by_step: step -> entropy of the free decisions at that step of the episodes (NaN where there was none).
        by_symbol: symbol -> entropy of its free decisions (NaN where it had none).
        refused: share of the decisions whose chosen action the mask refused.
        unfilled: share of the executed orders that traded nothing (no room left under cash, slots, caps or volume).
        flags: of "collapsed" (one action above `COLLAPSED` of the free decisions) and "nothing to decide".
    """

    free: float
    chosen: Mapping[str, float]
    executed: Mapping[str, float]
    taken: Mapping[str, float]
    entropy: float
    by_step: pd.Series
    by_symbol: pd.Series
    refused: float
    unfilled: float
    flags: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        figures = {name: getattr(self, name) for name in ("free", "entropy", "refused", "unfilled", "flags")}
        shares = {name: dict(getattr(self, name)) for name in ("chosen", "executed", "taken")}
        return figures | shares | {"entropy_by_symbol": self.by_symbol.to_dict()}


def action_diversity(episodes: Episodes) -> ActionDiversity:
    actions = episodes.about.actions
    table = episodes.table[episodes.table["playing"]]
    free = table[table["choice"]]
    taken = _shares(free["executed"], actions)
    flags = []
    if not len(free):
        flags.append("nothing to decide")
    elif max(taken.values()) > COLLAPSED:
        flags.append("collapsed")
    ordered = table["executed"] != "HOLD"
    return ActionDiversity(
        free=_share(table["choice"]),
        chosen=_shares(table["chosen"], actions),
        executed=_shares(table["executed"], actions),
        taken=taken,
        entropy=_entropies(free, np.zeros(len(free)), actions).get(0.0, 0.0),
        by_step=_entropies(free, free["step"], actions).reindex(sorted(table["step"].unique())),
        by_symbol=_entropies(free, free["symbol"], actions).reindex(table["symbol"].cat.categories),
        refused=_share(table["chosen"].astype(str) != table["executed"].astype(str)),
        unfilled=_share(table.loc[ordered, "shares"] == 0.0),
        flags=tuple(flags),
    )


def _share(hits: pd.Series) -> float:
    return float(hits.mean()) if len(hits) else 0.0


def _shares(taken: pd.Series, actions: tuple[str, ...]) -> dict[str, float]:
    counts = taken.value_counts()
    return {name: float(counts.get(name, 0)) / max(len(taken), 1) for name in actions}


def _entropies(free: pd.DataFrame, groups: Any, actions: tuple[str, ...]) -> pd.Series:
    """Entropy of the executed actions in each of the groups that have any, over that of the even spread."""
    counts = pd.crosstab(np.asarray(groups), free["executed"].astype(str))
    share: FloatArray = counts.to_numpy(dtype=np.float64)
    share = share / share.sum(1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0.0, share, 1.0))).sum(1) / math.log(len(actions))
    return pd.Series(np.abs(entropy), index=counts.index, dtype=np.float64)
