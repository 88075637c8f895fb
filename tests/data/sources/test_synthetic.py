from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.config import SyntheticParams
from marl_pipeline.data.calendar import in_session
from marl_pipeline.data.dataset import FloatArray
from marl_pipeline.data.sources.synthetic import SyntheticMarket, synthetic_market
from marl_pipeline.errors import UserError


def market(signal: float = 0.2, bars: int = 4000, symbols: int = 12, seed: int = 3, **options: str) -> SyntheticMarket:
    params = SyntheticParams(symbols=symbols, bars=bars, seed=seed, signal=signal, half_life=20.0)
    return synthetic_market(params, **options)


def grid_of(drawn: SyntheticMarket, column: str) -> FloatArray:
    values = drawn.bars[column].to_numpy().reshape(len(drawn.symbols), len(drawn.timestamps))
    return np.asarray(values.T, dtype=np.float64)


def out_of_sample_correlation(known: FloatArray, later: FloatArray) -> float:
    """Correlation on the second half of a one-variable regression fitted on the first (its sign is what matters)."""
    half = len(known) // 2
    slope = (known[:half] * later[:half]).sum() / (known[:half] ** 2).sum()
    return float(np.corrcoef((slope * known[half:]).ravel(), later[half:].ravel())[0, 1])


def trailing_mean(values: FloatArray, window: int) -> FloatArray:
    sums = np.cumsum(np.vstack([np.zeros((1, values.shape[1])), values]), axis=0)
    return (sums[window:] - sums[:-window]) / window


def test_a_regression_on_past_returns_predicts_the_next_one_out_of_sample() -> None:
    own = market(0.2).idiosyncratic
    known = trailing_mean(own, 20)
    assert out_of_sample_correlation(known[:-1], own[20:]) > 0.15


def test_volume_foretells_the_next_return_out_of_sample() -> None:
    drawn = market(0.2)
    volume = np.log(grid_of(drawn, "volume"))
    assert out_of_sample_correlation((volume - volume.mean(axis=0))[:-1], drawn.idiosyncratic[1:]) > 0.15


def test_volume_speaks_of_the_coming_drift_and_not_only_of_the_present_one() -> None:
    drawn = market(0.2)
    volume = np.log(grid_of(drawn, "volume"))
    news = drawn.oracle_drift[1:] - 0.5 ** (1.0 / 20.0) * drawn.oracle_drift[:-1]
    correlation = [np.corrcoef(volume[:-1, k], news[:, k])[0, 1] for k in range(len(drawn.symbols))]
    assert np.mean(correlation) > 5.0 / np.sqrt(news.size)


def test_without_signal_nothing_predicts() -> None:
    drawn = market(0.0)
    own = drawn.idiosyncratic
    volume = np.log(grid_of(drawn, "volume"))
    bound = 4.0 / np.sqrt(own.size / 2)
    assert abs(out_of_sample_correlation(trailing_mean(own, 20)[:-1], own[20:])) < bound
    assert abs(out_of_sample_correlation((volume - volume.mean(axis=0))[:-1], own[1:])) < bound
    assert not drawn.oracle_drift.any()


def test_the_drift_has_the_stated_share_of_variance_and_half_life() -> None:
    drawn = market(0.3, bars=20_000, symbols=12)
    share = drawn.oracle_drift.var(axis=0) / drawn.idiosyncratic.var(axis=0)
    assert share.mean() == pytest.approx(0.3, abs=0.02)
    drift = drawn.oracle_drift - drawn.oracle_drift.mean(axis=0)
    autocorrelation = (drift[20:] * drift[:-20]).mean(axis=0) / (drift**2).mean(axis=0)
    assert autocorrelation.mean() == pytest.approx(0.5, abs=0.05)


def test_the_variance_of_own_returns_does_not_depend_on_the_signal() -> None:
    without, with_signal = (market(signal, bars=20_000, symbols=12).idiosyncratic.var(axis=0) for signal in (0.0, 0.5))
    np.testing.assert_allclose(with_signal / without, 1.0, atol=0.1)


def test_the_law_of_volume_does_not_give_the_signal_away() -> None:
    without, with_signal = (np.log(grid_of(market(signal), "volume")) for signal in (0.0, 0.5))
    np.testing.assert_allclose((with_signal.std(axis=0) / without.std(axis=0)).mean(), 1.0, atol=0.05)


def test_the_market_is_a_market() -> None:
    drawn = market(0.0, bars=10_000)
    returns = np.diff(np.log(grid_of(drawn, "close")), axis=0)
    correlation = np.corrcoef(returns.T)
    assert 0.1 < correlation[np.triu_indices(len(correlation), 1)].mean() < 0.6
    assert 0.15 < returns.std() * np.sqrt(252) < 0.5
    pooled = returns.mean(axis=1)
    size = np.abs(pooled)
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.1, "volatility comes in clusters"
    assert np.mean((pooled - pooled.mean()) ** 4) / pooled.var() ** 2 > 3.5, "tails are fat"
    volume = np.log(grid_of(drawn, "volume"))[1:]
    assert np.mean([np.corrcoef(volume[:, k], np.abs(returns[:, k]))[0, 1] for k in range(12)]) > 0.15


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), signal=st.floats(0.0, 0.99), frequency=st.sampled_from(["1Day", "1Hour"]))
def test_any_market_has_consistent_bars_on_the_exchanges_grid(seed: int, signal: float, frequency: str) -> None:
    drawn = market(signal, bars=150, symbols=3, seed=seed, frequency=frequency)
    bars = drawn.bars
    assert len(bars) == 450
    assert not bars.isna().any().any()
    assert (bars["low"] > 0).all()
    assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
    assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
    assert (bars["volume"] >= 1).all()
    assert in_session(drawn.timestamps, frequency, "XNYS").all()
    assert set(drawn.sectors["symbol"]) == set(bars["symbol"])
    assert drawn.sectors["sector"].nunique() == 3


def test_a_seed_fixes_every_bit_and_the_first_bars_do_not_hang_on_the_clock() -> None:
    pd.testing.assert_frame_equal(market().bars, market().bars)
    assert not market(seed=4).bars["close"].equals(market().bars["close"])
    assert market().timestamps[0] == np.datetime64("2000-01-03")
    assert market(first_day="2010-01-01").timestamps[0] == np.datetime64("2010-01-04")


def test_more_bars_than_the_calendar_has_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.synthetic\.bars: the calendar XNYS has"):
        market(bars=40_000, symbols=2)
