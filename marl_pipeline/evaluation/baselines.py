"""What the policy has to beat, on the same bars and at the same costs: equal weight, benchmark, SL thresholds, cash.

Orders are decided at the close of a bar and filled in the next one, at its open (its close for close-only data),
with the simulator's commission, slippage and participation limit. All are long-only and unlevered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import BoolArray, Dataset, FloatArray, Panel, Signals
from marl_pipeline.data.windows import Span, Window
from marl_pipeline.envs.trading.core.costs import base_slippage_rate, commission_rate
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.track_record import ACCOUNT_COLUMNS

SL_EDGE = 0.05
"""How much more probable up than down must be, as the mean of the supervised models, to hold a symbol."""

DAYS_PER_YEAR = 365.0


@dataclass(frozen=True)
class Prices:
    """The simulator's own market tables as numpy arrays; see `Market` for their meaning."""

    mark: FloatArray
    fill: FloatArray
    fillable: BoolArray
    gone: BoolArray
    capacity: FloatArray
    impact: FloatArray
    days: FloatArray

    @classmethod
    def of(cls, panel: Panel, market: MarketParams) -> Prices:
        table = Market.from_panel(panel, market)
        names = ("mark", "fill", "fillable", "gone", "capacity", "impact", "days")
        return cls(**{name: getattr(table, name).numpy() for name in names})


def simulate(prices: Prices, targets: FloatArray, span: Span, market: MarketParams) -> pd.DataFrame:
    """An account that rebalances to target weights.

    Args:
        targets: [len(span), N] weights wanted after the close of each bar (long-only, sum at most 1); a row of
            NaN leaves the positions alone.

    Returns:
        ACCOUNT_COLUMNS without `timestamp` for the bars of the span; it starts with `market.initial_cash` in cash.
    """
    shares, cash = np.zeros(prices.mark.shape[1]), market.initial_cash
    rows = [(market.initial_cash, 0.0, 0.0, 0.0, 0.0, 0.0)]
    for bar in range(span.start + 1, span.stop):
        interest = cash * market.cash_rate * prices.days[bar] / DAYS_PER_YEAR
        cash += interest
        gone = prices.gone[bar] & (shares > 0.0)
        if gone.any():
            cash += float(shares[gone] @ prices.mark[bar][gone])
            shares = np.where(gone, 0.0, shares)
        target = targets[bar - 1 - span.start]
        commission = slippage = traded = 0.0
        if not np.isnan(target).any():
            shares, cash, commission, slippage, traded = _rebalance(prices, target, bar, shares, cash, market)
        held = float(shares @ prices.mark[bar])
        equity = cash + held
        rows.append((equity, held / equity, traded / equity, commission, slippage, interest))
    table = pd.DataFrame(rows, columns=["equity", "exposure", "turnover", "commission", "slippage", "interest"])
    return table.assign(bar=np.arange(span.start, span.stop), borrow=0.0, closing=0.0)


def _rebalance(
    prices: Prices, target: FloatArray, bar: int, shares: FloatArray, cash: float, market: MarketParams
) -> tuple[FloatArray, float, float, float, float]:
    """Trades towards `target` in `bar`; sells pay for buys, and buys shrink together if cash runs short."""
    price, capacity = prices.fill[bar], prices.capacity[bar - 1]
    equity = cash + float(shares @ price)
    limit = np.where(prices.fillable[bar], capacity, 0.0)
    order = np.clip(target * equity / price - shares, -np.minimum(limit, shares), limit)
    share = np.divide(np.abs(order), capacity, out=np.zeros_like(order), where=capacity > 0.0)
    slip = base_slippage_rate(market) + prices.impact[bar - 1] * np.sqrt(share)
    fee = commission_rate(market)
    notional = order * price
    proceeds = float(np.sum(np.where(order < 0.0, -notional * (1.0 - fee - slip), 0.0)))
    needed = float(np.sum(np.where(order > 0.0, notional * (1.0 + fee + slip), 0.0)))
    if needed > cash + proceeds:
        shrink = max(cash + proceeds, 0.0) / needed
        notional, order = (np.where(order > 0.0, value * shrink, value) for value in (notional, order))
    commission, slippage = float(np.abs(notional).sum()) * fee, float(np.abs(notional) @ slip)
    cash = max(cash - float(notional.sum()) - commission - slippage, 0.0)
    return shares + order, cash, commission, slippage, float(np.abs(notional).sum())


