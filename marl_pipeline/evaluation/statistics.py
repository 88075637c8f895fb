"""How much of a Sharpe ratio is luck: stationary bootstrap, deflated Sharpe ratio, smallest detectable edge.

Everything here is seeded and works on returns per period; `periods_per_year` annualises at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from marl_pipeline.data.dataset import FloatArray, IntArray
from marl_pipeline.evaluation.metrics import NO_VARIANCE, moments

EULER_GAMMA = 0.5772156649015329
CHUNK = 250
"""Bootstrap samples drawn at a time: bounds memory, and is part of the random stream."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its central bootstrap interval.

    Attributes:
        value: the estimate from the data.
        low, high: the interval.
        confidence: its level.
        p_value: one-sided, of "not above 0".
        standard_error: over the bootstrap samples.
        block: mean block length of the bootstrap, in periods.
    """

    value: float
    low: float
    high: float
    confidence: float
    p_value: float
    standard_error: float
    block: float


def automatic_block_length(series: FloatArray) -> float:
    """Mean block length of the stationary bootstrap that minimises the error of the variance of the mean.

    Politis & White 2004 with the correction of Patton, Politis & White 2009: flat-top lag window, cut where
    autocorrelations stay insignificant. At least 1, at most min(3 sqrt(n), n / 3).
    """
    n = len(series)
    centred = series - series.mean()
    if n < 8 or float(np.mean(centred**2)) <= NO_VARIANCE**2:
        return 1.0
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = min(math.ceil(math.sqrt(n)) + run, n - 1)
    spectrum = np.fft.rfft(centred, 2 * n)
    covariance = np.fft.irfft(spectrum * spectrum.conj())[: longest + 1] / n
    correlation = covariance / covariance[0]
    small = np.abs(correlation[1:]) < 2.0 * math.sqrt(math.log10(n) / n)
    runs = np.flatnonzero(np.convolve(small, np.ones(run), "valid") == run)
    if len(runs):
        lag = int(runs[0])
    else:
        large = np.flatnonzero(~small)
        lag = int(large[-1]) + 1 if len(large) else 1
    width = min(2 * max(lag, 1), longest)
    lags = np.arange(-width, width + 1)
    window = np.clip(2.0 * (1.0 - np.abs(lags / width)), 0.0, 1.0)
    covariances = covariance[np.abs(lags)]
    slope = float(np.sum(window * np.abs(lags) * covariances))
    spread = 2.0 * float(np.sum(window * covariances)) ** 2
    if spread <= 0.0:
        return 1.0
    length = (2.0 * slope**2 / spread) ** (1.0 / 3.0) * n ** (1.0 / 3.0)
    return float(min(max(length, 1.0), math.ceil(min(3.0 * math.sqrt(n), n / 3.0))))


def stationary_bootstrap(periods: int, block: float, samples: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Row indices [b, periods] of resampled series, `samples` of them in chunks (Politis & Romano 1994).

    Blocks start anywhere, have geometric lengths with mean `block`, and wrap around the end.
    """
    position = np.arange(periods)
    for first in range(0, samples, CHUNK):
        count = min(CHUNK, samples - first)
        starts = rng.random((count, periods)) < 1.0 / block
        starts[:, 0] = True
        origin = np.maximum.accumulate(np.where(starts, position, 0), axis=1)
        anchor = rng.integers(periods, size=(count, periods))
        drawn = np.take_along_axis(anchor, origin, axis=1) + position - origin
        yield drawn % periods


def _sharpe_rows(returns: FloatArray) -> FloatArray:
    """Sharpe ratio per period of each row of [b, T]; 0 where a row does not vary."""
    deviation = returns.std(axis=1, ddof=1)
    safe = np.where(deviation > NO_VARIANCE, deviation, 1.0)
    return np.where(deviation > NO_VARIANCE, returns.mean(axis=1) / safe, 0.0)


def _interval(value: float, samples: FloatArray, confidence: float, block: float) -> Interval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    exceed = int(np.sum(samples - value >= value))
    return Interval(
        value=value,
        low=float(low),
        high=float(high),
        confidence=confidence,
        p_value=(1 + exceed) / (1 + len(samples)),
        standard_error=float(samples.std(ddof=1)),
        block=block,
    )


