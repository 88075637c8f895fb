"""Tables beside the bars: sectors, VIX, macro, sentiment, benchmark, corporate actions, membership.

A row of a time series counts from `available_at` on, never from the date it bears, and until `expires_at`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.benchmark import load_benchmark
from marl_pipeline.data.reference import load_actions, load_membership, load_sectors
from marl_pipeline.data.series import load_macro, load_sentiment, load_vix
from marl_pipeline.data.sources.names import is_set

TABLES = ("sectors", "vix", "macro", "sentiment", "benchmark", "corporate_actions", "membership")


@dataclass(frozen=True)
class Companions:
    """What is known beside the bars; None where it is not given. Moments are datetime64[us, UTC].

    Attributes:
        sectors: symbol, sector.
        vix: timestamp, available_at, expires_at, close.
        macro: timestamp, available_at, expires_at and one float column per series.
        sentiment: symbol, timestamp, available_at, expires_at and one float column per figure.
        benchmark: timestamp, available_at, close.
        corporate_actions: symbol, ex_date, kind (`split`: value new shares for an old one; `dividend`: value cash
            per share), value.
        membership: symbol, start, end: first and last day in the index, NaT where open.
        benchmark_name: its symbol, or the name of its file; empty without one.
        notes: what has to be said of the files: columns left out, rows that were merged.
    """

    sectors: pd.DataFrame | None = None
    vix: pd.DataFrame | None = None
    macro: pd.DataFrame | None = None
    sentiment: pd.DataFrame | None = None
    benchmark: pd.DataFrame | None = None
    corporate_actions: pd.DataFrame | None = None
    membership: pd.DataFrame | None = None
    benchmark_name: str = ""
    notes: tuple[str, ...] = ()


def load_companions(params: DataParams, bars: pd.DataFrame, sectors: pd.DataFrame | None = None) -> Companions:
    """Reads the companions that are set.

    Args:
        params: paths, lags, zone and calendar.
        bars: canonical bars of the whole source, among which a benchmark named by symbol must be.
        sectors: the map to fall back on when no file is set (the synthetic market knows its own).

    Raises:
        UserError: a file or column is missing or unreadable; the benchmark is not among the bars.
    """
    benchmark, name = load_benchmark(params, bars)
    notes: list[str] = []
    return Companions(
        sectors=load_sectors(params.sectors, notes) if is_set(params.sectors) else sectors,
        vix=load_vix(params) if is_set(params.vix) else None,
        macro=load_macro(params, notes) if is_set(params.macro) else None,
        sentiment=load_sentiment(params, notes) if is_set(params.sentiment) else None,
        benchmark=benchmark,
        corporate_actions=load_actions(params.corporate_actions, notes) if is_set(params.corporate_actions) else None,
        membership=load_membership(params.membership) if is_set(params.membership) else None,
        benchmark_name=name,
        notes=tuple(notes),
    )
