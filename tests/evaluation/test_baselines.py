from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import Panel
from marl_pipeline.data.windows import Span, Window
from marl_pipeline.envs.trading.core.market import GONE_SESSIONS
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.baselines import BASELINES, baselines
from marl_pipeline.evaluation.rules import accounts_of
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


def account_of(panel: Panel, targets: np.ndarray, params: MarketParams) -> pd.DataFrame:
    (account,) = accounts_of(panel, targets[None], Span(0, len(targets)), params)
    return account


def test_buy_and_hold_without_costs_is_the_price() -> None:
    close = np.array([[10.0], [10.0], [11.0], [9.0]])
    account = account_of(panel_of(close), once([1.0], 4), market(**FREE))
    np.testing.assert_allclose(account["equity"], 1e5 * np.array([1.0, 1.0, 1.1, 0.9]))
    np.testing.assert_allclose(account["exposure"], [0, 1, 1, 1])


def test_orders_are_sized_at_the_close_and_fill_at_the_next_price() -> None:
    """10,000 shares for 10 each are ordered: at 8 they cost 80,000, and at 12.5 no more than 8,000 can be paid."""
    cheaper = account_of(panel_of(np.array([[10.0], [8.0], [10.0]])), once([1.0], 3), market(**FREE))
    np.testing.assert_allclose(cheaper["equity"], [1e5, 1e5, 1.2e5])
    dearer = account_of(panel_of(np.array([[10.0], [12.5], [10.0]])), once([1.0], 3), market(**FREE))
    np.testing.assert_allclose(dearer["equity"], [1e5, 1e5, 0.8e5])


def test_an_entry_costs_half_a_round_trip_and_slippage_once() -> None:
    params = market(commission_bps_round_trip=20.0, slippage_bps=5.0)
    account = account_of(panel_of(np.full((4, 1), 7.0)), once([1.0], 4), params)
    spent = 1e5 / (1 + 15e-4)
    np.testing.assert_allclose(account["equity"], [1e5, spent, spent, spent])
    np.testing.assert_allclose(account["commission"], [0, spent * 10e-4, 0, 0])
    np.testing.assert_allclose(account["slippage"], [0, spent * 5e-4, 0, 0])


def test_orders_fill_at_the_next_open_where_there_is_one() -> None:
    close, opened = np.array([[10.0], [10.0], [10.0]]), np.array([[10.0], [8.0], [10.0]])
    panel = panel_of(close, open=opened, high=close, low=opened)
    account = account_of(panel, once([1.0], 3), market(**FREE))
    np.testing.assert_allclose(account["equity"], [1e5, 1.2e5, 1.2e5])


def test_no_order_takes_more_than_its_share_of_the_volume() -> None:
    close = np.full((4, 1), 10.0)
    panel = panel_of(close, volume=np.full((4, 1), 1000.0))
    account = account_of(panel, np.ones((4, 1)), market(**FREE, participation=0.1))
    np.testing.assert_allclose(account["turnover"] * account["equity"], [0, 1000, 1000, 1000])


def test_closing_a_symbol_that_vanished_costs_what_closing_costs() -> None:
    """Bought for 100,000 at 15 basis points and closed at 15 more: 99,850 is what a free close would leave."""
    close = np.full((4 + GONE_SESSIONS, 1), 20.0)
    close[3:] = np.nan
    params = market(commission_bps_round_trip=20.0, slippage_bps=5.0)
    account = account_of(panel_of(close), once([1.0], len(close)), params)
    spent = 1e5 / (1 + 15e-4)
    np.testing.assert_allclose(account["equity"].iloc[2], spent)
    np.testing.assert_allclose(account["equity"].iloc[-1], spent * (1 - 15e-4))
    assert round(account["equity"].iloc[2], -1) == 99_850
    assert round(account["equity"].iloc[-1], -1) == 99_700
    assert account["exposure"].iloc[-1] == 0.0


