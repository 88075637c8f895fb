"""Who is related to whom: for every symbol its nearest others by trailing correlation and sector, refreshed every
few bars from the bars before."""

from __future__ import annotations

import numpy as np

from marl_pipeline.data import trailing
from marl_pipeline.data.dataset import Dataset, Float32Array, FloatArray, IntArray

SAME_SECTOR = 0.1
"""Added to the correlation of two symbols of one known sector: it decides between near equals, and alone stands
in while there is no history to correlate."""


def correlation_graph(
    dataset: Dataset, window: int, k: int, every: int = 20
) -> tuple[IntArray, IntArray, Float32Array]:
    """The `k` nearest neighbours of each symbol, computed anew at bars 0, `every`, 2 `every`, ...

    The block of bar t was computed at the last such bar b <= t from the log returns of bars b - window + 1 .. b.
    A pair counts when both have returns at half of those bars or more. A weight is max(correlation, 0) plus
    `SAME_SECTOR` for a shared sector; each symbol's weights sum to 1.

    Returns:
        block_of_bar: [T] int64.
        neighbours: [B, N, k] int64; the symbol itself with weight 0 where it has fewer than k.
        weights: [B, N, k] float32, descending; all 0 for a symbol without neighbours.
    """
    returns = trailing.log_returns(dataset.panel.close)
    sector = np.asarray(dataset.sector)
    related = (sector[:, None] == sector[None, :]) & (sector[:, None] != 0)
    blocks = [
        nearest(returns[max(bar - window + 1, 0) : bar + 1], related, window // 2, k)
        for bar in range(0, len(returns), every)
    ]
    block_of_bar = np.arange(len(returns), dtype=np.int64) // every
    return block_of_bar, np.stack([block[0] for block in blocks]), np.stack([block[1] for block in blocks])


def nearest(returns: FloatArray, related: np.ndarray, at_least: int, k: int) -> tuple[IntArray, Float32Array]:
    """Neighbours [N, k] and weights [N, k] from the returns [W, N] of one window; ties go to the earlier name."""
    symbols = returns.shape[1]
    correlation = pairwise_correlation(returns, at_least)
    strength = np.maximum(correlation, 0.0) + SAME_SECTOR * related
    np.fill_diagonal(strength, 0.0)
    active = np.isfinite(returns).any(axis=0)
    if active.any():
        strength[:, ~active] = 0.0
        strength[~active] = 0.0
    order = np.argsort(-strength, axis=1, kind="stable")[:, : min(k, symbols - 1)]
    weights = np.take_along_axis(strength, order, axis=1)
    sums = weights.sum(axis=1, keepdims=True)
    weights = np.where(sums > 0.0, weights / np.where(sums > 0.0, sums, 1.0), 0.0)
    own = np.arange(symbols)[:, None]
    neighbours = np.where(weights > 0.0, order, own)
    missing = k - order.shape[1]
    if missing > 0:
        neighbours = np.hstack([neighbours, np.repeat(own, missing, axis=1)])
        weights = np.hstack([weights, np.zeros((symbols, missing))])
    return neighbours.astype(np.int64), weights.astype(np.float32)


def pairwise_correlation(returns: FloatArray, at_least: int) -> FloatArray:
    """[N, N] correlation over the rows that both symbols have; 0 where fewer than `at_least` (and 2) are there or
    one does not move."""
    known = np.isfinite(returns)
    here = known.astype(np.float64)
    values = np.where(known, returns, 0.0)
    count = here.T @ here
    safe = np.maximum(count, 1.0)
    sums = values.T @ here  # [i, j]: sum of i over the rows that j has too
    squares = (values**2).T @ here
    covariance = values.T @ values / safe - sums * sums.T / safe**2
    variance = squares / safe - (sums / safe) ** 2
    scale = np.sqrt(np.maximum(variance, 0.0) * np.maximum(variance.T, 0.0))
    defined = (count >= max(at_least, 2)) & (scale > 1e-14)
    return np.where(defined, np.clip(covariance / np.where(defined, scale, 1.0), -1.0, 1.0), 0.0)
