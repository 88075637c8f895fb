"""Tables beside the bars: sectors, VIX, macro, sentiment, benchmark, corporate actions, membership.

A row of a time series counts from `available_at` on, never from the date it bears.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.calendar import exchange_zone, known_at, session_closes, utc_array
from marl_pipeline.data.dataset import FloatArray, TimeArray
from marl_pipeline.data.schema import SPELLINGS, found, match, normalise_bars, numbers, symbols
from marl_pipeline.data.sources.names import benchmark_symbol, is_set
from marl_pipeline.data.sources.tables import read_table
from marl_pipeline.data.timestamps import Stamps, day_labels, localise, parse_timestamps
from marl_pipeline.errors import UserError

TABLES = ("sectors", "vix", "macro", "sentiment", "benchmark", "corporate_actions", "membership")

DATES = (*SPELLINGS["timestamp"], "observationdate", "asof", "day")

FALLBACK_BENCHMARK = "SPY"
"""Taken from a benchmark file that holds several symbols."""


@dataclass(frozen=True)
class Companions:
    """What is known beside the bars; None where it is not given. Moments are datetime64[us, UTC].

    Attributes:
        sectors: symbol, sector.
        vix: timestamp, available_at, close.
        macro: timestamp, available_at and one float column per series.
        sentiment: symbol, timestamp, available_at and one float column per figure.
        benchmark: timestamp, available_at, close.
        corporate_actions: symbol, ex_date, kind (`split`: value new shares for an old one; `dividend`: value cash
            per share), value.
        membership: symbol, start, end: first and last day in the index, NaT where open.
        benchmark_name: its symbol, or the name of its file; empty without one.
    """

    sectors: pd.DataFrame | None = None
    vix: pd.DataFrame | None = None
    macro: pd.DataFrame | None = None
    sentiment: pd.DataFrame | None = None
    benchmark: pd.DataFrame | None = None
    corporate_actions: pd.DataFrame | None = None
    membership: pd.DataFrame | None = None
    benchmark_name: str = ""


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
    lag = params.availability
    return Companions(
        sectors=load_sectors(params.sectors) if is_set(params.sectors) else sectors,
        vix=load_vix(params, lag.vix) if is_set(params.vix) else None,
        macro=load_macro(params, lag.macro) if is_set(params.macro) else None,
        sentiment=load_sentiment(params, lag.sentiment) if is_set(params.sentiment) else None,
        benchmark=benchmark,
        corporate_actions=load_actions(params.corporate_actions) if is_set(params.corporate_actions) else None,
        membership=load_membership(params.membership) if is_set(params.membership) else None,
        benchmark_name=name,
    )


def as_of(values: pd.DataFrame, moments: TimeArray) -> FloatArray:
    """[T, C] what was last known at each of `moments`: per column, the value of the last row with `available_at` at
    or before it that has one; NaN before the first.

    Args:
        values: `available_at` and C numeric columns; of rows available at the same moment the last one counts.
        moments: [T] datetime64 in UTC.
    """
    available = utc_array(values["available_at"])
    order = np.argsort(available, kind="stable")
    columns = values.drop(columns="available_at")
    known = columns.iloc[order].ffill().to_numpy(dtype=np.float64)
    place = np.searchsorted(available[order], utc_array(moments), side="right")
    padded = np.vstack([np.full((1, known.shape[1]), np.nan), known])
    return np.asarray(padded[place], dtype=np.float64)


def load_sectors(path: str) -> pd.DataFrame:
    """Columns symbol, sector (`GICS Sector` and the like); the first row of a symbol counts."""
    table = _columns(path, {"symbol": SPELLINGS["symbol"], "sector": ("sector", "gicssector", "sectorname")})
    names = symbols(table["symbol"], path)
    sector = table["sector"].astype("str").str.strip().reset_index(drop=True)
    result = pd.DataFrame({"symbol": names, "sector": sector})[table["sector"].notna().to_numpy()]
    return result.drop_duplicates("symbol").reset_index(drop=True)


def load_vix(params: DataParams, lag: str) -> pd.DataFrame:
    """Columns timestamp, available_at, close."""
    path = params.vix
    table = _columns(path, {"timestamp": DATES, "close": (*SPELLINGS["close"], "vix", "vixclose", "vixcls", "value")})
    return _dated(table["timestamp"], {"close": numbers(table["close"], path)}, params, lag, path)


def load_macro(params: DataParams, lag: str) -> pd.DataFrame:
    """Columns timestamp, available_at and every numeric column of the file."""
    path = params.macro
    frame = read_table(Path(path))
    column = _columns(path, {"timestamp": DATES}, frame)["timestamp"]
    return _dated(column, _figures(frame, path, {str(column.name)}), params, lag, path)


def load_sentiment(params: DataParams, lag: str) -> pd.DataFrame:
    """Columns symbol, timestamp, available_at and every other numeric column of the file."""
    path = params.sentiment
    frame = read_table(Path(path))
    table = _columns(path, {"symbol": SPELLINGS["symbol"], "timestamp": DATES}, frame)
    chosen = match(frame, {"symbol": SPELLINGS["symbol"], "timestamp": DATES}, path)
    result = _dated(table["timestamp"], _figures(frame, path, set(chosen.values())), params, lag, path)
    result.insert(0, "symbol", symbols(table["symbol"], path))
    return result


def load_actions(path: str) -> pd.DataFrame:
    """Columns symbol, ex_date, kind, value.

    Raises:
        UserError: a kind that is neither split nor dividend, or a value that is not positive.
    """
    wanted = {
        "symbol": SPELLINGS["symbol"],
        "ex_date": ("exdate", "exdividenddate", *DATES),
        "kind": ("kind", "type", "action"),
        "value": ("value", "ratio", "amount"),
    }
    table = _columns(path, wanted)
    kind = table["kind"].astype("str").str.strip().str.lower().str.removesuffix("s").reset_index(drop=True)
    value = numbers(table["value"], path)
    bad = ~kind.isin(["split", "dividend"]).to_numpy() | ~(value > 0.0)
    if bad.any():
        row = int(np.argmax(bad))
        raise UserError(
            f"{path}: row {row + 1}: expected kind split or dividend with a positive value, found "
            f"{table['kind'].iloc[row]} {value[row]:g}"
        )
    days = _days(table["ex_date"], path)
    return pd.DataFrame({"symbol": symbols(table["symbol"], path), "ex_date": days, "kind": kind, "value": value})


def load_membership(path: str) -> pd.DataFrame:
    """Columns symbol, start, end; a blank means open.

    Raises:
        UserError: an interval that ends before it starts.
    """
    wanted = {
        "symbol": SPELLINGS["symbol"],
        "start": ("start", "startdate", "from", "added", "dateadded"),
        "end": ("end", "enddate", "to", "removed", "dateremoved"),
    }
    table = _columns(path, wanted)
    result = pd.DataFrame({name: _days(table[name], path) for name in ("start", "end")})
    result.insert(0, "symbol", symbols(table["symbol"], path))
    backwards = (result["end"] < result["start"]).to_numpy()
    if backwards.any():
        row = result.iloc[int(np.argmax(backwards))]
        raise UserError(f"{path}: {row['symbol']} ends on {row['end']:%Y-%m-%d}, before it starts")
    return result


def load_benchmark(params: DataParams, bars: pd.DataFrame) -> tuple[pd.DataFrame | None, str]:
    """The benchmark's closes (timestamp, available_at, close) and its name; None and "" when it is not set.

    A bar counts from its completion. A file of bars with several symbols gives SPY.

    Raises:
        UserError: the symbol is not among the bars, or the file has several symbols without SPY.
    """
    if not is_set(params.benchmark):
        return None, ""
    symbol = benchmark_symbol(params.benchmark)
    if symbol is not None:
        chosen = bars[bars["symbol"] == symbol]
        if chosen.empty:
            raise UserError(f"data.benchmark: '{symbol}' is not among the bars; name one that is, or a file of bars")
        return _closes(chosen, params.frequency, params), symbol
    path = params.benchmark
    frame = read_table(Path(path))
    stamps = parse_timestamps(_columns(path, {"timestamp": DATES}, frame)["timestamp"], path)
    daily = day_labels(stamps, exchange_zone(params.calendar)) is not None
    changes: dict[str, object] = {"columns": {}, "frequency": "1Day" if daily else params.frequency}
    if daily and not stamps.aware:
        changes["timezone"] = params.timezone or "UTC"  # dates need no zone
    own = params.model_copy(update=changes)
    table = normalise_bars(frame, params=own, origin=path, default_symbol=Path(path).name.split(".", 1)[0])
    names = sorted(table["symbol"].unique())
    if len(names) > 1 and FALLBACK_BENCHMARK not in names:
        raise UserError(f"{path}: several symbols ({', '.join(names[:5])}); keep the benchmark's bars only")
    name = names[0] if len(names) == 1 else FALLBACK_BENCHMARK
    return _closes(table[table["symbol"] == name], own.frequency, own), name


def _closes(bars: pd.DataFrame, frequency: str, params: DataParams) -> pd.DataFrame:
    kept = bars[np.isfinite(bars["close"]) & (bars["close"] > 0.0)].drop_duplicates("timestamp")
    available = known_at(kept["timestamp"], frequency, params.calendar)
    columns = {"timestamp": kept["timestamp"].to_numpy(), "close": kept["close"].to_numpy()}
    table = pd.DataFrame(
        {"timestamp": kept["timestamp"].array, "available_at": _utc(available), "close": columns["close"]}
    )
    return table.sort_values("timestamp", kind="stable").reset_index(drop=True)


def _dated(
    written: pd.Series, figures: Mapping[str, FloatArray], params: DataParams, lag: str, path: str
) -> pd.DataFrame:
    """Timestamp, available_at and `figures`: dates are available at that day's exchange close, moments at once, both
    `lag` later."""
    stamps = parse_timestamps(written, path)
    labels = day_labels(stamps, exchange_zone(params.calendar))
    moments = _moments(stamps, params, path) if labels is None else labels
    known = moments if labels is None else session_closes(labels, params.calendar)
    available = known + pd.Timedelta(lag).as_unit("us").to_timedelta64()
    return pd.DataFrame({"timestamp": _utc(moments), "available_at": _utc(available), **figures})


def _moments(stamps: Stamps, params: DataParams, path: str) -> TimeArray:
    if stamps.aware:
        return stamps.moments
    if params.timezone is None:
        raise UserError(
            f"{path}: timestamps have a time of day and no time zone (the first is "
            f"{pd.Timestamp(stamps.moments[0])}); set data.timezone, such as UTC or America/New_York"
        )
    return localise(stamps.moments, params.timezone, path)


def _columns(path: str, wanted: Mapping[str, tuple[str, ...]], frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """The wanted columns of a file under our names; each keeps the name it bears there for errors."""
    table = read_table(Path(path)) if frame is None else frame
    chosen = match(table, wanted, path)
    missing = [name for name in wanted if name not in chosen]
    if missing:
        raise UserError(f"{path}: column '{missing[0]}' is missing ({found(table)})")
    return pd.DataFrame({ours: table[theirs].rename(theirs) for ours, theirs in chosen.items()})


def _figures(frame: pd.DataFrame, path: str, taken: set[str]) -> dict[str, FloatArray]:
    """Every column of numbers but those taken; a column of texts without a single number is left out."""
    figures = {}
    for name in frame.columns:
        column = frame[name]
        textual = not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
        if str(name) in taken or (textual and not pd.to_numeric(column.astype("str"), errors="coerce").notna().any()):
            continue
        figures[str(name)] = numbers(column, path)
    if not figures:
        raise UserError(f"{path}: no column of numbers ({found(frame)})")
    return figures


def _days(written: pd.Series, path: str) -> pd.Series:
    """datetime64[us, UTC] midnight of the written days, NaT where blank."""
    blank = written.isna() | (written.astype("str").str.strip() == "")
    days = pd.Series(pd.NaT, index=range(len(written)), dtype="datetime64[us, UTC]")
    if not blank.all():
        stamps = parse_timestamps(written[~blank], path)
        days[~blank.to_numpy()] = _utc(stamps.moments.astype("datetime64[D]").astype("datetime64[us]"))
    return days


def _utc(moments: TimeArray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(moments.astype("datetime64[us]")).tz_localize("UTC")
