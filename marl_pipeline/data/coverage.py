"""What each companion covers of the bars, in figures and in words; a benchmark that does not cover them is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.availability import as_of
from marl_pipeline.data.benchmark import CARRIED
from marl_pipeline.data.calendar import known_at
from marl_pipeline.data.companions import Companions
from marl_pipeline.data.dataset import BoolArray, TimeArray
from marl_pipeline.data.matching import compare, likely_spellings, listed
from marl_pipeline.data.series import figures_of
from marl_pipeline.data.sources.names import benchmark_symbol, is_set
from marl_pipeline.errors import UserError

COVERED = 0.98
"""Share of the bars on which a series has to be known before nothing is said."""

PRICE_INDICES = frozenset(
    """GSPC SPX INX SP500 DJI DJIA INDU IXIC COMP NDX RUT RUI FTSE FCHI STOXX50E SX5E N225 NI225 HSI 000001SS
    AXJO KS11 TWII BSESN NSEI GSPTSE""".split()  # noqa: SIM905
)
"""Indices of prices, without the dividends of their members, as they are usually called."""


def describe(params: DataParams, companions: Companions, bars: pd.DataFrame) -> tuple[dict[str, Any], list[str]]:
    """What is known of each companion as JSON values, and what has to be said of them beside these bars.

    Returns:
        name -> `file`, `rows`, `symbols` (how many, where it names them), `first` and `last` (days, where it is dated),
        and for a series of figures `known`: column -> `first`, `last` and `bars`, the bars on which it is known; lines.

    Raises:
        UserError: none of a companion's symbols is among the bars, or the benchmark does not cover the bars.
    """
    names = bars["symbol"].unique()
    stamps = pd.DatetimeIndex(bars["timestamp"].unique()).sort_values()
    moments = np.sort(known_at(stamps, params.frequency, params.calendar))
    entries: dict[str, Any] = {}
    notes = list(companions.notes)
    for name in ("sectors", "vix", "macro", "sentiment", "corporate_actions", "membership"):
        table, path = getattr(companions, name), getattr(params, name)
        if table is None:
            continue
        entries[name] = _entry(table, Path(path).name if is_set(path) else params.source)
        if "symbol" in table and is_set(path):
            notes += compare(table["symbol"], names, f"data.{name}", path)
        if name in ("vix", "macro"):
            entries[name]["known"] = known = _known(table.drop(columns="timestamp"), moments)
            notes += _gaps(name, known, stamps)
    notes += _without(companions, params, names)
    notes += _never(companions, names, stamps)
    if companions.sentiment is not None:
        notes += _sentiment(companions.sentiment, names, moments, entries["sentiment"], stamps)
    if companions.benchmark is not None:
        entries["benchmark"] = {
            "name": companions.benchmark_name,
            **_benchmark(params, companions, stamps, moments),
        }
        notes += benchmark_notes(params, companions)
    if companions.corporate_actions is not None and params.adjustment == "total":
        notes.append("corporate_actions: nothing is applied: by data.adjustment total the prices contain it already")
    return entries, notes


def universe_notes(universe: tuple[str, ...] | None, bars: pd.DataFrame) -> list[str]:
    """Symbols of the universe that the bars do not hold, with their likely spellings."""
    if universe is None:
        return []
    return compare(universe, bars["symbol"].unique(), "data.universe")


def benchmark_notes(params: DataParams, companions: Companions) -> list[str]:
    """Whether the benchmark's returns are of the same kind as those of the bars."""
    if benchmark_symbol(params.benchmark) is not None:
        return []
    name = companions.benchmark_name
    plain = name.upper().strip("^$.").replace("^", "").replace(".", "")
    dividends = params.adjustment == "total" or (
        companions.corporate_actions is not None and bool((companions.corporate_actions["kind"] == "dividend").any())
    )
    if dividends and plain in PRICE_INDICES:
        return [
            f"benchmark: {name} is a price index, without dividends, beside bars that contain them "
            f"(data.adjustment {params.adjustment}): it is easier to beat by its dividend yield; take its total return"
        ]
    if dividends:
        return [
            f"benchmark: {name} comes from a file of its own, as its prices are there; the bars contain dividends "
            f"(data.adjustment {params.adjustment}), so its closes must be adjusted for dividends too"
        ]
    return []


def _entry(table: pd.DataFrame, file: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"file": file, "rows": len(table)}
    if "symbol" in table:
        entry["symbols"] = int(table["symbol"].nunique())
    dates = next((table[key] for key in ("timestamp", "ex_date", "start") if key in table), None)
    if dates is not None and dates.notna().any():
        last = table["end"] if "end" in table and table["end"].notna().any() else dates
        entry |= {"first": _day(dates.min()), "last": _day(max(dates.max(), last.max()))}
    return entry


def _known(table: pd.DataFrame, moments: TimeArray) -> dict[str, dict[str, Any]]:
    """Of each column the first and last row's day of availability and the bars on which it is known."""
    values = as_of(table, moments)
    result = {}
    for place, name in enumerate(figures_of(table)):
        there = table[table[name].notna()]
        known: BoolArray = np.isfinite(values[:, place])
        entry: dict[str, Any] = {"bars": int(known.sum())}
        if len(there):
            entry |= {"first": _day(there["available_at"].min()), "last": _day(there["available_at"].max())}
        if known.any():
            hit = np.flatnonzero(known)
            entry |= {"from_bar": int(hit[0]), "to_bar": int(hit[-1])}
        result[name] = entry
    return result


