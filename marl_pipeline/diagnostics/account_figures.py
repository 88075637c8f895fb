"""What became of the accounts in recorded episodes: equity, drawdown, turnover, costs, and what the rules had to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from marl_pipeline.diagnostics.episodes import Episodes

FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles over the accounts."""

BASIS_POINTS = 1e4

EVENTS: Mapping[str, str] = {
    "kill switch": "the drawdown reached its limit and everything is sold",
    "re-entry": "the account may trade again, in reduced sizes",
    "ruined": "nothing is left of the account",
    "forced close": "a position in a symbol that is gone was closed at its last price",
    "refused order": "the mask refused the chosen action",
    "unfilled order": "an order traded nothing: no room left under cash, slots, caps or volume",
}


@dataclass(frozen=True)
class AccountFigures:
    """Over all accounts of all episodes, each from its start to its end.

    Attributes:
        accounts: how many.
        growth: quantile (of `FAN`) -> final equity / initial cash.
        mean_growth: mean over the accounts.
        worst_drawdown, median_drawdown: of an account's deepest one.
        turnover, cost_bps: a session, means: multiple of equity, and commission, slippage and borrow fee in basis
            points of equity.
        cost: what costs took of the initial cash over an episode, mean.
        cash, exposure: mean shares of equity; open_positions: mean number.
        directives: mode -> share of steps it was active.
        risk: mean risk multiplier.
    """

    accounts: int
    growth: Mapping[float, float]
    mean_growth: float
    worst_drawdown: float
    median_drawdown: float
    turnover: float
    cost_bps: float
    cost: float
    cash: float
    exposure: float
    open_positions: float
    directives: Mapping[str, float]
    risk: float

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "growth": {f"{share:g}": value for share, value in self.growth.items()}}


def account_steps(episodes: Episodes) -> pd.DataFrame:
    """One row per account and step: `book`, `step`, `session`, and `growth` (equity / initial cash), `drawdown`,
    `turnover`, `cost` (all kinds, in currency), `cost_bps` (of the equity before), `cash` and `exposure` (of equity),
    `open` positions, `directive_mode`, `directive_risk`."""
    table, cash = episodes.table, episodes.about.initial_cash
    wide = dict.fromkeys(("equity", "cash", "gross", "borrow", "drawdown", "turnover", "directive_risk"), "float64")
    books = episodes.books().astype(wide)
    paid = (table["commission"] + table["slippage"]).to_numpy(dtype=np.float64)
    held = (table["weight"] != 0.0).to_numpy()
    if episodes.about.mode == "portfolio":
        paid, held = (values.reshape(-1, episodes.symbols).sum(1) for values in (paid, held))
    equity = books["equity"]
    before = equity.groupby(books["book"]).shift(1).fillna(cash)
    cost = paid + books["borrow"].to_numpy()
    floor = equity.clip(lower=1e-6 * cash)
    return books[["book", "step", "session", "drawdown", "turnover", "directive_mode", "directive_risk"]].assign(
        growth=equity / cash,
        cost=cost,
        cost_bps=cost / before.clip(lower=1e-6 * cash) * BASIS_POINTS,
        cash=books["cash"] / floor,
        exposure=books["gross"] / floor,
        open=held.astype(np.int64),
    )


def account_figures(steps: pd.DataFrame, initial_cash: float) -> AccountFigures:
    """Of what `account_steps` gives."""
    books = steps.groupby("book", sort=True)
    final, deepest = books["growth"].last(), books["drawdown"].max()
    sessions = books["session"].nunique()
    modes = steps["directive_mode"].value_counts(normalize=True)
    return AccountFigures(
        accounts=len(final),
        growth={share: float(final.quantile(share)) for share in FAN},
        mean_growth=float(final.mean()),
        worst_drawdown=float(deepest.max()),
        median_drawdown=float(deepest.median()),
        turnover=float((books["turnover"].sum() / sessions).mean()),
        cost_bps=float((books["cost_bps"].sum() / sessions).mean()),
        cost=float(books["cost"].sum().mean() / initial_cash),
        cash=float(steps["cash"].mean()),
        exposure=float(steps["exposure"].mean()),
        open_positions=float(steps["open"].mean()),
        directives={str(mode): float(share) for mode, share in modes.sort_index().items()},
        risk=float(steps["directive_risk"].mean()),
    )


def risk_events(episodes: Episodes) -> pd.DataFrame:
    """Every event, in order: `kind` (of `EVENTS`), `episode`, `step`, `timestamp`, `who` (a symbol, or "portfolio")
    and `detail`."""
    table, books = episodes.table, episodes.books()
    owner = "portfolio" if episodes.about.mode == "portfolio" else None
    playing = table[table["playing"]]
    refused = playing[playing["chosen"].astype(str) != playing["executed"].astype(str)]
    unfilled = playing[(playing["executed"] != "HOLD") & (playing["shares"] == 0.0)]
    died = books[~books["alive"] & books["alive"].groupby(books["book"]).shift(1, fill_value=True)]
    fallen = books[books["kill_switch"]]
    found = [
        _events("kill switch", fallen, owner, [f"drawdown {depth:.1%}" for depth in fallen["drawdown"]]),
        _events("re-entry", books[books["reentry"]], owner, ""),
        _events("ruined", died, owner, ""),
        _events("forced close", table[table["forced_close"]], None, ""),
        _events("refused order", refused, None, refused["chosen"].astype(str)),
        _events("unfilled order", unfilled, None, unfilled["executed"].astype(str)),
    ]
    return pd.concat(found, ignore_index=True).sort_values(["episode", "step"], kind="stable", ignore_index=True)


def _events(kind: str, rows: pd.DataFrame, owner: str | None, detail: Any) -> pd.DataFrame:
    who = rows["symbol"].astype(str) if owner is None else owner
    return rows[["episode", "step", "timestamp"]].assign(kind=kind, who=who, detail=detail)
