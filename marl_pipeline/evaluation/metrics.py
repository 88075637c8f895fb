"""What an account did, in figures: returns, risk, costs.

Returns are simple returns per period. Figures are annualised by `periods_per_year` and are not in excess of a cash
rate. A figure that is not defined (a ratio of an account that never moved) is NaN, but a Sharpe ratio is 0 then.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from marl_pipeline.data.dataset import FloatArray, IntArray

NO_VARIANCE = 1e-10
"""A standard deviation of returns below this is rounding, not risk."""


@dataclass(frozen=True)
class Metrics:
    """Figures of one account over one span.

    Attributes:
        total_return: last equity over first, less 1.
        annual_return: compound growth per year.
        volatility: standard deviation of returns per year.
        sharpe: mean over standard deviation of returns, per year (Sharpe 1994, without a risk-free rate).
        sortino: mean over downside deviation below 0, per year (Sortino & Price 1994).
        max_drawdown: largest fall from a peak, as a positive share of the peak.
        calmar: annual return over max drawdown.
        hit_rate: share of the periods with any return whose return was positive.
        skew, excess_kurtosis: of the returns; 0 for a normal distribution.
        exposure: mean share of equity invested.
        turnover_per_day: mean notional traded per day as a share of equity.
        annual_cost: costs paid per year as a share of mean equity.
        cost_share: costs as a share of the profit before costs; NaN if there was no such profit.
    """

    total_return: float
    annual_return: float
    volatility: float
    sharpe: float
    sortino: float
    max_drawdown: float
    calmar: float
    hit_rate: float
    skew: float
    excess_kurtosis: float
    exposure: float
    turnover_per_day: float
    annual_cost: float
    cost_share: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def simple_returns(equity: FloatArray) -> FloatArray:
    """[T] equity -> [T-1] returns."""
    returns: FloatArray = equity[1:] / equity[:-1] - 1.0
    return returns


def session_ends(session: IntArray) -> IntArray:
    """Rows that are the last of their session, for an ascending [T] `session`."""
    return np.flatnonzero(np.append(session[1:] != session[:-1], True))


def daily_equity(equity: FloatArray, session: IntArray) -> FloatArray:
    """Equity at the end of each session, after the equity the account started with.

    The first row of `equity` is the start and counts as a day of its own, so daily bars come back unchanged.
    """
    ends = session_ends(session)
    return equity[ends] if ends[0] == 0 else np.concatenate([equity[:1], equity[ends]])


def sharpe_ratio(returns: FloatArray, periods_per_year: float) -> float:
    """Annualised; 0 when the returns do not vary."""
    if len(returns) < 2:
        return 0.0
    deviation = float(returns.std(ddof=1))
    return float(returns.mean()) / deviation * float(np.sqrt(periods_per_year)) if deviation > NO_VARIANCE else 0.0


def sortino_ratio(returns: FloatArray, periods_per_year: float) -> float:
    """Annualised; NaN when no return was negative."""
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2))) if len(returns) else 0.0
    return float(returns.mean()) / downside * float(np.sqrt(periods_per_year)) if downside > NO_VARIANCE else np.nan


def drawdown(equity: FloatArray) -> FloatArray:
    """[T] fall from the peak so far, as a positive share of it."""
    peak = np.maximum.accumulate(equity)
    result: FloatArray = 1.0 - equity / peak
    return result


def moments(returns: FloatArray) -> tuple[float, float]:
    """Skew and (not excess) kurtosis, population moments; those of the normal (0, 3) without variance."""
    centred = returns - returns.mean() if len(returns) else returns
    variance = float(np.mean(centred**2)) if len(returns) else 0.0
    if variance <= NO_VARIANCE**2:
        return 0.0, 3.0
    return float(np.mean(centred**3)) / variance**1.5, float(np.mean(centred**4)) / variance**2


def measure(
    equity: FloatArray,
    session: IntArray,
    sessions_per_year: float,
    *,
    exposure: FloatArray | None = None,
    turnover: FloatArray | None = None,
    costs: FloatArray | None = None,
) -> Metrics:
    """Figures of one account. Ratios use daily returns, whatever the bars; the drawdown uses every bar.

    Args:
        equity: [T] at the close of each bar; the first row is the start.
        session: [T] session of each bar, ascending.
        exposure, turnover: [T] shares of equity; None means none.
        costs: [T] money paid at each bar; None means none.
    """
    daily = daily_equity(equity, session)
    returns = simple_returns(daily)
    years = len(returns) / sessions_per_year
    growth = float(equity[-1] / equity[0])
    annual = growth ** (1.0 / years) - 1.0 if years > 0 and growth > 0 else (growth - 1.0 if years == 0 else -1.0)
    deepest = float(drawdown(equity).max())
    moved = returns[np.abs(returns) > NO_VARIANCE]
    skew, kurtosis = moments(returns)
    paid = 0.0 if costs is None else float(costs.sum())
    gross = float(equity[-1] - equity[0]) + paid
    return Metrics(
        total_return=growth - 1.0,
        annual_return=annual,
        volatility=float(returns.std(ddof=1)) * float(np.sqrt(sessions_per_year)) if len(returns) > 1 else 0.0,
        sharpe=sharpe_ratio(returns, sessions_per_year),
        sortino=sortino_ratio(returns, sessions_per_year),
        max_drawdown=deepest,
        calmar=annual / deepest if deepest > NO_VARIANCE else np.nan,
        hit_rate=float((moved > 0).mean()) if len(moved) else np.nan,
        skew=skew,
        excess_kurtosis=kurtosis - 3.0,
        exposure=0.0 if exposure is None else float(exposure.mean()),
        turnover_per_day=0.0 if turnover is None else float(turnover.sum()) / max(len(returns), 1),
        annual_cost=paid / float(equity.mean()) / years if years > 0 else 0.0,
        cost_share=paid / gross if gross > 0 else np.nan,
    )