def sharpe_interval(
    returns: FloatArray, periods_per_year: float, *, confidence: float, samples: int, seed: int
) -> Interval:
    """The annualised Sharpe ratio of [T] returns with its percentile interval."""
    return sharpe_difference(
        returns, np.zeros_like(returns), periods_per_year, confidence=confidence, samples=samples, seed=seed
    )


def sharpe_difference(
    returns: FloatArray,
    baseline: FloatArray,
    periods_per_year: float,
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> Interval:
    """Annualised Sharpe ratio of `returns` less that of `baseline`, resampled in pairs (Ledoit & Wolf 2008).

    Both are [T] over the same periods. The block length is the longest that any of the two series and their
    difference asks for.

    Raises:
        ValueError: the lengths differ or there are fewer than 2 periods.
    """
    if returns.shape != baseline.shape or len(returns) < 2:
        raise ValueError(f"need two series of equal length from 2 periods on, got {len(returns)} and {len(baseline)}")
    scale = math.sqrt(periods_per_year)
    block = max(automatic_block_length(series) for series in (returns, baseline, returns - baseline))
    rng = np.random.default_rng(seed)
    drawn = [
        _sharpe_rows(returns[rows]) - _sharpe_rows(baseline[rows])
        for rows in stationary_bootstrap(len(returns), block, samples, rng)
    ]
    value = float(_sharpe_rows(returns[None])[0] - _sharpe_rows(baseline[None])[0])
    return _interval(value * scale, np.concatenate(drawn) * scale, confidence, block)


def probabilistic_sharpe(returns: FloatArray, threshold: float) -> float:
    """Probability that the true Sharpe ratio per period exceeds `threshold`, given the returns' moments.

    Bailey & Lopez de Prado 2012, equation 8 (with T - 1). 0.5 when the returns do not vary and the threshold is 0.
    """
    sharpe = float(_sharpe_rows(returns[None])[0]) if len(returns) > 1 else 0.0
    skew, kurtosis = moments(returns)
    spread = max(1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2, 1e-12)
    return float(norm.cdf((sharpe - threshold) * math.sqrt(max(len(returns) - 1, 0)) / math.sqrt(spread)))


def expected_best_sharpe(trials: int, deviation: float) -> float:
    """Sharpe ratio to expect of the best of `trials` independent ones whose true ratio is 0.

    Bailey & Lopez de Prado 2014, equation 1; `deviation` is the standard deviation over trials. 0 for one trial.
    """
    if trials < 1:
        raise ValueError("at least one trial was made")
    if trials == 1:
        return 0.0
    first = norm.ppf(1.0 - 1.0 / trials)
    second = norm.ppf(1.0 - 1.0 / (trials * math.e))
    return float(deviation * ((1.0 - EULER_GAMMA) * first + EULER_GAMMA * second))


def deflated_sharpe(returns: FloatArray, trials: int, trial_sharpes: FloatArray) -> tuple[float, float]:
    """Probability that the true Sharpe ratio is above what the best of `trials` lucky ones would show.

    Bailey & Lopez de Prado 2014. The spread over trials is that of `trial_sharpes` (per period), but never less than
    the sampling error 1 / sqrt(T - 1) of a Sharpe ratio of 0: a few similar trials would hide how far luck reaches.

    Returns:
        The probability and the threshold (per period).
    """
    sampling = 1.0 / math.sqrt(max(len(returns) - 1, 1))
    seen = float(trial_sharpes.std(ddof=1)) if len(trial_sharpes) > 1 else 0.0
    threshold = expected_best_sharpe(trials, max(sampling, seen))
    return probabilistic_sharpe(returns, threshold), threshold


def smallest_detectable_edge(standard_error: float, confidence: float, power: float = 0.8) -> float:
    """The true edge that a two-sided test at `confidence` would have found with probability `power`.

    In the units of `standard_error`: (z_{1 - alpha / 2} + z_{power}) x standard error.
    """
    alpha = 1.0 - confidence
    return float((norm.ppf(1.0 - alpha / 2.0) + norm.ppf(power)) * standard_error)
