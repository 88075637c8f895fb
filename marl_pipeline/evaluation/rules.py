"""Rules trade in the simulator: one window with its whole record, or many rules side by side as accounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from marl_pipeline.agents.rules import Inputs, Rule
from marl_pipeline.algos.common.episodes import Memoryless, episode_steps
from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import Dataset, FloatArray, Panel, Signals
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.envs.trading.core.actions import ACTIONS
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.orders import Limits, TargetPortfolio
from marl_pipeline.evaluation.records import Record
from marl_pipeline.evaluation.track_record import ACCOUNT_COLUMNS
from marl_pipeline.evaluation.walk_forward import trade

REBALANCE = "REBALANCE"
"""The action of a fill that a rule ordered."""

FLOWS = ("turnover", "commission", "slippage", "borrow", "interest")


def trade_rule(
    rule: Rule,
    dataset: Dataset,
    signals: Signals | None,
    market: MarketParams,
    span: Span,
    *,
    window: int = 0,
    seed: int = 0,
    limits: Limits = "none",
) -> Record:
    """One rule trades `span`, as `walk_forward.trade` does for a policy: flat at its first bar, marked at its last.

    Args:
        window, seed: what the record is labelled with; a rule draws nothing.
        limits: whether the limits of `market.limits` bind the rule; costs, participation and cash always do.

    Raises:
        UserError: what the rule reads is not there.
    """
    panel = rule.panel(dataset)
    targets = rule.weights(Inputs(dataset, signals, market), span, (span.start,))
    environment = TargetPortfolio(Market.from_panel(panel, market), market, span=span, limits=limits)

    def act(timestep: Timestep) -> dict[str, torch.Tensor]:
        bar = int(timestep.groups["symbols"].observation["bar"][0, 0])
        return {"symbols": torch.from_numpy(targets[bar - span.start : bar - span.start + 1])}

    record = trade(environment, Memoryless(act), panel, window=window, seed=seed)
    chosen = record.trades["action"].isin(ACTIONS)
    trades = record.trades.assign(action=record.trades["action"].mask(chosen, REBALANCE))
    return replace(record, trades=trades, decisions=record.decisions.iloc[:0])


def rule_accounts(
    rules: Mapping[str, Rule],
    dataset: Dataset,
    signals: Signals | None,
    market: MarketParams,
    span: Span,
    starts: Sequence[int],
    *,
    limits: Limits = "none",
) -> dict[str, pd.DataFrame]:
    """Rules over the whole of `span`, each as an account with ACCOUNT_COLUMNS; held over the edges of windows.

    Args:
        starts: bars at which a window begins.
    """
    inputs = Inputs(dataset, signals, market)
    wanted = {name: rule.weights(inputs, span, starts) for name, rule in rules.items()}
    accounts: dict[str, pd.DataFrame] = {}
    own = [name for name, rule in rules.items() if rule.uses != "benchmark"]
    for names in (own, [name for name in rules if name not in own]):
        if names:
            panel = rules[names[0]].panel(dataset)
            targets = np.stack([wanted[name] for name in names])
            accounts |= dict(zip(names, accounts_of(panel, targets, span, market, limits), strict=True))
    return {name: accounts[name] for name in rules}


def accounts_of(
    panel: Panel, targets: FloatArray, span: Span, market: MarketParams, limits: Limits = "none"
) -> list[pd.DataFrame]:
    """Accounts that start with `market.initial_cash` and trade towards `targets` [E, len(span), N], side by side.

    Returns:
        E tables with ACCOUNT_COLUMNS, one row per bar of the span.
    """
    environment = TargetPortfolio(
        Market.from_panel(panel, market), market, span=span, num_envs=len(targets), limits=limits
    )
    upcoming = iter(torch.from_numpy(targets).unbind(1))
    policy = Memoryless(lambda _: {"symbols": next(upcoming)})
    start = torch.zeros(len(targets), dtype=torch.float64)
    rows: dict[str, list[torch.Tensor]] = {name: [start] for name in ("exposure", *FLOWS)}
    rows["equity"] = [start + market.initial_cash]
    for step in episode_steps(environment, policy, environment.reset(), steps=len(span) - 1):
        info = step.after.info
        rows["equity"].append(info["equity"])
        rows["exposure"].append(info["gross"] / info["equity"])
        for name in FLOWS:
            rows[name].append(info[name])
    columns = {name: torch.stack(values).numpy() for name, values in rows.items()}
    bars = np.arange(span.start, span.stop)
    shared = {"bar": bars, "timestamp": panel.timestamps[bars], "closing": 0.0}
    tables = [
        pd.DataFrame(shared | {name: column[:, index] for name, column in columns.items()})
        for index in range(len(targets))
    ]
    return [table[list(ACCOUNT_COLUMNS)] for table in tables]