def test_a_symbol_that_disappears_is_paid_out_at_its_last_price_and_a_halted_one_is_kept() -> None:
    close = np.full((6 + GONE_SESSIONS, 2), 20.0)
    close[:5] = [[10.0, 10.0], [10.0, 10.0], [12.0, np.nan], [12.0, 20.0], [np.nan, 20.0]]
    close[5:, 0] = np.nan
    bars = len(close)
    account = account_of(panel_of(close), once([0.5, 0.5], bars), market(**FREE))
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
    free = account_of(panel_of(close), targets, market(**FREE))
    costly = account_of(panel_of(close), targets, market())
    assert (free["exposure"] <= 1 + 1e-9).all()
    assert (costly["exposure"] <= 1 + 1e-9).all()
    assert (costly[["commission", "slippage"]] >= 0).all(axis=None)
    assert (costly["borrow"] == 0).all()
    assert np.isfinite(costly["equity"]).all()
    idle = costly["exposure"].eq(0) & costly["exposure"].shift(1).eq(0)
    np.testing.assert_allclose(costly["equity"][idle], costly["equity"].shift(1)[idle])


def test_a_target_decided_later_changes_nothing_before() -> None:
    dataset = random_dataset(60)
    targets = np.full((60, 4), np.nan)
    targets[0] = 0.2
    early = account_of(dataset.panel, targets, market())
    targets[30] = [0.9, 0, 0, 0]
    late = account_of(dataset.panel, targets, market())
    pd.testing.assert_frame_equal(early.iloc[:31], late.iloc[:31])
    assert late["turnover"].iloc[31] > 0


def test_future_bars_change_no_baseline_before_them() -> None:
    dataset = random_dataset(500)
    windows = (Window(0, Span(0, 1), Span(300, 500)),)
    changed = 400
    up = np.random.default_rng(5).normal(0, 0.2, (500, 4)).clip(-0.6, 0.6)
    close = dataset.panel.close.copy()
    close[changed:] *= np.random.default_rng(9).lognormal(0, 0.3, close[changed:].shape)
    noisy = dataset_of(panel_of(close))
    other = up.copy()
    other[changed:] *= -1
    before = baselines(dataset, signals_of(dataset, up), windows, market())
    after = baselines(noisy, signals_of(noisy, other), windows, market())
    for name in before:
        pd.testing.assert_frame_equal(before[name][: changed - 300], after[name][: changed - 300])
    assert not before["sl_thresholds"].equals(after["sl_thresholds"])


def test_every_baseline_is_an_account_over_the_whole_test_span() -> None:
    dataset = random_dataset(900)
    windows = windows_of(dataset)
    accounts = baselines(dataset, signals_of(dataset, np.zeros((900, 4))), windows, market())
    assert list(accounts) == list(BASELINES)
    for account in accounts.values():
        assert tuple(account.columns) == ACCOUNT_COLUMNS
        assert account["bar"].tolist() == list(range(windows[0].test.start, windows[-1].test.stop))
        assert account["equity"].iloc[0] == market().initial_cash
    assert (accounts["cash"]["equity"] == market().initial_cash).all()
    assert (accounts["sl_thresholds"]["equity"] == market().initial_cash).all()
    bought = accounts["equal_weight"].set_index("bar")["turnover"]
    assert bought[bought > 0.0].index.tolist() == [window.test.start + 1 for window in windows]


def test_the_benchmark_pays_to_get_in_and_then_follows_its_level() -> None:
    dataset = random_dataset(900)
    account = baselines(dataset, signals_of(dataset, np.zeros((900, 4))), windows_of(dataset), market())["benchmark"]
    level = dataset.benchmark[account["bar"].to_numpy()]
    shares = min(1e5 / level[0], 1e5 / (level[1] * (1 + 8.5e-4)))
    np.testing.assert_allclose(account["equity"][1:], 1e5 + shares * (level[1:] - level[1] * (1 + 8.5e-4)))


def test_a_benchmark_that_starts_late_is_bought_late_and_an_absent_one_is_an_error() -> None:
    dataset = random_dataset(900)
    windows = windows_of(dataset)
    start = windows[0].test.start
    dataset.benchmark[: start + 5] = np.nan
    signals = signals_of(dataset, np.zeros((900, 4)))
    account = baselines(dataset, signals, windows, market())["benchmark"]
    assert (account["exposure"][:6] == 0).all()
    assert account["exposure"][6] == pytest.approx(1.0, abs=0.02)
    dataset.benchmark[:] = np.nan
    with pytest.raises(UserError, match="INDEX"):
        baselines(dataset, signals, windows, market())
