from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from marl_pipeline.evaluation.metrics import (
    daily_equity,
    drawdown,
    measure,
    moments,
    session_ends,
    sharpe_ratio,
    simple_returns,
    sortino_ratio,
)

returns_of_days = arrays(np.int64, st.integers(3, 60), elements=st.integers(-200, 200)).map(lambda a: a / 1000.0)


def equity_of(returns: np.ndarray) -> np.ndarray:
    return 100.0 * np.concatenate([[1.0], np.cumprod(1.0 + returns)])


def test_metrics_of_a_small_account_by_hand() -> None:
    equity = np.array([100.0, 110.0, 99.0, 108.9])
    figures = measure(equity, np.arange(4), 252.0, costs=np.array([0.0, 1.0, 0.0, 0.1]), turnover=np.full(4, 0.3))
    assert figures.total_return == pytest.approx(0.089)
    assert figures.annual_return == pytest.approx(1.089 ** (252 / 3) - 1)
    assert figures.max_drawdown == pytest.approx(0.1)
    mean, deviation = 0.1 / 3, math.sqrt(((0.1 - 0.1 / 3) ** 2 * 2 + (-0.1 - 0.1 / 3) ** 2) / 2)
    assert figures.sharpe == pytest.approx(mean / deviation * math.sqrt(252))
    assert figures.sortino == pytest.approx(mean / math.sqrt(0.01 / 3) * math.sqrt(252))
    assert figures.hit_rate == pytest.approx(2 / 3)
    assert figures.turnover_per_day == pytest.approx(0.4)
    assert figures.cost_share == pytest.approx(1.1 / (8.9 + 1.1))
    assert figures.annual_cost == pytest.approx(1.1 / equity.mean() / (3 / 252))


def test_an_account_that_never_moves_has_sharpe_zero_and_no_ratio_that_is_not_defined() -> None:
    figures = measure(np.full(50, 1e5), np.arange(50), 252.0)
    assert figures.sharpe == 0.0
    assert figures.total_return == figures.volatility == figures.max_drawdown == 0.0
    assert math.isnan(figures.sortino)
    assert math.isnan(figures.hit_rate)
    assert (figures.skew, figures.excess_kurtosis) == (0.0, 0.0)


def test_hourly_bars_are_measured_by_day_and_their_drawdown_by_bar() -> None:
    equity = np.array([100.0, 80.0, 110.0, 105.0, 121.0])
    session = np.array([0, 0, 0, 1, 1])
    assert session_ends(session).tolist() == [2, 4]
    assert daily_equity(equity, session).tolist() == [100.0, 110.0, 121.0]
    figures = measure(equity, session, 252.0)
    assert figures.max_drawdown == pytest.approx(0.2)
    assert figures.sharpe == 0.0  # two days of exactly 10 %


def test_daily_bars_are_their_own_days() -> None:
    equity = np.array([1.0, 2.0, 3.0])
    assert daily_equity(equity, np.array([7, 8, 9])) is not None
    assert daily_equity(equity, np.array([7, 8, 9])).tolist() == equity.tolist()


