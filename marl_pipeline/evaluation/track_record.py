"""Windows chained to one out-of-sample track record per seed, and seeds combined to the headline.

Each window starts flat with fresh cash, so windows chain by returns. What a window still holds at its end is charged
the cost of selling it (commission and the fixed part of slippage), and the next window pays for its entry again: the
chained record holds nothing over a window's edge and pays more than a book kept open would.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import Dataset, FloatArray, IntArray
from marl_pipeline.envs.trading.core.costs import base_slippage_rate, commission_rate
from marl_pipeline.evaluation.metrics import Metrics, drawdown, measure
from marl_pipeline.evaluation.records import Record

WEIGHT = "weight:"
"""Prefix of the columns that hold a symbol's position as a share of equity."""

ACCOUNT_COLUMNS = (
    "bar", "timestamp", "equity", "exposure", "turnover", "commission", "slippage", "borrow", "interest", "closing",
)  # fmt: skip
"""An account bar by bar over the whole test span, the policy's as well as a baseline's. The first row is the start.

Money is in account currency, paid since the last row; `exposure` and `turnover` are shares of equity; `closing` is
the cost of selling what a window still holds at its end.
"""

GROUPS = 12
"""Layers a picture of positions can tell apart."""

COSTS = ("commission", "slippage", "borrow", "closing")
PAID = (*COSTS, "interest")
SCALED = ("equity", "cash", "commission", "slippage", "borrow", "interest", "closing")


def closing_rate(market: MarketParams) -> float:
    """Cost of selling a position at the mark, as a share of its value."""
    return commission_rate(market) + base_slippage_rate(market)


def chain(records: Sequence[Record], symbols: Sequence[str], market: MarketParams) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One seed's windows as one account that starts with `market.initial_cash`.

    Args:
        records: of one seed, in the order of their windows, without a bar missing between them.
        symbols: N names; each becomes a column `weight:<symbol>`.

    Returns:
        Equity table: seed, window, ACCOUNT_COLUMNS, cash, directives, kill_switch, drawdown, weights (float32).
        Trades table: seed, window and the columns of a record's trades. Money and shares of both are scaled to the
        chained account.

    Raises:
        ValueError: the records are of several seeds or do not follow each other.
    """
    for before, after in itertools.pairwise(records):
        if after.seed != before.seed or after.equity["bar"].iloc[0] != before.equity["bar"].iloc[-1] + 1:
            raise ValueError(f"{after.label} does not follow {before.label}")
    level, equities, trades = market.initial_cash, [], []
    for record in records:
        scale = level / record.initial_cash
        equity = _closed(record.equity, closing_rate(market))
        equity[list(SCALED)] *= scale
        level = float(equity["equity"].iloc[-1])
        equity = pd.concat([equity, _weights(record, symbols)], axis=1)
        equities.append(_tagged(equity, record))
        sized = record.trades.copy()
        sized[["shares", "notional", "commission", "slippage"]] *= scale
        trades.append(_tagged(sized, record))
    table = pd.concat(equities, ignore_index=True)
    table["drawdown"] = drawdown(table["equity"].to_numpy())
    return table, pd.concat(trades, ignore_index=True)


def _closed(equity: pd.DataFrame, rate: float) -> pd.DataFrame:
    """The window's equity with the cost of selling out taken from its last row."""
    equity = equity.copy()
    last = equity.index[-1]
    cost = float((equity["exposure"] * equity["equity"]).iloc[-1]) * rate
    equity["closing"] = 0.0
    equity.loc[last, "closing"] = cost
    equity.loc[last, ["equity", "cash"]] -= cost
    return equity


def _weights(record: Record, symbols: Sequence[str]) -> pd.DataFrame:
    """[bars, N] positions as shares of equity, one column per symbol.

    Raises:
        ValueError: a position is in a symbol or at a bar that the record does not have.
    """
    bars = record.equity["bar"].to_numpy()
    row = pd.Index(bars).get_indexer(pd.Index(record.positions["bar"]))
    column = pd.Index(list(symbols)).get_indexer(pd.Index(record.positions["symbol"]))
    if (row < 0).any() or (column < 0).any():
        raise ValueError(f"{record.label}: a position is in an unknown symbol or at a bar outside the window")
    weights = np.zeros((len(bars), len(symbols)), dtype=np.float32)
    weights[row, column] = record.positions["weight"].to_numpy()
    return pd.DataFrame(weights, columns=[WEIGHT + name for name in symbols])


