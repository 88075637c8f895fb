"""The canonical bar table that everything starts from, and how a table in anybody's spelling becomes one.

Nothing is repaired here: order, duplicates and bad values pass through, so that the quality stage sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.calendar import exchange_dates, exchange_zone
from marl_pipeline.data.calendar_fit import refuse_other_calendar, refuse_other_midnight
from marl_pipeline.data.column_choice import adjusted_prices, choose, say_unused, stamp_column
from marl_pipeline.data.dataset import FloatArray, TimeArray
from marl_pipeline.data.number_format import PLAIN
from marl_pipeline.data.spacing import refuse_other_spacing
from marl_pipeline.data.spellings import COLUMNS, FIELDS, PRICES, SPELLINGS, found, match, plain
from marl_pipeline.data.table import Table, is_text, symbols
from marl_pipeline.data.timestamps import (
    LINE,
    Stamps,
    day_labels,
    localise,
    name_ends,
    parse_timestamps,
    starts_of_ends,
)
from marl_pipeline.errors import UserError

__all__ = [
    "COLUMNS",
    "FIELDS",
    "PRICES",
    "SPELLINGS",
    "TIMESTAMP_DTYPE",
    "Reading",
    "bars_of",
    "found",
    "match",
    "normalise_bars",
    "numbers",
    "plain",
    "symbols",
]

TIMESTAMP_DTYPE = "datetime64[us, UTC]"


@dataclass(frozen=True)
class Reading:
    """How a file of bars was read: what was decided, and what would decide it in a profile.

    Attributes:
        origin: the file.
        layout: whose file it is, empty if of nobody's.
        separator: between its cells; empty for Parquet.
        number_format: how numbers are written, as `data.number_format` takes it; empty for Parquet.
        date_format: as `data.date_format` takes it; empty where nothing had to be decided.
        stamp: `start` or `end`.
        columns: user's column -> ours, for every column that is used.
        notes: what was left out or chosen, in words.
    """

    origin: str
    layout: str = ""
    separator: str = ""
    number_format: str = ""
    date_format: str = ""
    stamp: str = "start"
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def profile(self) -> dict[str, object]:
        """The keys of section `data` that read this file so whatever else it holds."""
        keys: dict[str, object] = {}
        if self.number_format:
            keys["number_format"] = self.number_format
        if self.date_format:
            keys["date_format"] = self.date_format
        if self.stamp != "start":
            keys["stamp"] = self.stamp
        return keys


def normalise_bars(
    frame: pd.DataFrame, *, params: DataParams, origin: str, default_symbol: str | None = None
) -> pd.DataFrame:
    """Turns a table of bars into the canonical one: same rows, same order. See `bars_of`."""
    names = [str(name).strip().lstrip("\ufeff") for name in frame.columns]
    frame = frame.set_axis(pd.Index(names), axis=1)
    table = Table(frame, origin, asked_numbers=params.number_format, asked_dates=params.date_format)
    return bars_of(table, params=params, default_symbol=default_symbol)[0]


def bars_of(table: Table, *, params: DataParams, default_symbol: str | None = None) -> tuple[pd.DataFrame, Reading]:
    """Turns a table of bars into the canonical one: same rows, same order.

    Timestamps name the start of a bar (its end with `data.stamp: end`). Daily ones become midnight UTC of the
    exchange's date: a date or a stamp at midnight of the clock it was written by is taken as that date, any other
    moment is placed in the exchange's zone first.

    Args:
        table: the bars; needs a timestamp, a close and, without `default_symbol`, a symbol.
        params: reads `columns`, `timezone`, `calendar`, `frequency`, `stamp`.
        default_symbol: the symbol of a table without such a column.

    Returns:
        Columns `COLUMNS`: symbol str, timestamp datetime64[us, UTC], the others float64, NaN where not given; and how
        the table was read.

    Raises:
        UserError: no rows; a column missing, ambiguous or not numeric; a timestamp or symbol missing or
            unreadable; naive timestamps and no `data.timezone`; stamps that name ends and no `data.stamp`.
    """
    origin = table.origin
    chosen, notes = choose(table, params.columns)
    if table.frame.empty:
        raise UserError(f"{origin}: no rows; expected bars with columns {', '.join(COLUMNS)}")
    for name in ("timestamp", "close"):
        if name not in chosen:
            raise UserError(f"{origin}: column '{name}' is missing ({found(table.frame)}); name it in data.columns")
    if "symbol" not in chosen and default_symbol is None:
        raise UserError(f"{origin}: column 'symbol' is missing ({found(table.frame)}); name it in data.columns")
    if "symbol" in chosen:
        names = table.symbols(chosen["symbol"])
    else:
        names = pd.Series(default_symbol, index=range(len(table.frame)), dtype="str")
    written = stamp_column(table, chosen["timestamp"], params.columns, notes)
    stamps = parse_timestamps(written, origin, params.date_format)
    if "symbol" not in chosen:
        _refuse_hidden_symbols(table, stamps, chosen)
    refuse_other_spacing(names, stamps.moments, params.frequency, origin)
    zone = params.timezone or table.zone
    starts = bar_starts(stamps, params.model_copy(update={"timezone": zone}), origin, names.to_numpy(), written.index)
    starts = _as_starts(starts, params, origin)
    columns: dict[str, object] = {"symbol": names, "timestamp": pd.DatetimeIndex(starts).tz_localize("UTC")}
    figures = {name: table.numbers(chosen[name]) for name in (*PRICES, "volume") if name in chosen}
    figures = adjusted_prices(table, chosen, figures, notes)
    figures = say_unused(table, chosen, figures, notes)
    for name in (*PRICES, "volume"):
        columns[name] = figures.get(name, np.full(len(table.frame), np.nan))
    textual = any(is_text(table.frame[name]) for name in chosen.values())
    reading = Reading(
        origin,
        table.layout,
        table.separator,
        table.format.written if textual and table.separator and table.format != PLAIN else "",
        params.date_format or stamps.style,
        params.stamp,
        {theirs: ours for ours, theirs in chosen.items()},
        (*table.notes, *notes),
    )
    return pd.DataFrame(columns, columns=list(COLUMNS)), reading


def _refuse_hidden_symbols(table: Table, stamps: Stamps, chosen: Mapping[str, str]) -> None:
    """Raises if one symbol is assumed and moments repeat while an unused column of words looks like symbols."""
    if len(np.unique(stamps.moments)) == len(stamps.moments):
        return
    for name in table.names:
        values = table.frame[name]
        if name in chosen.values() or not is_text(values) or table.holds_dates(name):
            continue
        distinct = values.dropna().unique()
        if 1 < len(distinct) <= len(values) / 2 and not table.holds_numbers(name):
            shown = ", ".join(str(value) for value in distinct[:3])
            raise UserError(
                f"{table.origin}: several rows for one moment, and column '{name}' ({shown}, ...) looks like the "
                f"symbol; say so in data.columns, as {{{name}: symbol}}"
            )


def _as_starts(starts: TimeArray, params: DataParams, origin: str) -> TimeArray:
    """Bar starts, of stamps that name starts or, with `data.stamp: end`, ends.

    Raises:
        UserError: the stamps are taken as starts and stand at closes, never at opens.
    """
    if params.stamp == "end":
        return starts_of_ends(starts, params.frequency, params.calendar)
    if name_ends(starts, params.frequency, params.calendar):
        refuse_other_calendar(starts, params.frequency, params.calendar)
        raise UserError(
            f"{origin}: the bars are stamped at their ends: they stand at the closes of {params.calendar} and not at "
            "its opens; set data.stamp to end"
        )
    return starts


def bar_starts(
    stamps: Stamps,
    params: DataParams,
    origin: str,
    groups: np.ndarray | None = None,
    rows: pd.Index | None = None,
) -> TimeArray:
    """[K] datetime64[us] in UTC: bar starts, or labels of sessions for daily bars.

    Raises:
        UserError: naive stamps and no `data.timezone`; months where days are wanted.
    """
    if stamps.period is not None:
        raise UserError(f"{origin}: the dates name a {stamps.period} and no day; bars need a date or a moment")
    if not stamps.aware and params.timezone is None:
        raise UserError(
            f"{origin}: timestamps name no time zone (the first is {pd.Timestamp(stamps.moments[0])}); "
            "set data.timezone, such as UTC or America/New_York"
        )
    moments = stamps.moments
    rows = rows if rows is not None and rows.name == LINE else None
    if params.frequency != "1Day":
        return moments if stamps.aware else localise(moments, str(params.timezone), origin, groups, rows)
    zone = exchange_zone(params.calendar)
    labels = day_labels(stamps, zone)
    if labels is not None:
        return labels
    shown = moments if stamps.clock is None else stamps.clock
    dates = shown.astype("datetime64[D]").astype("datetime64[us]")
    if stamps.aware and bool((shown != dates).any()):
        refuse_other_midnight(moments, zone, params.calendar, origin)
    placed = moments if stamps.aware else localise(moments, str(params.timezone), origin, groups, rows)
    return np.where(shown == dates, dates, exchange_dates(placed, zone))


def numbers(values: pd.Series, origin: str) -> FloatArray:
    """[K] float64 of one column alone; see `Table.numbers`, which decides by all columns."""
    return Table(values.to_frame(), origin).numbers(str(values.name))
