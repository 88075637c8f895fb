"""Where bars come from: one function for every `data.source`, and the choice of symbols and span."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.matching import compare
from marl_pipeline.data.sources.files import read_bars
from marl_pipeline.data.sources.names import benchmark_symbol, read_universe
from marl_pipeline.data.sources.sample import sp500_sample
from marl_pipeline.data.sources.synthetic import SyntheticMarket, synthetic_market
from marl_pipeline.data.sources.yahoo import download
from marl_pipeline.errors import UserError

__all__ = ["STARTS", "absent", "load_bars", "read_source", "select", "synthetic_from", "wanted"]

STARTS = {"sp500_sample": "2010-01-01"}
"""Where a source begins without `data.start`: the sample's older years are another market. All others: at their first
bar."""


def load_bars(params: DataParams) -> pd.DataFrame:
    """The canonical bars of the universe between `data.start` and `data.end`, as they came: see `normalise_bars`.

    Raises:
        UserError: whatever is wrong with the input, or fewer than two symbols left.
    """
    return wanted(read_source(params), params)


def wanted(bars: pd.DataFrame, params: DataParams, least: int = 2) -> pd.DataFrame:
    """The bars that `data.universe`, `data.start` and `data.end` leave of a source; see `select`."""
    start = params.start or STARTS.get(params.source)
    return select(bars, universe=read_universe(params.universe), start=start, end=params.end, least=least)


def read_source(params: DataParams) -> pd.DataFrame:
    """All canonical bars that `data.source` holds."""
    match params.source:
        case "sp500_sample":
            return sp500_sample(params.frequency)
        case "synthetic":
            return synthetic_from(params).bars
        case "yfinance":
            benchmark = benchmark_symbol(params.benchmark)
            wanted = [*(read_universe(params.universe) or ()), *([benchmark] if benchmark else [])]
            return download(tuple(dict.fromkeys(wanted)), params)
        case "csv" | "parquet":
            return read_bars(Path(params.path), params)


def synthetic_from(params: DataParams) -> SyntheticMarket:
    """The synthetic market, from `data.start` on where that is set."""
    return synthetic_market(params.synthetic, params.frequency, params.calendar, params.start)


def select(
    bars: pd.DataFrame,
    *,
    universe: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    least: int = 2,
) -> pd.DataFrame:
    """Rows of the symbols in `universe` (None: all) from the day `start` to the day `end`, both included.

    Raises:
        UserError: no such symbol, no such bars, a bad date, or fewer than `least` symbols left.
    """
    chosen = pd.Series(True, index=bars.index)
    if universe is not None:
        chosen = bars["symbol"].isin(list(universe))
        if not chosen.any():
            compare(universe, bars["symbol"].unique(), "data.universe")
    first, last = _edge("start", start), _edge("end", end)
    if first is not None:
        chosen &= bars["timestamp"] >= first
    if last is not None:
        date_only = last == last.normalize()
        chosen &= bars["timestamp"] < last + pd.Timedelta(days=1) if date_only else bars["timestamp"] <= last
    if not chosen.any():
        span = f"{bars['timestamp'].min():%Y-%m-%d} to {bars['timestamp'].max():%Y-%m-%d}"
        raise UserError(f"no bars between data.start {start} and data.end {end}: the source runs from {span}")
    kept = bars[chosen].reset_index(drop=True)
    left = kept["symbol"].unique()
    if len(left) < least:
        raise UserError(
            f"one symbol only ({left[0]}); a universe needs 2 or more: bring more bars or widen data.universe"
        )
    return kept


def absent(bars: pd.DataFrame, universe: Sequence[str] | None) -> list[str]:
    """Symbols of the universe that the bars do not hold."""
    held = set(bars["symbol"].unique())
    return [name for name in universe or () if name not in held]


def _edge(name: str, value: str | None) -> pd.Timestamp | None:
    if value is None:
        return None
    try:
        moment = pd.Timestamp(value)
    except ValueError:
        raise UserError(f"data.{name}: '{value}' is not a date; write it as 2024-01-31") from None
    return moment.tz_localize("UTC") if moment.tz is None else moment.tz_convert("UTC")
