"""The calibration market: a seeded regime-switching factor market with a planted, observable drift.

Return of symbol i in bar t, in units of one bar:

    r[t, i] = drift + beta_i v_t m_t + v_t s_t[sector of i] + e[t, i]
    e[t, i] = sigma_i (sqrt(signal) k z[t, i] + sqrt(1 - signal) v_t eps[t, i])

v_t follows a two-state Markov chain (calm, stormy), m, s and eps are standard normal, z is a stationary AR(1) of
unit variance whose shocks halve in `half_life` bars, and k^2 = E[v^2], so that the planted part d = sigma sqrt(signal)
k z has exactly the share `signal` of the variance of e, whatever that share is. z[t] is drawn before bar t. It shows
in two causal ways: in the symbol's own past returns, and in its volume, since the log volume of bar t - 1 rises with
z[t] (`VOLUME_DRIFT`). The loadings of volume are the same for every `signal`; at 0 it just foretells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from marl_pipeline.config import SyntheticParams
from marl_pipeline.data.calendar import bars_per_year, expected_grid, in_session, session_of
from marl_pipeline.data.dataset import BoolArray, FloatArray, TimeArray
from marl_pipeline.errors import UserError

FIRST_DAY = "2000-01-03"
SECTORS = 3

MARKET_DRIFT = 0.07
"""Expected log return per year that every symbol shares, in proportion to its beta."""
MARKET_VOLATILITY, SECTOR_VOLATILITY = 0.12, 0.06
"""Per year, in the calm state."""
OWN_VOLATILITY = (0.15, 0.30)

STORMY = 2.2
"""Volatility in the stormy state as a multiple of the calm one's."""
CALM_SESSIONS, STORMY_SESSIONS = 120.0, 25.0
"""Expected lengths of stays."""

GAP = 0.2
"""Share of a session's variance that falls between the close and the next open."""

VOLUME_MOVE, VOLUME_DRIFT, VOLUME_NOISE = 0.25, 0.3, 0.3
"""Loadings of log volume on |return|, on the coming drift and on noise."""


@dataclass(frozen=True)
class SyntheticMarket:
    """The bars and what an oracle would know.

    Attributes:
        bars: the canonical table, sorted by symbol and time.
        sectors: columns symbol, sector.
        timestamps: [T] datetime64[us] bar starts.
        symbols: N names.
        oracle_drift: [T, N] the part of the log return of bar t that was settled before it began.
        idiosyncratic: [T, N] the symbol's own log return in bar t, of which `oracle_drift` is the foreseeable part.
    """

    bars: pd.DataFrame
    sectors: pd.DataFrame
    timestamps: TimeArray
    symbols: tuple[str, ...]
    oracle_drift: FloatArray
    idiosyncratic: FloatArray


def synthetic_market(
    params: SyntheticParams, frequency: str = "1Day", calendar: str = "XNYS", first_day: str | None = None
) -> SyntheticMarket:
    """Draws the market, from the first session of `first_day` (2000-01-03) on.

    One seed gives one market; markets that differ in `signal` only share all their random numbers.

    Raises:
        UserError: the calendar ends (in 2100 or before) before `params.bars` bars.
    """
    rng = np.random.default_rng(params.seed)
    bars, count = params.bars, params.symbols
    timestamps = _grid(bars, frequency, calendar, first_day or FIRST_DAY)
    per_year = bars_per_year(frequency, calendar)
    names = tuple(f"SYN{index:0{max(2, len(str(count - 1)))}d}" for index in range(count))
    sector = np.arange(count) % SECTORS
    beta = rng.uniform(0.7, 1.3, count)
    own = rng.uniform(*OWN_VOLATILITY, count) / np.sqrt(per_year)
    volatility, mean_square = _volatility(rng, bars, sessions_per_bar=252.0 / per_year)
    market = rng.standard_normal(bars) * MARKET_VOLATILITY / np.sqrt(per_year)
    sectors = rng.standard_normal((bars, SECTORS)) * SECTOR_VOLATILITY / np.sqrt(per_year)
    state = _persistent(rng, bars + 1, count, params.half_life)

    drift = np.sqrt(params.signal * mean_square) * own * state[:-1]
    noise = np.sqrt(1.0 - params.signal) * own * volatility[:, None] * rng.standard_normal((bars, count))
    common = beta * (MARKET_DRIFT / per_year + (volatility * market)[:, None])
    common = common + volatility[:, None] * sectors[:, sector]
    returns = common + drift + noise

    spread = np.sqrt(own**2 + (beta * MARKET_VOLATILITY) ** 2 / per_year + SECTOR_VOLATILITY**2 / per_year)
    scale = spread * volatility[:, None]
    first = _first_of_session(timestamps, frequency, calendar)
    start = np.exp(rng.uniform(np.log(20.0), np.log(200.0), count))
    prices = _prices(rng, start, returns, scale, first)
    prices["volume"] = _volume(rng, np.abs(returns) / scale, state[1:])
    table = {name: values.T.ravel() for name, values in prices.items()}
    stamps = pd.DatetimeIndex(np.tile(timestamps, count)).tz_localize("UTC")
    frame = pd.DataFrame({"symbol": np.repeat(np.array(names, dtype=object), bars), "timestamp": stamps, **table})
    return SyntheticMarket(
        bars=frame.astype({"symbol": "str"}),
        sectors=pd.DataFrame({"symbol": names, "sector": [f"sector {index}" for index in sector]}),
        timestamps=timestamps,
        symbols=names,
        oracle_drift=drift,
        idiosyncratic=drift + noise,
    )