def equal_weights(tradable: BoolArray, when: BoolArray) -> FloatArray:
    """[K, N] targets: the same weight in every symbol that trades at the bars of `when` [K], NaN elsewhere."""
    count = np.maximum(tradable.sum(axis=1, keepdims=True), 1)
    return np.where(when[:, None], tradable / count, np.nan)


def signal_weights(signals: Signals, panel: Panel, span: Span, market: MarketParams, edge: float) -> FloatArray:
    """[K, N] targets at the end of each session: the symbols with the highest mean P(up) - P(down) above `edge`.

    At most `limits.open_positions` of them, equally weighted, none above `limits.position`.
    """
    rows = slice(span.start, span.stop)
    probabilities = signals.probabilities[rows].astype(np.float64).mean(axis=2)
    score = probabilities[..., 2] - probabilities[..., 0]
    score = np.where(signals.available[rows] & panel.tradable[rows], score, -np.inf)
    rank = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1, kind="stable")
    chosen = (score > edge) & (rank < market.limits.open_positions)
    weight = np.minimum(1.0 / np.maximum(chosen.sum(axis=1, keepdims=True), 1), market.limits.position)
    session = panel.session[rows]
    ends = np.append(session[1:] != session[:-1], True)
    return np.where(ends[:, None], chosen * weight, np.nan)


def month_starts(panel: Panel, span: Span) -> BoolArray:
    """[K] the first bar of the span and of each month in it."""
    month = panel.timestamps[span.start : span.stop].astype("datetime64[M]")
    return np.concatenate([[True], month[1:] != month[:-1]])


def benchmark_panel(dataset: Dataset) -> Panel:
    """The benchmark as the only symbol of a close-only source."""
    level = dataset.benchmark[:, None]
    nothing = np.full(level.shape, np.nan)
    return Panel(
        symbols=(dataset.benchmark_name,),
        timestamps=dataset.panel.timestamps,
        known_at=dataset.panel.known_at,
        session=dataset.panel.session,
        open=nothing,
        high=nothing,
        low=nothing,
        close=level,
        volume=nothing,
        tradable=np.isfinite(level) & (level > 0.0),
    )


def baselines(
    dataset: Dataset, signals: Signals, windows: Sequence[Window], market: MarketParams
) -> dict[str, pd.DataFrame]:
    """Every baseline over the whole test span, as accounts with ACCOUNT_COLUMNS.

    `equal_weight` is bought at each window's start and held; `equal_weight_monthly` is levelled every month;
    `benchmark` is bought once; `sl_thresholds` follows the supervised models daily; `cash` does nothing.

    Raises:
        UserError: the benchmark has no value inside the span.
    """
    panel = dataset.panel
    span = Span(windows[0].test.start, windows[-1].test.stop)
    bars = np.arange(span.start, span.stop)
    prices, level = Prices.of(panel, market), Prices.of(benchmark_panel(dataset), market)
    buyable = level.fillable[span.start + 1 : span.stop, 0]
    if not buyable.any():
        raise UserError(f"benchmark '{dataset.benchmark_name}' has no value in the test span; bring one that covers it")
    bought = np.arange(len(span)) == int(np.argmax(buyable))
    tradable = panel.tradable[span.start : span.stop]
    starts = np.isin(bars, [window.test.start for window in windows])
    targets = {
        "equal_weight": equal_weights(tradable, starts),
        "equal_weight_monthly": equal_weights(tradable, month_starts(panel, span)),
        "benchmark": np.where(bought, 1.0, np.nan)[:, None],
        "sl_thresholds": signal_weights(signals, panel, span, market, SL_EDGE),
        "cash": np.full(tradable.shape, np.nan),
    }
    accounts = {
        name: simulate(level if name == "benchmark" else prices, target, span, market)
        for name, target in targets.items()
    }
    timestamps = panel.timestamps[bars]
    return {name: table.assign(timestamp=timestamps)[list(ACCOUNT_COLUMNS)] for name, table in accounts.items()}
