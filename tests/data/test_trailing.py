from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.data import trailing
from marl_pipeline.data.trailing import OwnBars


def test_lag_looks_back_and_never_ahead() -> None:
    np.testing.assert_array_equal(trailing.lag(np.array([[1.0], [2.0], [3.0]]), 2), [[np.nan], [np.nan], [1.0]])


def test_return_after_a_gap_spans_the_gap() -> None:
    close = np.array([[1.0], [np.nan], [2.0], [4.0]])
    np.testing.assert_allclose(trailing.log_returns(close)[:, 0], [np.nan, np.nan, np.log(2), np.log(2)])


@given(st.integers(0, 10_000), st.floats(0.0, 0.9))
@settings(max_examples=30, deadline=None)
def test_own_bars_come_back_to_where_they_were(seed: int, gaps: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((30, 5)) < gaps, np.nan, rng.standard_normal((30, 5)))
    own = OwnBars.of(np.isfinite(values))
    gathered = own.gather(values)
    assert not (np.isnan(gathered[:-1]) & np.isfinite(gathered[1:])).any()
    np.testing.assert_array_equal(own.scatter(gathered), values)


def test_z_score_of_a_ramp_by_hand() -> None:
    values = np.arange(50.0)[:, None]
    scored = trailing.z_score(values, 40, 5.0)
    assert np.isnan(scored[:9]).all()
    assert np.isfinite(scored[9:]).all()
    window = np.arange(10.0, 50.0)
    np.testing.assert_allclose(scored[49, 0], (49 - window.mean()) / window.std(), rtol=1e-12)


def test_a_series_that_does_not_move_scores_zero() -> None:
    assert (trailing.z_score(np.full((60, 1), 0.1 + 0.2), 40, 5.0)[10:] == 0.0).all()


def test_z_score_is_clipped() -> None:
    values = np.zeros((60, 1))
    values[55] = 1e9
    values[::2] += 1e-3
    assert trailing.z_score(values, 40, 5.0)[55, 0] == 5.0


@given(st.integers(0, 10_000), st.integers(2, 20))
@settings(max_examples=30, deadline=None)
def test_deepest_fall_is_the_worst_peak_to_later_trough(seed: int, window: int) -> None:
    level = np.cumsum(np.random.default_rng(seed).standard_normal((40, 3)) * 0.05, axis=0)
    found = trailing.deepest_fall(level, window, cells=50)
    for t in range(window - 1, 40):
        for n in range(3):
            part = level[t - window + 1 : t + 1, n]
            worst = min(part[j] - part[i] for i in range(window) for j in range(i, window))
            np.testing.assert_allclose(found[t, n], np.exp(worst) - 1.0, atol=1e-14)
    assert np.isnan(found[: window - 1]).all()


def test_weighted_sum_puts_the_first_weight_on_the_present() -> None:
    found = trailing.weighted(np.array([[1.0], [10.0], [100.0]]), np.array([2.0, 3.0]))
    np.testing.assert_array_equal(found[:, 0], [np.nan, 23.0, 230.0])
