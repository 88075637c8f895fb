from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.data.graph import SAME_SECTOR, correlation_graph, pairwise_correlation
from tests.data.market_panels import dataset_of, random_panel, with_other_future


def test_correlation_agrees_with_numpy_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    returns = 0.01 * (rng.standard_normal((60, 1)) + rng.standard_normal((60, 5)))
    returns[rng.random((60, 5)) < 0.2] = np.nan
    found = pairwise_correlation(returns, 20)
    for i in range(5):
        for j in range(5):
            both = np.isfinite(returns[:, [i, j]]).all(axis=1)
            np.testing.assert_allclose(found[i, j], np.corrcoef(returns[both, i], returns[both, j])[0, 1], atol=1e-10)


def test_neighbours_are_the_most_correlated_ones() -> None:
    rng = np.random.default_rng(1)
    panel = random_panel(1, bars=100, symbols=6)
    pairs = rng.standard_normal((100, 3)).repeat(2, axis=1) + 0.1 * rng.standard_normal((100, 6))
    panel.close[:] = np.exp(0.01 * np.cumsum(pairs, axis=0))
    block, neighbours, weights = correlation_graph(dataset_of(panel), 60, 2)
    np.testing.assert_array_equal(neighbours[-1, :, 0], [1, 0, 3, 2, 5, 4])
    np.testing.assert_allclose(weights[-1].sum(axis=1), 1.0, rtol=1e-6)
    assert (weights[-1, :, 0] >= weights[-1, :, 1]).all()
    np.testing.assert_array_equal(block, np.arange(100) // 20)


def test_without_history_the_sector_stands_in_and_unknown_is_no_sector() -> None:
    panel = random_panel(1, bars=30, symbols=5)
    sector = np.array([1, 1, 2, 0, 0])
    _, neighbours, weights = correlation_graph(dataset_of(panel, sector), 60, 2)
    np.testing.assert_array_equal(neighbours[0, :, 0], [1, 0, 2, 3, 4])
    np.testing.assert_array_equal(weights[0].sum(axis=1), [1, 1, 0, 0, 0])
    assert SAME_SECTOR > 0


def test_a_symbol_without_bars_has_no_neighbours_and_is_nobodys() -> None:
    panel = random_panel(1, bars=80, symbols=4)
    panel.close[:, 2] = np.nan
    _, neighbours, weights = correlation_graph(dataset_of(panel, np.array([1, 1, 1, 1])), 60, 3)
    assert weights[-1, 2].sum() == 0.0
    assert (neighbours[-1, 2] == 2).all()
    assert not ((neighbours[-1] == 2) & (weights[-1] > 0)).any()


def test_more_neighbours_than_symbols_are_padded_with_the_symbol_itself() -> None:
    panel = random_panel(1, bars=80, symbols=3)
    _, neighbours, weights = correlation_graph(dataset_of(panel), 60, 5)
    assert neighbours.shape == weights.shape == (4, 3, 5)
    assert (weights[..., 2:] == 0.0).all()
    assert (neighbours[:, :, 2:] == np.arange(3)[None, :, None]).all()
    assert (neighbours.dtype, weights.dtype) == (np.int64, np.float32)


@given(st.integers(0, 1_000), st.integers(1, 159))
@settings(max_examples=20, deadline=None)
def test_the_graph_in_force_does_not_see_the_future(seed: int, rows: int) -> None:
    panel = random_panel(seed, gaps=0.03)
    block, neighbours, weights = correlation_graph(dataset_of(panel), 40, 2, every=7)
    _, other_neighbours, other_weights = correlation_graph(dataset_of(with_other_future(panel, rows, seed)), 40, 2, 7)
    assert neighbours[block[:rows]].tobytes() == other_neighbours[block[:rows]].tobytes()
    assert weights[block[:rows]].tobytes() == other_weights[block[:rows]].tobytes()