def _grid(bars: int, frequency: str, calendar: str, first_day: str) -> TimeArray:
    """[T] the first `bars` bar starts of the exchange from `first_day` on."""
    first = pd.Timestamp(first_day)
    days = int(np.ceil(bars / bars_per_year(frequency, calendar) * 366 * 1.1)) + 30
    grid = expected_grid(first, first + pd.Timedelta(days=days), frequency, calendar)[:bars]
    if len(grid) < bars:
        raise UserError(
            f"data.synthetic.bars: the calendar {calendar} has {len(grid)} bars of {frequency} from {first_day} on, "
            f"not {bars}; ask for fewer"
        )
    return grid


def _first_of_session(timestamps: TimeArray, frequency: str, calendar: str) -> BoolArray:
    assert bool(in_session(timestamps, frequency, calendar).all())
    sessions = session_of(timestamps, frequency, calendar)
    return np.concatenate([[True], sessions[1:] != sessions[:-1]])


def _volatility(rng: np.random.Generator, bars: int, sessions_per_bar: float) -> tuple[FloatArray, float]:
    """[T] multiplier of the two-state chain, which starts calm, and its stationary mean square."""
    stays = np.array([CALM_SESSIONS, STORMY_SESSIONS]) / sessions_per_bar
    turns = int(np.ceil(bars / stays.sum())) * 8 + 16
    lengths = rng.geometric(1.0 / stays, size=(turns, 2)).ravel()
    lengths[-1] = max(int(lengths[-1]), bars)
    levels = np.repeat(np.tile([1.0, STORMY], turns), lengths)[:bars]
    return levels, float((stays[0] + stays[1] * STORMY**2) / stays.sum())


def _persistent(rng: np.random.Generator, bars: int, count: int, half_life: float) -> FloatArray:
    """[T, N] stationary AR(1) of unit variance whose autocorrelation halves every `half_life` bars."""
    keep = 0.5 ** (1.0 / half_life)
    shocks = rng.standard_normal((bars, count))
    shocks[1:] *= np.sqrt(1.0 - keep**2)
    return np.asarray(lfilter([1.0], [1.0, -keep], shocks, axis=0), dtype=np.float64)


def _prices(
    rng: np.random.Generator, start: FloatArray, returns: FloatArray, scale: FloatArray, first: BoolArray
) -> dict[str, FloatArray]:
    """Open, high, low and close of a path that is a Brownian bridge between two closes.

    The open lies `GAP` into the bar's variance at the first bar of a session, at the previous close otherwise;
    high and low have the exact law of a bridge's maximum and minimum (each for itself; Karatzas and Shreve 1991,
    eq. 4.3.40).
    """
    close = np.log(start) + np.cumsum(returns, axis=0)
    before = np.vstack([np.log(start)[None, :], close[:-1]])
    gap = np.where(first, GAP, 0.0)[:, None]
    opened = before + gap * returns + np.sqrt(gap * (1.0 - gap)) * scale * rng.standard_normal(returns.shape)
    variance = (1.0 - gap) * scale**2
    move = close - opened
    up, down = (np.log1p(-rng.random(returns.shape)) for _ in range(2))
    high = opened + (move + np.sqrt(move**2 - 2.0 * variance * up)) / 2.0
    low = opened + (move - np.sqrt(move**2 - 2.0 * variance * down)) / 2.0
    highest, lowest = np.maximum(opened, close), np.minimum(opened, close)
    logs = {"open": opened, "high": np.maximum(high, highest), "low": np.minimum(low, lowest), "close": close}
    return {name: np.exp(values) for name, values in logs.items()}


def _volume(rng: np.random.Generator, move: FloatArray, coming: FloatArray) -> FloatArray:
    """[T, N] whole shares: lognormal, higher in bars that move and before a positive drift."""
    base = rng.normal(14.5, 0.8, move.shape[1])
    noise = rng.standard_normal(move.shape)
    return np.rint(np.exp(base + VOLUME_MOVE * move + VOLUME_DRIFT * coming + VOLUME_NOISE * noise))