def _tagged(table: pd.DataFrame, record: Record) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame({"seed": np.int64(record.seed), "window": np.int64(record.window)}, index=table.index),
            table,
        ],
        axis=1,
    )


def weights_of(table: pd.DataFrame) -> pd.DataFrame:
    """The positions in a chained equity table: one column per symbol."""
    columns = [name for name in table.columns if name.startswith(WEIGHT)]
    return table[columns].rename(columns=lambda name: name.removeprefix(WEIGHT))


def grouped_weights(tables: Sequence[pd.DataFrame], dataset: Dataset) -> tuple[pd.DataFrame, str]:
    """Mean positions of several chained equity tables, grouped for a picture.

    Returns:
        [T] x at most GROUPS columns, the largest first, the rest as "other"; and what they are: "sector" where a sector
        map was given, else "symbol".
    """
    mean = pd.DataFrame(
        np.mean([weights_of(table).to_numpy(dtype=np.float64) for table in tables], axis=0),
        columns=list(dataset.panel.symbols),
    )
    what = "symbol"
    if len(dataset.sectors) > 1:
        names = [dataset.sectors[index] for index in dataset.sector]
        mean, what = mean.T.groupby(pd.Index(names), sort=True).sum().T, "sector"
    order = mean.abs().sum().sort_values(ascending=False, kind="stable").index
    mean = mean[order]
    if len(order) > GROUPS:
        rest = mean.iloc[:, GROUPS - 1 :].sum(axis=1)
        mean = mean.iloc[:, : GROUPS - 1].assign(other=rest)
    return mean, what


def window_edges(equity: pd.DataFrame) -> pd.DataFrame:
    """`first` and `last` timestamp of each window of a chained equity table."""
    return equity.groupby("window", sort=True)["timestamp"].agg(["first", "last"]).reset_index(drop=True)


def combine(accounts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of several accounts over the same bars: mean of their returns, exposures and cost shares at each bar.

    This is what splitting the money equally over the seeds and levelling it at every bar would earn.

    Raises:
        ValueError: the bars differ.
    """
    bars = accounts[0]["bar"].to_numpy()
    for account in accounts:
        if not np.array_equal(account["bar"].to_numpy(), bars):
            raise ValueError("the accounts do not cover the same bars")
    equity = np.stack([account["equity"].to_numpy() for account in accounts])
    growth = (equity[:, 1:] / equity[:, :-1]).mean(axis=0)
    start = float(equity[:, 0].mean())
    combined = start * np.concatenate([[1.0], np.cumprod(growth)])
    table = accounts[0][["bar", "timestamp"]].reset_index(drop=True)
    table["equity"] = combined
    for name in ("exposure", "turnover"):
        table[name] = np.mean([account[name].to_numpy() for account in accounts], axis=0)
    before = np.concatenate([equity[:, :1], equity[:, :-1]], axis=1)
    for name in PAID:
        share = np.stack([account[name].to_numpy() for account in accounts]) / before
        table[name] = share.mean(axis=0) * np.concatenate([[start], combined[:-1]])
    return table[list(ACCOUNT_COLUMNS)]


def costs_of(account: pd.DataFrame) -> FloatArray:
    """[T] money paid at each bar."""
    total: FloatArray = account[list(COSTS)].to_numpy().sum(axis=1)
    return total


def account_metrics(account: pd.DataFrame, session: IntArray, sessions_per_year: float) -> Metrics:
    """Figures of an account with ACCOUNT_COLUMNS; `session` [T'] is indexed by its bars."""
    return measure(
        account["equity"].to_numpy(),
        session[account["bar"].to_numpy()],
        sessions_per_year,
        exposure=account["exposure"].to_numpy(),
        turnover=account["turnover"].to_numpy(),
        costs=costs_of(account),
    )