@given(returns_of_days)
@settings(max_examples=60, deadline=None)
def test_the_order_of_days_changes_no_ratio(returns: np.ndarray) -> None:
    shuffled = np.random.default_rng(0).permutation(returns)
    for ratio in (sharpe_ratio, sortino_ratio):
        np.testing.assert_allclose(ratio(shuffled, 252.0), ratio(returns, 252.0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(equity_of(shuffled)[-1], equity_of(returns)[-1], rtol=1e-9)
    np.testing.assert_allclose(moments(shuffled), moments(returns), rtol=1e-6, atol=1e-6)


@given(returns_of_days, st.floats(0.1, 10.0))
@settings(max_examples=60, deadline=None)
def test_the_size_of_the_account_changes_no_figure(returns: np.ndarray, scale: float) -> None:
    equity, days = equity_of(returns), np.arange(len(returns) + 1)
    one, other = measure(equity, days, 252.0).as_dict(), measure(equity * scale, days, 252.0).as_dict()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_drawdown_is_measured_from_the_peak_so_far() -> None:
    np.testing.assert_allclose(drawdown(np.array([1.0, 2.0, 1.0, 4.0, 3.0])), [0, 0, 0.5, 0, 0.25])
    np.testing.assert_allclose(simple_returns(np.array([1.0, 2.0, 1.0])), [1.0, -0.5])


def test_the_other_figures_of_a_small_account_by_hand() -> None:
    equity = np.array([100.0, 110.0, 99.0, 108.9, 163.35])
    returns = [0.1, -0.1, 0.1, 0.5]
    figures = measure(equity, np.arange(5), 252.0, exposure=np.array([0.0, 0.5, 1.0, 0.5, 1.0]))
    mean = 0.15
    variance = sum((r - mean) ** 2 for r in returns)
    assert figures.volatility == pytest.approx(math.sqrt(variance / 3) * math.sqrt(252))
    assert figures.calmar == pytest.approx((1.6335 ** (252 / 4) - 1) / 0.1)
    assert figures.exposure == 0.6
    assert figures.skew == pytest.approx(sum((r - mean) ** 3 for r in returns) / 4 / (variance / 4) ** 1.5)
    assert figures.excess_kurtosis == pytest.approx(sum((r - mean) ** 4 for r in returns) / 4 / (variance / 4) ** 2 - 3)
    assert figures.hit_rate == 0.75
    assert (figures.turnover_per_day, figures.annual_cost, figures.cost_share) == (0.0, 0.0, 0.0)


def test_days_without_a_return_count_in_no_hit_rate() -> None:
    figures = measure(np.array([100.0, 100.0, 110.0, 110.0, 99.0]), np.arange(5), 252.0)
    assert figures.hit_rate == 0.5


def test_a_loss_has_no_profit_to_share_and_ruin_loses_everything_a_year() -> None:
    loss = measure(np.array([100.0, 90.0]), np.arange(2), 252.0, costs=np.array([0.0, 4.0]))
    assert math.isnan(loss.cost_share)
    assert loss.volatility == loss.sharpe == 0.0  # of one return
    assert loss.annual_return == pytest.approx(0.9**252 - 1)
    eaten = measure(np.array([100.0, 99.0]), np.arange(2), 252.0, costs=np.array([0.0, 4.0]))
    assert eaten.cost_share == pytest.approx(4 / 3)
    for last in (0.0, -5.0):
        ruined = measure(np.array([100.0, 50.0, last]), np.arange(3), 252.0)
        assert ruined.annual_return == -1.0
        assert ruined.total_return == last / 100 - 1


def test_one_session_is_no_year() -> None:
    """The first row is the start of the day that it belongs to: two bars of a session are one return."""
    one = measure(np.array([100.0, 102.0]), np.array([3, 3]), 252.0, turnover=np.array([0.5, 0.1]))
    assert one.total_return == pytest.approx(0.02)
    assert one.turnover_per_day == pytest.approx(0.6)
    start = measure(np.array([100.0]), np.array([3]), 252.0, costs=np.array([1.0]), turnover=np.array([0.5]))
    assert (start.annual_return, start.annual_cost, start.turnover_per_day) == (0.0, 0.0, 0.5)


def test_ratios_of_two_returns() -> None:
    assert sharpe_ratio(np.array([0.01, 0.03]), 1.0) == pytest.approx(0.02 / math.sqrt(0.0002))
    assert sharpe_ratio(np.array([0.01]), 1.0) == 0.0
    assert sortino_ratio(np.array([-0.01]), 4.0) == pytest.approx(-2.0)
    assert math.isnan(sortino_ratio(np.array([]), 1.0))
    assert moments(np.array([])) == (0.0, 3.0)
    assert moments(np.array([1.0, 1.0, 4.0])) == pytest.approx((2 / 2**1.5, 6 / 4))
