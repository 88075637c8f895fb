"""Trades one held-out window and records every bar, position, fill and decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.algos.common.episodes import episode_steps
from marl_pipeline.data.dataset import IntArray, Panel, TimeArray
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.envs.trading.core.actions import ACTIONS, DIRECTIVE_ACTIONS, DIRECTIVE_FIELDS, Action
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.evaluation.records import MODES, Curve, Record

LIQUIDATION = "LIQUIDATION"
FORCED_CLOSE = "FORCED_CLOSE"

Tables = dict[str, list[np.ndarray[Any, Any]]]


def trade(
    environment: TradingEnv,
    policy: Policy,
    panel: Panel,
    *,
    window: int,
    seed: int,
    tuning: Sequence[Mapping[str, Any]] = (),
    view: Environment | None = None,
) -> Record:
    """Trades the whole span of a portfolio, E = 1, and records every bar, position, fill and decision.

    The book starts flat at the close of the span's first bar and is marked, not sold, at its last.

    Args:
        policy: decides greedily, once for each bar but the last.
        panel: gives the symbols' names and the bars' times.
        tuning: curves of the tuning before the window, as `Curve.as_json` gives them.
        view: what `policy` observes and steps, where that is a view of `environment`.
    """
    stepped = environment if view is None else view
    first = stepped.reset()
    rows: Tables = {}
    _note(rows, _standing(environment))
    for step in episode_steps(stepped, policy, first):
        ordered = _ordered(step.before, step.actions)
        _note(rows, _standing(environment) | _flows(environment, step.after.info) | {"ordered": ordered})
    columns = {name: np.stack(values) for name, values in rows.items()}
    return Record(
        window=window,
        seed=seed,
        initial_cash=environment.params.initial_cash,
        equity=_equity(environment, panel, columns),
        positions=_positions(panel, columns),
        trades=_trades(panel, columns),
        decisions=_decisions(environment, panel, columns),
        tuning=[Curve.from_json(curve) for curve in tuning],
    )


def _note(rows: Tables, figures: Mapping[str, Tensor]) -> None:
    for name, figure in figures.items():
        rows.setdefault(name, []).append(figure[0].cpu().numpy())


def _ordered(timestep: Timestep, actions: Mapping[str, Tensor]) -> Tensor:
    """[1] the directive that the master chooses now, -1 where it does not decide."""
    if "master" not in timestep.groups:
        return torch.full_like(timestep.done, -1, dtype=torch.int64)
    return torch.where(timestep.groups["master"].acts, actions["master"], -1)[:, 0]


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


def _timestamps(panel: Panel, bars: IntArray) -> TimeArray:
    stamps: TimeArray = panel.timestamps[bars]
    return stamps


def _equity(environment: TradingEnv, panel: Panel, columns: Mapping[str, np.ndarray[Any, Any]]) -> pd.DataFrame:
    bars = columns["bar"]
    table = environment.game.directives.cpu().numpy()[columns["directive"]]
    field = {name: table[:, index] for index, name in enumerate(DIRECTIVE_FIELDS)}
    modes = len(DIRECTIVE_FIELDS) - len(MODES)
    frame = {
        "bar": bars,
        "timestamp": _timestamps(panel, bars),
        "equity": columns["equity"],
        "cash": columns["cash"],
        "exposure": np.abs(columns["value"]).sum(-1) / columns["equity"],
        "directive_risk": field["risk"],
        "directive_cap": field["cap"] * environment.params.limits.position,
        "directive_mode": table[:, modes:].argmax(-1),
        "drawdown": columns["drawdown"],
    }
    for name in ("turnover", "commission", "slippage", "borrow", "interest", "kill_switch"):
        flow = columns[name]
        frame[name] = np.concatenate([np.zeros(1, dtype=flow.dtype), flow])
    return pd.DataFrame(frame)


def _positions(panel: Panel, columns: Mapping[str, np.ndarray[Any, Any]]) -> pd.DataFrame:
    row, symbol = np.nonzero(columns["value"])
    bars = columns["bar"][row]
    return pd.DataFrame(
        {
            "bar": bars,
            "timestamp": _timestamps(panel, bars),
            "symbol": np.array(panel.symbols)[symbol],
            "weight": columns["value"][row, symbol] / columns["equity"][row],
        }
    )


def _trades(panel: Panel, columns: Mapping[str, np.ndarray[Any, Any]]) -> pd.DataFrame:
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
            "timestamp": _timestamps(panel, bars),
            "symbol": np.array(panel.symbols)[symbol],
            "side": np.where(shares[at] > 0, "buy", "sell"),
            "action": action,
            "shares": np.abs(shares[at]),
            "price": columns["price"][at],
            "notional": np.abs(shares[at]) * columns["price"][at],
            "commission": columns["fill_commission"][at],
            "slippage": columns["fill_slippage"][at],
        }
    )


def _decisions(environment: TradingEnv, panel: Panel, columns: Mapping[str, np.ndarray[Any, Any]]) -> pd.DataFrame:
    """What the standing row of a bar and the flows of the step after it say of the decision between them."""
    steps, symbols = columns["chosen"].shape
    bars, active = columns["bar"][:steps], columns["directive"][:steps]
    if environment.game.directives.shape[0] == 1:
        active = np.full_like(active, DIRECTIVE_ACTIONS)
    return pd.DataFrame(
        {
            "bar": np.repeat(bars, symbols),
            "timestamp": np.repeat(_timestamps(panel, bars), symbols),
            "symbol": np.tile(np.array(panel.symbols), steps),
            "chosen": columns["chosen"].ravel(),
            "executed": columns["executed"].ravel(),
            "directive": np.repeat(active, symbols),
            "ordered": np.repeat(columns["ordered"], symbols),
        }
    )
