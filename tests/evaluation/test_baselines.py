from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.data.dataset import Dataset
from marl_pipeline.data.windows import Span, Window
from marl_pipeline.envs.trading.core.market import GONE_SESSIONS
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.baselines import (
    Prices,
    baselines,
    equal_weights,
    month_starts,
    signal_weights,
    simulate,
)
from marl_pipeline.evaluation.track_record import ACCOUNT_COLUMNS
from tests.evaluation.evaluation_samples import (
    FREE,
    dataset_of,
    market,
    panel_of,
    random_dataset,
    signals_of,
    windows_of,
)


def once(weights: list[float], bars: int) -> np.ndarray:
    targets = np.full((bars, len(weights)), np.nan)
    targets[0] = weights
    return targets


def test_buy_and_hold_without_costs_is_the_price() -> None:
    close = np.array([[10.0], [11.0], [12.1], [9.0]])
    account = simulate(Prices.of(panel_of(close), market(**FREE)), once([1.0], 4), Span(0, 4), market(**FREE))
    np.testing.assert_allclose(account["equity"], 1e5 * np.array([1.0, 1.0, 1.1, 9 / 11]))
    np.testing.assert_allclose(account["exposure"], [0, 1, 1, 1])


def test_an_entry_costs_half_a_round_trip_and_slippage_once() -> None:
    params = market(commission_bps_round_trip=20.0, slippage_bps=5.0)
    account = simulate(Prices.of(panel_of(np.full((4, 1), 7.0)), params), once([1.0], 4), Span(0, 4), params)
    spent = 1e5 / (1 + 15e-4)
    np.testing.assert_allclose(account["equity"], [1e5, spent, spent, spent])
    np.testing.assert_allclose(account["commission"], [0, spent * 10e-4, 0, 0])
    np.testing.assert_allclose(account["slippage"], [0, spent * 5e-4, 0, 0])


def test_orders_fill_at_the_next_open_where_there_is_one() -> None:
    close, opened = np.array([[10.0], [10.0], [10.0]]), np.array([[10.0], [8.0], [10.0]])
    panel = panel_of(close, open=opened, high=close, low=opened)
    account = simulate(Prices.of(panel, market(**FREE)), once([1.0], 3), Span(0, 3), market(**FREE))
    np.testing.assert_allclose(account["equity"], [1e5, 1.25e5, 1.25e5])


def test_no_order_takes_more_than_its_share_of_the_volume() -> None:
    close = np.full((4, 1), 10.0)
    panel = panel_of(close, volume=np.full((4, 1), 1000.0))
    params = market(**FREE, participation=0.1)
    targets = np.ones((4, 1))
    account = simulate(Prices.of(panel, params), targets, Span(0, 4), params)
    np.testing.assert_allclose(account["turnover"] * account["equity"], [0, 1000, 1000, 1000])


def test_a_symbol_that_disappears_is_paid_out_at_its_last_price_and_a_halted_one_is_kept() -> None:
    close = np.full((6 + GONE_SESSIONS, 2), 20.0)
    close[:5] = [[10.0, 10.0], [10.0, 10.0], [12.0, np.nan], [12.0, 20.0], [np.nan, 20.0]]
    close[5:, 0] = np.nan
    bars = len(close)
    prices = Prices.of(panel_of(close), market(**FREE))
    account = simulate(prices, once([0.5, 0.5], bars), Span(0, bars), market(**FREE))
    held = account["exposure"] * account["equity"] / 1e5
    np.testing.assert_allclose(account["equity"] / 1e5, [1.0, 1.0, 1.1] + [1.6] * (bars - 3))
    np.testing.assert_allclose(held, [0, 1.0, 1.1] + [1.6] * GONE_SESSIONS + [1.0] * 3)


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_no_baseline_borrows_and_idle_cash_stays_what_it_is(seed: int, symbols: int) -> None:
    rng = np.random.default_rng(seed)
    close = 10.0 * np.exp(np.cumsum(rng.normal(0, 0.05, (30, symbols)), axis=0))
    close[rng.random(close.shape) < 0.1] = np.nan
    close[0] = 10.0
    targets = rng.dirichlet(np.ones(symbols + 1), 30)[:, :symbols]
    targets[rng.random(30) < 0.3] = np.nan
    params = market(**FREE)
    free = simulate(Prices.of(panel_of(close), params), targets, Span(0, 30), params)
    costly = simulate(Prices.of(panel_of(close), market()), targets, Span(0, 30), market())
    assert (free["exposure"] <= 1 + 1e-9).all()
    assert (costly["exposure"] <= 1 + 1e-9).all()
    assert (costly[["commission", "slippage"]] >= 0).all(axis=None)
    assert np.isfinite(costly["equity"]).all()
    idle = costly["exposure"].eq(0) & costly["exposure"].shift(1).eq(0)
    np.testing.assert_allclose(costly["equity"][idle], costly["equity"].shift(1)[idle])


