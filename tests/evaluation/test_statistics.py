from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from marl_pipeline.evaluation.statistics import (
    automatic_block_length,
    deflated_sharpe,
    expected_best_sharpe,
    probabilistic_sharpe,
    sharpe_difference,
    sharpe_interval,
    smallest_detectable_edge,
    stationary_bootstrap,
)


def autoregressive(phi: float, length: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=length)
    series = np.zeros(length)
    for t in range(1, length):
        series[t] = phi * series[t - 1] + noise[t]
    return series


def plain_block_length(series: np.ndarray) -> float:
    """Politis & White 2004 again, with loops, as written in the paper."""
    n = len(series)
    centred = series - series.mean()
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = math.ceil(math.sqrt(n)) + run
    covariance = [sum(centred[i] * centred[i + k] for i in range(n - k)) / n for k in range(longest + 1)]
    bound = 2 * math.sqrt(math.log10(n) / n)
    lag = next(
        m for m in range(longest) if all(abs(covariance[m + k] / covariance[0]) < bound for k in range(1, run + 1))
    )
    width = min(2 * max(lag, 1), longest)
    g = d = 0.0
    for k in range(-width, width + 1):
        x = abs(k) / width
        weight = 1.0 if x <= 0.5 else 2 * (1 - x)
        g += weight * abs(k) * covariance[abs(k)]
        d += weight * covariance[abs(k)]
    length = (2 * g**2 / (2 * d**2)) ** (1 / 3) * n ** (1 / 3)
    return min(max(length, 1.0), math.ceil(min(3 * math.sqrt(n), n / 3)))


@pytest.mark.parametrize(("phi", "seed"), [(0.0, 1), (0.3, 2), (0.7, 3), (-0.4, 4)])
def test_block_length_equals_a_second_implementation(phi: float, seed: int) -> None:
    series = autoregressive(phi, 700, seed)
    assert automatic_block_length(series) == pytest.approx(plain_block_length(series), rel=1e-9)


def test_persistent_series_get_longer_blocks() -> None:
    lengths = [
        np.mean([automatic_block_length(autoregressive(phi, 900, s)) for s in range(10)]) for phi in (0, 0.5, 0.9)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_a_constant_series_has_blocks_of_one() -> None:
    assert automatic_block_length(np.full(100, 0.01)) == 1.0


def test_bootstrap_blocks_have_the_mean_length_asked_for_and_use_every_row_alike() -> None:
    rows = np.concatenate(list(stationary_bootstrap(200, 8.0, 1000, np.random.default_rng(0))))
    assert rows.shape == (1000, 200)
    assert rows.min() == 0
    assert rows.max() == 199
    breaks = np.mean((rows[:, 1:] - rows[:, :-1]) % 200 != 1)
    assert breaks == pytest.approx(1 / 8, rel=0.05)
    counts = np.bincount(rows.ravel(), minlength=200)
    assert counts.std() / counts.mean() < 0.15


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 400)
    make = lambda seed: sharpe_interval(returns, 252.0, confidence=0.95, samples=500, seed=seed)  # noqa: E731
    assert make(0) == make(0)
    assert make(0) != make(1)


@pytest.mark.parametrize("phi", [0.0, 0.3])
def test_the_interval_covers_the_truth_as_often_as_it_says(phi: float) -> None:
    true, length, runs, hits = 0.1, 500, 200, 0
    for run in range(runs):
        noise = autoregressive(phi, length + 50, run)[50:] * math.sqrt(1 - phi**2)
        interval = sharpe_interval(noise + true, 1.0, confidence=0.9, samples=250, seed=run)
        hits += interval.low <= true <= interval.high
    assert 0.82 <= hits / runs <= 0.96