def _gaps(parameter: str, known: Mapping[str, Mapping[str, Any]], stamps: pd.DatetimeIndex) -> list[str]:
    """Which figures are unknown on more than a few of the bars."""
    notes = []
    for name, entry in known.items():
        if entry["bars"] >= COVERED * len(stamps):
            continue
        label = parameter if name == "close" else f"{parameter}: {name}"
        if not entry["bars"]:
            rows = (
                f"its rows count from {entry['first']} to {entry['last']}" if "first" in entry else "it has no values"
            )
            notes.append(f"{label} is known on none of the {len(stamps):,} bars ({_span_of(stamps)}): {rows}")
            continue
        where = f"{_day(stamps[entry['from_bar']])} to {_day(stamps[entry['to_bar']])}"
        notes.append(
            f"{label} is known on {entry['bars']:,} of {len(stamps):,} bars, {where}; the bars run from "
            f"{_span_of(stamps)}; where it is unknown it counts as average"
        )
    return notes


def _without(companions: Companions, params: DataParams, names: np.ndarray) -> list[str]:
    """Bars whose symbol has no sector."""
    if companions.sectors is None or not is_set(params.sectors):
        return []
    given = set(companions.sectors["symbol"])
    missing = sorted(name for name in names if name not in given)
    if not missing:
        return []
    meant = list(likely_spellings(missing, given).items())[:5]
    hint = "; " + "; ".join(f"'{theirs}' is probably '{ours}' there" for theirs, ours in meant) if meant else ""
    return [f"sectors: {len(missing)} of {len(names)} symbols of the bars have none ({listed(missing)}){hint}"]


def _never(companions: Companions, names: np.ndarray, stamps: pd.DatetimeIndex) -> list[str]:
    """Symbols of the bars that are no member on any of the days, and actions that all lie outside of them."""
    notes = []
    first, last = stamps[0].normalize(), stamps[-1]
    if (members := companions.membership) is not None:
        inside = (members["start"].isna() | (members["start"] <= last)) & (
            members["end"].isna() | (members["end"] >= first)
        )
        never = sorted(set(names) - set(members["symbol"][inside]))
        if never:
            notes.append(
                f"membership: {len(never)} of {len(names)} symbols of the bars are no member on any day, so that they "
                f"are never traded ({listed(never)})"
            )
    if (actions := companions.corporate_actions) is not None:
        ours = actions[actions["symbol"].isin(names)]
        if len(ours) and not ours["ex_date"].between(first, last).any():
            notes.append(
                f"corporate_actions: none of the ex-dates ({_day(ours['ex_date'].min())} to "
                f"{_day(ours['ex_date'].max())}) is among the bars, {_span_of(stamps)}"
            )
    return notes


def _sentiment(
    table: pd.DataFrame, names: np.ndarray, moments: TimeArray, entry: dict[str, Any], stamps: pd.DatetimeIndex
) -> list[str]:
    """How much of the span the rows of any of the bars' symbols cover, and which symbols have none."""
    ours = table[table["symbol"].isin(names)]
    stacked = ours.drop(columns=["symbol", "timestamp"]).sort_values("available_at", kind="stable")
    entry["known"] = known = _known(stacked, moments)
    missing = sorted(set(names) - set(ours["symbol"]))
    notes = [f"sentiment: {len(missing)} of {len(names)} symbols of the bars have none ({listed(missing)})"]
    return (notes if missing else []) + _gaps("sentiment", known, stamps)


def _benchmark(
    params: DataParams, companions: Companions, stamps: pd.DatetimeIndex, moments: TimeArray
) -> dict[str, Any]:
    """Rows and span of the benchmark; refuses one that is unknown on bars of the span."""
    table = companions.benchmark
    assert table is not None
    known = np.isfinite(as_of(table[["available_at", "expires_at", "close"]], moments)[:, 0])
    begun = stamps >= stamps[0] + CARRIED  # a daily benchmark of hourly bars is known from its first close on
    if (lost := ~known & np.asarray(begun)).any():
        first, last = stamps[int(np.argmax(lost))], stamps[len(lost) - 1 - int(np.argmax(lost[::-1]))]
        raise UserError(
            f"data.benchmark: {companions.benchmark_name} has closes from {_day(table['timestamp'].min())} to "
            f"{_day(table['timestamp'].max())} and is unknown on {int((~known).sum()):,} of {len(stamps):,} bars "
            f"between {_day(first)} and {_day(last)} (the bars run from {_span_of(stamps)}); bring one that covers "
            f"them, or bound the bars by data.start and data.end"
        )
    span = {"first": _day(table["timestamp"].min()), "last": _day(table["timestamp"].max())}
    file = {} if benchmark_symbol(params.benchmark) is not None else {"file": Path(params.benchmark).name}
    return {**file, "rows": len(table), **span, "known": {}}


def _span_of(stamps: pd.DatetimeIndex) -> str:
    return f"{_day(stamps[0])} to {_day(stamps[-1])}"


def _day(moment: pd.Timestamp) -> str:
    return f"{moment:%Y-%m-%d}"
