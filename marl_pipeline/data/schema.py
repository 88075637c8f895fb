"""The canonical bar table that everything starts from, and how a table in anybody's spelling becomes one.

Nothing is repaired here: order, duplicates and bad values pass through, so that the quality stage sees them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.calendar import exchange_dates, exchange_zone
from marl_pipeline.data.calendar_fit import refuse_other_midnight
from marl_pipeline.data.dataset import TimeArray
from marl_pipeline.data.spacing import refuse_other_spacing
from marl_pipeline.data.timestamps import Stamps, day_labels, localise, parse_timestamps
from marl_pipeline.errors import UserError

PRICES = ("open", "high", "low", "close")
COLUMNS = ("symbol", "timestamp", *PRICES, "volume")
TIMESTAMP_DTYPE = "datetime64[us, UTC]"

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker", "sym", "instrument"),
    "timestamp": ("timestamp", "datetime", "date", "time", "tradedate", "barstart"),
    "open": ("open", "openprice", "o"),
    "high": ("high", "highprice", "h"),
    "low": ("low", "lowprice", "l"),
    "close": ("close", "closeprice", "c"),
    "volume": ("volume", "vol", "v"),
}
"""Usual names, compared in lower case without spaces, dashes, underscores and brackets. `Adj Close` is not one:
which close is meant stands in `data.columns`."""

GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
NOTHING = frozenset({"", "-", ".", "na", "n/a", "nan", "null", "none", "#n/a"})


def normalise_bars(
    frame: pd.DataFrame, *, params: DataParams, origin: str, default_symbol: str | None = None
) -> pd.DataFrame:
    """Turns a table of bars into the canonical one: same rows, same order.

    Timestamps name the start of a bar. Daily ones become midnight UTC of the exchange's date: a date or a stamp at
    midnight UTC is taken as that date, any other moment is placed in the exchange's zone first.

    Args:
        frame: the bars; needs a timestamp, a close and, without `default_symbol`, a symbol.
        params: reads `columns`, `timezone`, `calendar`, `frequency`.
        origin: names the input in errors.
        default_symbol: the symbol of a table without such a column.

    Returns:
        Columns `COLUMNS`: symbol str, timestamp datetime64[us, UTC], the others float64, NaN where not given.

    Raises:
        UserError: no rows; a column missing, ambiguous or not numeric; a timestamp or symbol missing or
            unreadable; naive timestamps and no `data.timezone`.
    """
    table = rename(frame, params.columns, origin)
    if table.empty:
        raise UserError(f"{origin}: no rows; expected bars with columns {', '.join(COLUMNS)}")
    for name in ("timestamp", "close"):
        if name not in table:
            raise UserError(f"{origin}: column '{name}' is missing ({found(frame)}); name it in data.columns")
    if "symbol" not in table:
        if default_symbol is None:
            raise UserError(f"{origin}: column 'symbol' is missing ({found(frame)}); name it in data.columns")
        table["symbol"] = default_symbol
    stamps = parse_timestamps(table["timestamp"], origin)
    starts = bar_starts(stamps, params, origin)
    names = symbols(table["symbol"], origin)
    refuse_other_spacing(names, stamps.moments, params.frequency, origin)
    columns: dict[str, object] = {
        "symbol": names,
        "timestamp": pd.DatetimeIndex(starts).tz_localize("UTC"),
    }
    for name in (*PRICES, "volume"):
        given = name in table
        columns[name] = numbers(table[name], origin) if given else np.full(len(table), np.nan)
    return pd.DataFrame(columns, columns=list(COLUMNS))


def rename(frame: pd.DataFrame, columns: Mapping[str, str], origin: str) -> pd.DataFrame:
    """The canonical columns that `frame` holds, under their names: those of `columns` first, then usual spellings.

    Raises:
        UserError: a column named twice, one of `columns` absent, or two candidates for one canonical name.
    """
    names = [str(name).strip().lstrip("\ufeff") for name in frame.columns]
    table = frame.set_axis(pd.Index(names), axis=1)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{origin}: column '{twice[0]}' stands there twice; keep one")
    given: dict[str, str] = {}
    for theirs, ours in columns.items():
        if ours not in SPELLINGS:
            raise UserError(
                f"data.columns: '{ours}' is none of {', '.join(COLUMNS)}; write {{your column: one of these}}"
            )
        if theirs not in names:
            raise UserError(f"{origin}: data.columns names '{theirs}', which is not there ({found(frame)})")
        given[ours] = theirs
    free = table[[name for name in names if name not in columns]]
    wanted = {ours: spellings for ours, spellings in SPELLINGS.items() if ours not in given}
    chosen = given | match(free, wanted, origin, advice="say which in data.columns, as {{{0}: {1}}}")
    return pd.DataFrame({ours: table[theirs] for ours, theirs in chosen.items()})


def match(
    frame: pd.DataFrame, spellings: Mapping[str, tuple[str, ...]], origin: str, advice: str = "rename one"
) -> dict[str, str]:
    """Which column of `frame` is meant by each name of `spellings`; names without a column are left out.

    Raises:
        UserError: two columns may be meant by one name and neither spells it exactly.
    """
    chosen = {}
    for ours, usual in spellings.items():
        candidates = [str(name) for name in frame.columns if plain(str(name)) in usual]
        exact = [name for name in candidates if name == ours]
        if len(candidates) > 1 and not exact:
            first, second = candidates[:2]
            raise UserError(
                f"{origin}: columns '{first}' and '{second}' may both be the {ours}; {advice.format(first, ours)}"
            )
        if candidates:
            chosen[ours] = (exact or candidates)[0]
    return chosen


def bar_starts(stamps: Stamps, params: DataParams, origin: str) -> TimeArray:
    """[K] datetime64[us] in UTC: bar starts, or labels of sessions for daily bars.

    Raises:
        UserError: naive stamps and no `data.timezone`.
    """
    if not stamps.aware and params.timezone is None:
        raise UserError(
            f"{origin}: timestamps name no time zone (the first is {pd.Timestamp(stamps.moments[0])}); "
            "set data.timezone, such as UTC or America/New_York"
        )
    moments = stamps.moments
    if params.frequency != "1Day":
        return moments if stamps.aware else localise(moments, str(params.timezone), origin)
    zone = exchange_zone(params.calendar)
    labels = day_labels(stamps, zone)
    if labels is not None:
        return labels
    if stamps.aware:
        refuse_other_midnight(moments, zone, params.calendar, origin)
    dates = moments.astype("datetime64[D]").astype("datetime64[us]")
    placed = moments if stamps.aware else localise(moments, str(params.timezone), origin)
    return np.where(moments == dates, dates, exchange_dates(placed, zone))


def symbols(values: pd.Series, origin: str) -> pd.Series:
    """Names without surrounding blanks, as str.

    Raises:
        UserError: a row without one.
    """
    names = values.astype("str").str.strip()
    missing = (values.isna() | (names == "")).to_numpy()
    if missing.any():
        raise UserError(f"{origin}: column '{values.name}': row {int(np.argmax(missing)) + 1} has no symbol")
    return names.reset_index(drop=True)


def numbers(values: pd.Series, origin: str) -> np.ndarray:
    """[K] float64; texts may group thousands by commas ("1,234.5"), and blanks or "n/a" are NaN.

    Raises:
        UserError: a value that is not a number; the first one is named.
    """
    if pd.api.types.is_bool_dtype(values) or isinstance(values.dtype, pd.DatetimeTZDtype):
        raise UserError(f"{origin}: column '{values.name}' holds {values.dtype}, not numbers")
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    texts = values.astype(object)
    blank = values.isna() | texts.map(lambda text: str(text).strip().lower() in NOTHING)
    kept = texts[~blank].map(lambda text: _ungrouped(str(text).strip()))
    parsed = pd.to_numeric(kept, errors="coerce")
    if parsed.isna().any():
        place = parsed.index[int(np.argmax(parsed.isna().to_numpy()))]
        row = int(np.flatnonzero(values.index == place)[0]) + 1
        raise UserError(f"{origin}: column '{values.name}': {str(texts[place])!r} in row {row} is not a number")
    result = np.full(len(values), np.nan)
    result[~blank.to_numpy()] = parsed.to_numpy(dtype=np.float64)
    return result


def found(frame: pd.DataFrame) -> str:
    """The columns of a table, for an error."""
    names = [str(name) for name in frame.columns]
    return f"found: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def plain(name: str) -> str:
    """A column name for comparison with `SPELLINGS`."""
    return re.sub(r"[\s_\-()<>\[\]]", "", name).lower()


def _ungrouped(text: str) -> str:
    return text.replace(",", "") if GROUPED.fullmatch(text) else text