def test_p_values_are_uniform_when_there_is_no_edge() -> None:
    values = []
    for run in range(200):
        rng = np.random.default_rng(run)
        market = rng.normal(0.0005, 0.01, 300)
        one, other = (market + rng.normal(0, 0.005, 300) for _ in range(2))
        values.append(sharpe_difference(one, other, 252.0, confidence=0.95, samples=250, seed=run).p_value)
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_an_edge_that_is_there_is_found() -> None:
    rng = np.random.default_rng(0)
    market = rng.normal(0.0003, 0.01, 1000)
    found = sharpe_difference(market + 0.001, market, 252.0, confidence=0.95, samples=500, seed=0)
    assert found.low > 0
    assert found.p_value < 0.01
    assert found.value == pytest.approx(0.001 / market.std(ddof=1) * math.sqrt(252))


def test_the_difference_to_itself_is_nothing() -> None:
    returns = np.random.default_rng(0).normal(0, 0.01, 300)
    same = sharpe_difference(returns, returns, 252.0, confidence=0.95, samples=300, seed=0)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert same.p_value == 1.0


def test_a_better_series_than_one_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="equal length"):
        sharpe_difference(np.zeros(5), np.zeros(6), 252.0, confidence=0.95, samples=100, seed=0)


def test_probabilistic_sharpe_of_normal_returns_is_the_t_test_of_the_mean() -> None:
    returns = stats.norm.ppf((np.arange(2000) + 0.5) / 2000) * 0.01 + 0.0004
    sharpe = returns.mean() / returns.std(ddof=1)
    expected = stats.norm.cdf(sharpe * math.sqrt(1999) / math.sqrt(1 + sharpe**2 / 2))
    assert probabilistic_sharpe(returns, 0.0) == pytest.approx(expected, abs=1e-3)
    assert probabilistic_sharpe(returns, sharpe) == pytest.approx(0.5)


def test_negative_skew_lowers_the_probability() -> None:
    noise = np.random.default_rng(0).gamma(1.0, 1.0, 3000)
    lottery = (noise - noise.mean()) / noise.std() * 0.01 + 0.0003
    crash = (noise.mean() - noise) / noise.std() * 0.01 + 0.0003
    assert probabilistic_sharpe(crash, 0.0) < probabilistic_sharpe(lottery, 0.0)


@pytest.mark.parametrize("trials", [10, 100])
def test_expected_best_of_many_lucky_trials_matches_simulation(trials: int) -> None:
    best = np.random.default_rng(0).normal(0.0, 0.5, (20_000, trials)).max(axis=1).mean()
    assert expected_best_sharpe(trials, 0.5) == pytest.approx(best, rel=0.05)
    assert expected_best_sharpe(1, 0.5) == 0.0


