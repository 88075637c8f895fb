from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.data.regime import (
    breadth,
    calmness,
    compute_regime,
    liquidity,
    market_returns,
    mean_correlation,
    spread,
)
from tests.data.market_panels import PARAMS, dataset_of, random_panel, with_other_future


def test_mean_correlation_agrees_with_the_mean_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    returns = 0.01 * (rng.standard_normal((600, 1)) + rng.standard_normal((600, 12)))
    found = mean_correlation(returns, 250)
    exact = np.corrcoef(returns[-250:].T)[np.triu_indices(12, 1)].mean()
    assert found[-1] == pytest.approx(exact, abs=0.03)
    assert abs(mean_correlation(0.01 * rng.standard_normal((600, 12)), 250)[-1]) < 0.03


def test_spread_is_the_cross_sectional_deviation() -> None:
    returns = np.array([[0.1, -0.1, np.nan], [0.2, np.nan, np.nan]])
    np.testing.assert_allclose(spread(returns), [0.1, np.nan])


def test_breadth_by_hand() -> None:
    panel = random_panel(0, bars=6, symbols=2)
    panel.close[:, 0] = [1, 2, 3, 4, 5, 6]
    panel.close[:, 1] = [6, 5, 4, 3, 2, 1]
    np.testing.assert_array_equal(breadth(panel, 3), [np.nan, np.nan, 0.5, 0.5, 0.5, 0.5])


def test_market_return_is_the_mean_simple_return_of_what_is_tradable() -> None:
    panel = random_panel(0, bars=3, symbols=3)
    panel.close[:] = [[10, 10, 10], [11, 9, 20], [11, 9, 20]]
    tradable = np.array([[True] * 3, [True, True, False], [False] * 3])
    found = np.expm1(market_returns(replace(panel, tradable=tradable)))
    np.testing.assert_allclose(found, [0.0, 0.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(np.expm1(market_returns(panel))[1], (0.1 - 0.1 + 1.0) / 3)


@given(st.integers(0, 1_000), st.integers(1, 159))
@settings(max_examples=20, deadline=None)
def test_regime_and_calmness_do_not_see_the_future(seed: int, rows: int) -> None:
    panel = random_panel(seed, gaps=0.03)
    other = with_other_future(panel, rows, seed)
    vix = np.linspace(10, 30, 160)
    other_vix = np.concatenate([vix[:rows], 80 * np.ones(160 - rows)])
    before, after = compute_regime(panel, PARAMS, vix)[1], compute_regime(other, PARAMS, other_vix)[1]
    assert before[:rows].tobytes() == after[:rows].tobytes()
    assert calmness(dataset_of(panel))[:rows].tobytes() == calmness(dataset_of(other))[:rows].tobytes()
    until = max(rows, 2)
    assert liquidity(dataset_of(panel), rows).tobytes() == liquidity(dataset_of(other), rows).tobytes(), until


def test_vix_is_a_regime_figure_where_it_is_given() -> None:
    panel = random_panel(1)
    assert "vix" not in compute_regime(panel, PARAMS)[0]
    names, regime = compute_regime(panel, PARAMS, np.linspace(10, 30, 160))
    assert names[-1] == "vix"
    assert regime[-1, -1] > 1.0
    assert np.isfinite(regime).all()


def test_a_stormy_market_is_less_calm() -> None:
    panel = random_panel(1, bars=200)
    moves = np.diff(np.log(panel.close), axis=0, prepend=np.log(panel.close[:1]))
    moves[100:] *= 4.0
    calm = calmness(dataset_of(replace(panel, close=np.exp(np.cumsum(moves, axis=0)))))
    assert np.isnan(calm[:19]).all()
    assert calm[19:100].max() < calm[125:].min()


def test_liquidity_is_the_median_dollar_volume_before_a_bar() -> None:
    panel = random_panel(1, gaps=0.1)
    panel.close[:, 3] = np.nan
    panel.tradable[:, 3] = False
    found = liquidity(dataset_of(panel), 50)
    for n, m in itertools.product(range(3), [50]):
        traded = panel.tradable[:m, n]
        assert found[n] == np.median((panel.close * panel.volume)[:m, n][traded])
    assert found[3] == 0.0


def test_liquidity_without_volume_ranks_calm_names_first() -> None:
    panel = random_panel(1, range_and_volume=False)
    level = np.log(panel.close)
    level[:, 0] = level[0, 0] + 10 * (level[:, 0] - level[0, 0])
    found = liquidity(dataset_of(replace(panel, close=np.exp(level))), 100)
    assert found.argmin() == 0
    assert (found > 0).all()