def test_a_target_decided_later_changes_nothing_before() -> None:
    dataset = random_dataset(60)
    prices, span = Prices.of(dataset.panel, market()), Span(10, 60)
    targets = np.full((50, 4), np.nan)
    targets[0] = 0.2
    early = simulate(prices, targets, span, market())
    targets[30] = [0.9, 0, 0, 0]
    late = simulate(prices, targets, span, market())
    pd.testing.assert_frame_equal(early.iloc[:31], late.iloc[:31])
    assert late["turnover"].iloc[31] > 0


def test_future_bars_change_no_baseline_before_them() -> None:
    dataset = random_dataset(500)
    windows = (Window(0, Span(0, 1), Span(300, 500)),)
    cut = 400
    up = np.random.default_rng(5).normal(0, 0.2, (500, 4)).clip(-0.6, 0.6)
    close = dataset.panel.close.copy()
    close[cut:] *= np.random.default_rng(9).lognormal(0, 0.3, close[cut:].shape)
    noisy = dataset_of(panel_of(close))
    other = up.copy()
    other[cut:] *= -1
    before = baselines(dataset, signals_of(dataset, up), windows, market())
    after = baselines(noisy, signals_of(noisy, other), windows, market())
    for name in before:
        pd.testing.assert_frame_equal(before[name][: cut - 300], after[name][: cut - 300])
    assert not before["sl_thresholds"].equals(after["sl_thresholds"])


def test_every_baseline_is_an_account_over_the_whole_test_span() -> None:
    dataset = random_dataset(900)
    windows = windows_of(dataset)
    accounts = baselines(dataset, signals_of(dataset, np.zeros((900, 4))), windows, market())
    assert list(accounts) == ["equal_weight", "equal_weight_monthly", "benchmark", "sl_thresholds", "cash"]
    for account in accounts.values():
        assert tuple(account.columns) == ACCOUNT_COLUMNS
        assert account["bar"].tolist() == list(range(windows[0].test.start, windows[-1].test.stop))
        assert account["equity"].iloc[0] == market().initial_cash
    assert (accounts["cash"]["equity"] == market().initial_cash).all()
    assert (accounts["sl_thresholds"]["equity"] == market().initial_cash).all()
    bought = accounts["equal_weight"].set_index("bar")["turnover"]
    rebalanced = bought[bought > 1e-9].index.tolist()
    assert rebalanced == [window.test.start + 1 for window in windows]


def test_the_benchmark_pays_to_get_in_and_then_follows_its_level() -> None:
    dataset = random_dataset(900)
    account = baselines(dataset, signals_of(dataset, np.zeros((900, 4))), windows_of(dataset), market())["benchmark"]
    level = dataset.benchmark[account["bar"].to_numpy()]
    rate = 8.5e-4
    np.testing.assert_allclose(account["equity"][1:], 1e5 / (1 + rate) * level[1:] / level[1])


def test_a_benchmark_that_starts_late_is_bought_late_and_an_absent_one_is_an_error() -> None:
    dataset = random_dataset(900)
    windows = windows_of(dataset)
    start = windows[0].test.start
    dataset.benchmark[: start + 5] = np.nan
    signals = signals_of(dataset, np.zeros((900, 4)))
    account = baselines(dataset, signals, windows, market())["benchmark"]
    assert (account["exposure"][:5] == 0).all()
    assert account["exposure"][5] == pytest.approx(1.0)
    dataset.benchmark[:] = np.nan
    with pytest.raises(UserError, match="INDEX"):
        baselines(dataset, signals, windows, market())


def test_supervised_models_are_followed_at_the_end_of_each_session_up_to_the_limits() -> None:
    dataset: Dataset = random_dataset(12, bars_per_session=3)
    up = np.tile([0.3, 0.2, 0.1, -0.5], (12, 1))
    limits = market().limits.model_copy(update={"open_positions": 2, "position": 0.4})
    params = market().model_copy(update={"limits": limits})
    weights = signal_weights(signals_of(dataset, up), dataset.panel, Span(0, 12), params, 0.05)
    ends = ~np.isnan(weights).any(axis=1)
    assert np.flatnonzero(ends).tolist() == [2, 5, 8, 11]
    np.testing.assert_allclose(weights[2], [0.4, 0.4, 0, 0])
    none = signal_weights(signals_of(dataset, -up), dataset.panel, Span(0, 12), params, 0.6)
    np.testing.assert_allclose(none[2], 0.0)


def test_equal_weight_shares_among_what_trades_and_months_start_at_their_first_bar() -> None:
    tradable = np.array([[True, True], [True, False], [False, False]])
    weights = equal_weights(tradable, np.array([True, True, False]))
    np.testing.assert_array_equal(weights[:2], [[0.5, 0.5], [1.0, 0.0]])
    assert np.isnan(weights[2]).all()
    panel = random_dataset(60).panel
    starts = panel.timestamps[month_starts(panel, Span(0, 60))]
    assert [str(day.astype("datetime64[D]")) for day in starts] == ["2015-01-01", "2015-02-02", "2015-03-02"]
