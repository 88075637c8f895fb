"""Trades one held-out window with one policy, and records every bar, position and fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from marl_pipeline.agents.hierarchy import Hierarchy
from marl_pipeline.data.dataset import IntArray, TimeArray
from marl_pipeline.data.windows import Window
from marl_pipeline.envs.trading.core.actions import ACTIONS, DIRECTIVE_FIELDS, Action, directive_table
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.evaluation.records import Curve, Record
from marl_pipeline.training.hierarchy import World

LIQUIDATION = "LIQUIDATION"
FORCED_CLOSE = "FORCED_CLOSE"

Tables = dict[str, list[np.ndarray[Any, Any]]]


@torch.no_grad()
def trade(
    world: World,
    symbol_weights: Mapping[str, Tensor],
    master_weights: Mapping[str, Tensor],
    *,
    window: Window,
    seed: int,
    tuning: Sequence[Mapping[str, Any]] = (),
) -> Record:
    """Steps one portfolio through the test part of `window`; every tier takes its most probable action.

    The book starts flat at the close of the window's first bar and is marked, not sold, at its last.
    """
    agents, master = world.symbol_agents(seed), world.master_agent(seed)
    agents.module.load_state_dict(dict(symbol_weights))
    master.module.load_state_dict(dict(master_weights))
    hierarchy = Hierarchy(agents, master, explore_symbols=False)
    environment = world.environment("portfolio", window.test, num_envs=1, episode=None, seed=0)

    timestep = environment.reset()
    rows: Tables = {}
    _note(rows, _standing(environment))
    while not bool(timestep.done.all()):
        decisions = hierarchy.decide(timestep, None)
        timestep = environment.step({name: decision.action for name, decision in decisions.items()})
        _note(rows, _standing(environment) | _flows(environment, timestep.info))
    columns = {name: np.stack(values) for name, values in rows.items()}
    return Record(
        window=window.index,
        seed=seed,
        initial_cash=world.params.initial_cash,
        equity=_equity(world, columns),
        positions=_positions(world, columns),
        trades=_trades(world, columns),
        tuning=[Curve(str(c["name"]), tuple(c["x"]), tuple(c["y"])) for c in tuning],
        decisions=_counts(columns),
    )


def _note(rows: Tables, figures: Mapping[str, Tensor]) -> None:
    for name, figure in figures.items():
        rows.setdefault(name, []).append(figure[0].cpu().numpy())


def _standing(environment: TradingEnv) -> dict[str, Tensor]:
    """What the book is worth and holds at the mark: one row per bar."""
    book = environment.book
    return {
        "bar": book.bar,
        "equity": book.equity[:, 0],
        "cash": book.cash[:, 0],
        "drawdown": (1.0 - book.equity / book.peak)[:, 0],
        "directive": book.directive[:, 0],
        "halt": book.halt[:, 0],
        "value": book.value,
    }


def _flows(environment: TradingEnv, info: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the last step did: one row per bar but the first."""
    ledger = environment.ledger
    assert ledger is not None
    names = ("turnover", "commission", "slippage", "borrow", "interest", "kill_switch")
    return {name: info[name] for name in names} | {
        "shares": ledger.shares,
        "price": ledger.price,
        "fill_commission": ledger.commission,
        "fill_slippage": ledger.slippage,
        "closed": ledger.closed,
        "chosen": environment.chosen,
        "executed": environment.executed,
    }


def _timestamps(world: World, bars: IntArray) -> TimeArray:
    stamps: TimeArray = world.dataset.panel.timestamps[bars]
    return stamps


def _equity(world: World, columns: Mapping[str, np.ndarray[Any, Any]]) -> pd.DataFrame:
    bars = columns["bar"]
    table = directive_table(world.master_params.directives, world.params.limits).numpy()[columns["directive"]]
    field = {name: table[:, index] for index, name in enumerate(DIRECTIVE_FIELDS)}
    modes = len(DIRECTIVE_FIELDS) - 3
    frame = {
        "bar": bars,
        "timestamp": _timestamps(world, bars),
        "equity": columns["equity"],
        "cash": columns["cash"],
        "exposure": np.abs(columns["value"]).sum(-1) / columns["equity"],
        "directive_risk": field["risk"],
        "directive_cap": field["cap"] * world.params.limits.position,
        "directive_mode": table[:, modes:].argmax(-1),
        "drawdown": columns["drawdown"],
    }
    for name in ("turnover", "commission", "slippage", "borrow", "interest", "kill_switch"):
        flow = columns[name]
        frame[name] = np.concatenate([np.zeros(1, dtype=flow.dtype), flow])
    return pd.DataFrame(frame)


def _positions(world: World, columns: Mapping[str, np.ndarray[Any, Any]]) -> pd.DataFrame:
    row, symbol = np.nonzero(columns["value"])
    bars = columns["bar"][row]
    return pd.DataFrame(
        {
            "bar": bars,
            "timestamp": _timestamps(world, bars),
            "symbol": np.array(world.dataset.panel.symbols)[symbol],
            "weight": columns["value"][row, symbol] / columns["equity"][row],
        }
    )


def _trades(world: World, columns: Mapping[str, np.ndarray[Any, Any]]) -> pd.DataFrame:
    shares = columns["shares"]
    row, symbol = np.nonzero(shares)
    at = (row, symbol)
    bars = columns["bar"][row + 1]
    executed = np.array(ACTIONS)[columns["executed"][at]]
    forced = columns["executed"][at] == int(Action.HOLD)
    action = np.where(columns["closed"][at], FORCED_CLOSE, np.where(forced, LIQUIDATION, executed))
    return pd.DataFrame(
        {
            "bar": bars,
            "timestamp": _timestamps(world, bars),
            "symbol": np.array(world.dataset.panel.symbols)[symbol],
            "side": np.where(shares[at] > 0, "buy", "sell"),
            "action": action,
            "shares": np.abs(shares[at]),
            "price": columns["price"][at],
            "notional": np.abs(shares[at]) * columns["price"][at],
            "commission": columns["fill_commission"][at],
            "slippage": columns["fill_slippage"][at],
        }
    )


def _counts(columns: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for kind in ("chosen", "executed"):
        number = np.bincount(columns[kind].ravel(), minlength=len(ACTIONS))
        counts |= {f"{kind}/{name}": int(count) for name, count in zip(ACTIONS, number, strict=True)}
    return counts
