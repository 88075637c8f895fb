"""Plays episodes and writes down what every symbol did, what it was paid, and what became of the account."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.algos.common.episodes import episode_steps
from marl_pipeline.data.dataset import TimeArray
from marl_pipeline.diagnostics.episodes import HALTS, About, Episodes, typed
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.envs.trading.core.actions import ACTIONS, DIRECTIVE_FIELDS, MODES
from marl_pipeline.envs.trading.env import TradingEnv

Rows = dict[str, NDArray[Any]]

NAMES: dict[str, tuple[str, ...]] = {
    "chosen": ACTIONS,
    "executed": ACTIONS,
    "halt": HALTS,
    "directive_mode": MODES,
}


def record_episodes(
    environment: TradingEnv, policy: Policy, *, name: str, seed: int, source: str, timestamps: TimeArray
) -> Episodes:
    """Runs one episode in every environment of `environment`, each to its own end.

    Args:
        name: of the policy; source: of the market.
        timestamps: [T] of the market's bars.
    """
    session = environment.market.new_session.long().cumsum(0) - 1
    recorded: list[Rows] = []
    for number, step in enumerate(episode_steps(environment, policy, environment.reset()), start=1):
        figures = _decisions(environment, step.before, step.after) | _books(environment, step.after)
        bar = environment.book.bar.unsqueeze(-1)
        figures |= {"step": torch.full_like(bar, number), "bar": bar, "session": session[bar]}
        recorded.append(_rows(environment, figures, step.running))
    columns = {column: np.concatenate([rows[column] for rows in recorded]) for column in recorded[0]}
    order = np.lexsort((columns["symbol"], columns["step"], columns["episode"]))
    about = _about(environment, name, seed, source)
    table = {column: values[order] for column, values in columns.items()}
    table["timestamp"] = timestamps[table["bar"]]
    texts = {**NAMES, "symbol": environment.market.symbols}
    named = {column: pd.Categorical.from_codes(table[column], pd.Index(names)) for column, names in texts.items()}
    return Episodes(about, typed(pd.DataFrame(table | named), about, "recorder"))


def _about(environment: TradingEnv, name: str, seed: int, source: str) -> About:
    params, rules = environment.params, environment.rules
    return About(
        mode="portfolio" if rules.pooled else "accounts",
        policy=name,
        reward=params.reward,
        master_reward=params.master_reward,
        reward_scale=params.reward_scale,
        reward_unit=params.reward_scale / params.guide.weights.pnl,
        initial_cash=params.initial_cash,
        seed=seed,
        source=source,
        span=(environment.span.start, environment.span.stop),
        actions=ACTIONS,
        components={group: log.names for group, log in environment.rewards.logs.items()},
        limits=params.limits.model_dump(),
    )


def _decisions(environment: TradingEnv, before: Timestep, after: Timestep) -> dict[str, Tensor]:
    """What every symbol did and was paid: [E, N]."""
    ledger, book, rewards = environment.ledger, environment.book, environment.rewards
    assert ledger is not None
    logs = rewards.logs
    components = {
        f"symbols_{part}": logs["symbols"].last[..., column]
        for column, part in enumerate(logs["symbols"].names if "symbols" in logs else ())
    }
    return {
        "playing": before.groups["symbols"].acts,
        "choice": before.groups["symbols"].action_mask.sum(-1) > 1,
        "chosen": environment.chosen,
        "executed": environment.executed,
        "shares": ledger.shares,
        "price": ledger.price,
        "commission": ledger.commission,
        "slippage": ledger.slippage,
        "price_pnl": ledger.price_pnl,
        "weight": book.value / book.equity.clamp(min=environment.game.floor),
        "forced_close": ledger.closed,
        "reward": after.groups["symbols"].reward,
        "own_net": rewards.own,
        **components,
    }


def _books(environment: TradingEnv, after: Timestep) -> dict[str, Tensor]:
    """What became of every account: [E, A]."""
    book, game, rules, info = environment.book, environment.game, environment.rules, after.info
    level = game.directives[book.directive]
    master = after.groups["master"].reward if "master" in after.groups else torch.zeros_like(book.equity[:, :1])
    log = environment.rewards.logs.get("master")
    components = {} if log is None else {f"master_{part}": log.last[..., n] for n, part in enumerate(log.names)}
    recorded = ("equity", "cash", "gross", "drawdown", "turnover", "borrow", "interest", "kill_switch", "reentry")
    halt = (book.halt > 0).long() + rules.blocked(book.halt) + (book.halt == rules.liquidating)
    return {
        **{name: info[name].view_as(book.equity) for name in recorded},
        "net": environment.rewards.net,
        "alive": book.alive,
        "halt": halt,
        "directive_risk": level[..., 0],
        "directive_cap": level[..., 1] * rules.cap,
        "directive_mode": level[..., len(DIRECTIVE_FIELDS) - len(MODES) :].argmax(-1),
        "master_reward": master,
        **components,
    }


def _rows(environment: TradingEnv, figures: dict[str, Tensor], running: Tensor) -> Rows:
    """A row per symbol of every environment whose episode was still under way."""
    shape = (environment.num_envs, environment.market.size)
    episode = torch.arange(shape[0], device=environment.device).unsqueeze(-1)
    symbol = torch.arange(shape[1], device=environment.device)
    every = {**figures, "episode": episode, "symbol": symbol}
    return {name: values.expand(shape)[running].flatten().cpu().numpy() for name, values in every.items()}