def test_more_trials_deflate_more_and_one_trial_deflates_nothing() -> None:
    returns = np.random.default_rng(2).normal(0.0008, 0.01, 800)
    shares = [deflated_sharpe(returns, trials, np.array([]))[0] for trials in (1, 5, 50, 500)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(probabilistic_sharpe(returns, 0.0))
    alike, apart = np.array([0.05, 0.0501]), np.array([-0.4, 0.4])
    assert deflated_sharpe(returns, 5, alike)[1] == pytest.approx(expected_best_sharpe(5, 1 / math.sqrt(799)))
    assert deflated_sharpe(returns, 5, apart)[1] > deflated_sharpe(returns, 5, alike)[1]


def test_the_smallest_detectable_edge_is_detected_four_times_in_five() -> None:
    error = 0.3
    edge = smallest_detectable_edge(error, 0.95, 0.8)
    estimates = np.random.default_rng(0).normal(edge, error, 100_000)
    assert np.mean(estimates - 1.959964 * error > 0) == pytest.approx(0.8, abs=0.01)


def test_the_interval_is_that_of_the_resampled_ratios_by_hand() -> None:
    returns = np.random.default_rng(3).normal(0.0002, 0.01, 60)
    found = sharpe_interval(returns, 252.0, confidence=0.9, samples=400, seed=7)
    rows = np.concatenate(list(stationary_bootstrap(60, found.block, 400, np.random.default_rng(7))))
    ratios = np.array([returns[row].mean() / returns[row].std(ddof=1) for row in rows]) * math.sqrt(252)
    value = returns.mean() / returns.std(ddof=1) * math.sqrt(252)
    assert found.value == pytest.approx(value)
    assert [found.low, found.high] == pytest.approx(np.quantile(ratios, [0.05, 0.95]))
    assert found.standard_error == pytest.approx(ratios.std(ddof=1))
    assert found.p_value == (1 + np.sum(ratios - value >= value)) / 401
    assert 0.1 < found.p_value < 0.9
    assert found.block == automatic_block_length(returns)


def test_no_p_value_is_zero() -> None:
    returns = 0.01 + 0.001 * np.sin(np.arange(100.0))
    assert sharpe_interval(returns, 252.0, confidence=0.9, samples=99, seed=0).p_value == 0.01


def test_the_longest_block_of_a_pair_is_taken() -> None:
    persistent, quick = autoregressive(0.9, 300, 0), autoregressive(0.0, 300, 1)
    blocks = [automatic_block_length(series) for series in (persistent, quick, persistent - quick)]
    assert len(set(blocks)) == 3
    found = sharpe_difference(persistent, quick, 1.0, confidence=0.9, samples=20, seed=0)
    assert found.block == max(blocks)


@pytest.mark.parametrize("returns", [np.full(2, 0.01), np.array([0.01])])
def test_returns_that_do_not_vary_have_no_sharpe_ratio(returns: np.ndarray) -> None:
    assert probabilistic_sharpe(returns, 0.0) == 0.5
    if len(returns) > 1:
        found = sharpe_interval(returns, 252.0, confidence=0.9, samples=10, seed=0)
        assert (found.value, found.low, found.high, found.block) == (0.0, 0.0, 0.0, 1.0)


def test_one_period_and_no_trial_are_refused() -> None:
    with pytest.raises(ValueError, match="2 periods"):
        sharpe_interval(np.zeros(1), 252.0, confidence=0.9, samples=10, seed=0)
    with pytest.raises(ValueError, match="at least one trial"):
        expected_best_sharpe(0, 1.0)


def test_blocks_of_short_series_are_bounded_by_their_length() -> None:
    assert automatic_block_length(np.array([0.0, 1, 0, 1, 0, 1, 0])) == 1.0
    assert automatic_block_length(np.arange(8.0)) > 1.0
    # What turns back at every step has next to no long-run variance, and asks for blocks without end.
    assert automatic_block_length(np.resize([1.0, -1.0], 40)) == math.ceil(40 / 3)
    back_and_forth = np.diff(np.random.default_rng(1).normal(size=401))
    assert automatic_block_length(back_and_forth) == math.ceil(3 * math.sqrt(400))


def test_the_probability_is_the_papers_formula_with_skew_and_kurtosis() -> None:
    """Bailey & Lopez de Prado 2012, equation 8, with moments from scipy."""
    returns = np.random.default_rng(5).gamma(2.0, 0.01, 50) - 0.015
    sharpe = returns.mean() / returns.std(ddof=1)
    skew, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    spread = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    wanted = stats.norm.cdf((sharpe - 0.1) * math.sqrt(49) / math.sqrt(spread))
    assert 0.05 < wanted < 0.95
    assert probabilistic_sharpe(returns, 0.1) == pytest.approx(wanted, rel=1e-9)


def test_thresholds_of_few_trials_by_hand() -> None:
    """(1 - gamma) z(1 - 1/N) + gamma z(1 - 1/(N e)) with N = 2: 0 + 0.5772 x 0.9005; and of an edge, 1.96 + 0.8416."""
    assert expected_best_sharpe(2, 1.0) == pytest.approx(0.57722 * stats.norm.ppf(1 - 1 / (2 * math.e)), abs=1e-5)
    assert expected_best_sharpe(2, 1.0) == pytest.approx(0.5198, abs=1e-3)
    assert smallest_detectable_edge(0.3, 0.95) == pytest.approx(0.3 * (1.95996 + 0.84162), abs=1e-5)
    wide = np.array([-0.4, 0.4])
    assert deflated_sharpe(np.random.default_rng(2).normal(size=50), 2, wide)[1] == pytest.approx(
        expected_best_sharpe(2, math.sqrt(0.32))
    )
