"""The canonical bar table that everything starts from, and how a table in anybody's spelling becomes one.

Nothing is repaired here: order, duplicates and bad values pass through, so that the quality stage sees them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.calendar import exchange_dates, exchange_zone
from marl_pipeline.data.calendar_fit import refuse_other_calendar, refuse_other_midnight
from marl_pipeline.data.dataset import FloatArray, TimeArray
from marl_pipeline.data.number_format import PLAIN
from marl_pipeline.data.spacing import refuse_other_spacing
from marl_pipeline.data.table import Table, blank_to_null, is_text, symbols
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

PRICES = ("open", "high", "low", "close")
COLUMNS = ("symbol", "timestamp", *PRICES, "volume")
TIMESTAMP_DTYPE = "datetime64[us, UTC]"

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "symbol": (
        *(
            "symbol",
            "ticker",
            "tic",
            "sym",
            "instrument",
            "code",
            "ric",
            "stock",
            "tickersymbol",
            "stockcode",
            "tscode",
        ),
        *("secid", "security", "asset", "pair", "\u4ee3\u7801", "\u80a1\u7968\u4ee3\u7801"),
    ),
    "timestamp": (
        *("timestamp", "datetime", "date", "time", "tradedate", "tradingdate", "tradingday", "barstart", "opentime"),
        *("localtime", "gmttime", "unix", "unixtime", "unixtimestamp", "epoch", "dateutc", "timeutc", "datetimeutc"),
        *(
            "dateandtime",
            "pricedate",
            "businessdate",
            "dt",
            "datum",
            "zeit",
            "fecha",
            "data",
            "\u65e5\u671f",
            "\u65f6\u95f4",
        ),
    ),
    "open": ("open", "openprice", "o", "er\u00f6ffnung", "er\u00f6ffn", "apertura", "ouv", "ouverture", "\u5f00\u76d8"),
    "high": ("high", "highprice", "h", "hoch", "tageshoch", "m\u00e1ximo", "plushaut", "\u6700\u9ad8"),
    "low": ("low", "lowprice", "l", "tief", "tagestief", "m\u00ednimo", "plusbas", "\u6700\u4f4e"),
    "close": (
        *("close", "closeprice", "c", "closelast", "schlusskurs", "schluss", "zuletzt", "cierre", "\u00faltimo"),
        *("cl\u00f4ture", "dernier", "\u6536\u76d8"),
    ),
    "volume": ("volume", "vol", "v", "tickvol", "tickvolume", "volumen", "realvolume", "\u6210\u4ea4\u91cf"),
}
"""Usual names, compared in lower case without spaces, dashes, underscores, dots and brackets. `Adj Close` is not one:
which close is meant stands in `data.columns`."""

FIELDS = frozenset(name for ours in (*PRICES, "volume") for name in SPELLINGS[ours]) | {
    "adjclose",
    "adjustedclose",
    "dividends",
    "stocksplits",
    "capitalgains",
    "repaired?",
}
"""Names of columns that are figures of a bar."""

TIME_OF_DAY = r"\d{1,2}:\d{2}(:\d{2}([.,]\d{1,9})?)?( ?[AaPp][Mm])?"


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
    written = _stamps(table, chosen["timestamp"], params.columns, notes)
    stamps = parse_timestamps(written, origin, params.date_format)
    if "symbol" not in chosen:
        _refuse_hidden_symbols(table, stamps, chosen)
    refuse_other_spacing(names, stamps.moments, params.frequency, origin)
    zone = params.timezone or table.zone
    starts = bar_starts(stamps, params.model_copy(update={"timezone": zone}), origin, names.to_numpy(), written.index)
    starts = _as_starts(starts, params, origin)
    columns: dict[str, object] = {"symbol": names, "timestamp": pd.DatetimeIndex(starts).tz_localize("UTC")}
    figures = {name: table.numbers(chosen[name]) for name in (*PRICES, "volume") if name in chosen}
    figures = _adjusted(table, chosen, figures, notes)
    figures = _traded(table, chosen, figures, notes)
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


def choose(table: Table, columns: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Which column is meant by each canonical name: those of `data.columns` first, then the layout's, then usual
    spellings; and what was chosen among several, in words.

    Raises:
        UserError: a column named twice, one of `columns` absent, or two candidates for one canonical name.
    """
    names, origin = table.names, table.origin
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{origin}: column '{twice[0]}' stands there twice; keep one")
    given: dict[str, str] = {}
    for theirs, ours in columns.items():
        if ours not in SPELLINGS:
            raise UserError(
                f"data.columns: '{ours}' is none of {', '.join(COLUMNS)}; write {{your column: one of these}}"
            )
        column = _named(theirs, names)
        if column is None:
            raise UserError(f"{origin}: data.columns names '{theirs}', which is not there ({found(table.frame)})")
        if ours in given and ours == "timestamp":
            days, times = _day_and_time(table, [given[ours], column])
            if days is None or times is None:
                raise UserError(f"data.columns: '{given[ours]}' and '{theirs}' are both the {ours}; keep one")
            column = days
        elif ours in given:
            raise UserError(f"data.columns: '{given[ours]}' and '{theirs}' are both the {ours}; keep one")
        given[ours] = column
    for ours, theirs in table.meaning.items():
        if ours not in given and theirs not in given.values():
            given[ours] = theirs
    notes: list[str] = []
    wanted = {ours: spellings for ours, spellings in SPELLINGS.items() if ours not in given}
    free = [name for name in names if name not in given.values()]
    for ours in list(wanted):
        candidates = _candidates(table, ours, free)
        if len(candidates) > 1:
            one = _decide(table, ours, candidates, notes)
            if one is None:
                first, second = candidates[:2]
                raise UserError(
                    f"{origin}: columns '{first}' and '{second}' may both be the {ours}; say which in data.columns, as "
                    f"{{{first}: {ours}}}"
                )
            candidates = [one]
        if candidates:
            given[ours] = candidates[0]
    return {ours: given[ours] for ours in SPELLINGS if ours in given}, notes


def _candidates(table: Table, ours: str, free: list[str]) -> list[str]:
    usual = SPELLINGS[ours]
    found = [name for name in free if plain(name) in usual]
    if found:
        return found
    if ours == "timestamp":
        return [name for name in free if re.fullmatch(r"Unnamed: \d+|index", name) and table.holds_moments(name)][:1]
    if ours == "volume":
        return [
            name
            for name in free
            if re.fullmatch(r"vol(ume)?[ _(]+[A-Za-z]+\)?", name, re.IGNORECASE) and "MA" not in name
        ]
    if ours == "symbol":
        return [name for name in free if plain(name) == "name" and _tickers(table.frame[name])]
    return []


def _decide(table: Table, ours: str, candidates: list[str], notes: list[str]) -> str | None:
    """The one of several columns that is meant, or None."""
    exact = [name for name in candidates if name == ours]
    if ours == "timestamp":
        days, times = _day_and_time(table, candidates)
        if days is not None and times is not None and len(candidates) == 2:
            return days
        counts = [name for name in candidates if table.counts_since_1970(name)]
        if len(counts) == 1 and not exact:
            notes.append(f"column '{counts[0]}' taken as the timestamp: it names the moment in UTC")
            return counts[0]
    if ours == "volume":
        return _decide_volume(table, candidates, notes)
    return exact[0] if exact else None


def _decide_volume(table: Table, candidates: list[str], notes: list[str]) -> str | None:
    """A volume that is zero throughout is none; ticks stand for it then. Of two currencies the one traded counts."""
    traded = [name for name in candidates if not plain(name).startswith("tick")]
    if len(traded) == 1 and len(candidates) == 2:
        ticks = next(name for name in candidates if name not in traded)
        values = table.numbers(traded[0])
        if np.nansum(np.abs(values)) == 0.0:
            notes.append(f"column '{ticks}' taken as the volume: '{traded[0]}' is zero throughout")
            return ticks
        return traded[0]
    exact = [name for name in candidates if plain(name) in ("volume", "vol")]
    if len(exact) == 1:
        return exact[0]
    if all(re.match("vol", name, re.IGNORECASE) for name in candidates):
        notes.append(f"column '{candidates[0]}' taken as the volume, not '{candidates[1]}'")
        return candidates[0]
    return None


def _tickers(values: pd.Series) -> bool:
    return is_text(values) and bool(values.astype("str").str.strip().str.fullmatch(r"[A-Z0-9.\-^=/]{1,12}").all())


def _named(theirs: str, names: list[str]) -> str | None:
    """The column that `data.columns` names; a nameless one is "" or what pandas calls it."""
    if theirs in names:
        return theirs
    if theirs in ("", "index") and names and re.fullmatch(r"Unnamed: \d+", names[0]):
        return names[0]
    stripped = [name for name in names if name.strip() == theirs.strip()]
    return stripped[0] if len(stripped) == 1 else None


def _day_and_time(table: Table, candidates: list[str]) -> tuple[str | None, str | None]:
    """Among columns that may be the timestamp: one of days without a time of day, and one of times of day."""
    times = [name for name in candidates if times_of_day(table.frame[name]) is not None]
    days = [name for name in candidates if name not in times]
    return (days[0] if len(days) == 1 else None), (times[0] if len(times) == 1 else None)


def _stamps(table: Table, column: str, mapped: Mapping[str, str], notes: list[str]) -> pd.Series:
    """The column of stamps, joined with one of times of day that stands beside it.

    Raises:
        UserError: the column holds times of day only.
    """
    values = table.frame[column]
    beside = [
        name
        for name in table.names
        if name != column and plain(name) in SPELLINGS["timestamp"] and mapped.get(name, "timestamp") == "timestamp"
    ]
    if times_of_day(values) is not None and plain(column) != "timestamp":
        days = [name for name in beside if times_of_day(table.frame[name]) is None]
        if len(days) != 1:
            raise UserError(
                f"{table.origin}: column '{column}' holds times of day without a date; name a column with both in "
                "data.columns"
            )
        return _stamps(table, days[0], {}, notes)
    for name in beside:
        times = times_of_day(table.frame[name]) if plain(name) != "timestamp" else None
        if times is not None and _whole_days(values):
            notes.append(f"columns '{column}' and '{name}' joined: date and time of day")
            return (_texts(values) + " " + times).rename(column).astype("str")
    return blank_to_null(values)


def _texts(values: pd.Series) -> pd.Series:
    moments = pd.api.types.is_datetime64_any_dtype(values)
    texts: pd.Series = values.dt.strftime("%Y-%m-%d") if moments else values
    return texts.astype("str").str.strip()


def _whole_days(values: pd.Series) -> bool:
    """Whether the stamps name days and no time of day."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return bool((values == values.dt.normalize()).all())
    texts = _texts(values)
    return not bool(texts.str.contains(":").any()) and bool(texts.str.len().max() <= 12)


def times_of_day(values: pd.Series) -> pd.Series | None:
    """The column as HH:MM or HH:MM:SS, if it holds times of day (09:30, 9:30 AM, 093000, 930), else None."""
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_bool_dtype(values):
        return None
    if pd.api.types.is_float_dtype(values) or not re.match(r"\s*\d{1,6}(\s*$|:)", str(values.iloc[0])):
        return None
    texts = values.astype("str").str.strip()
    distinct = pd.Series(texts.unique(), dtype="str")
    if not len(distinct) or distinct.isna().any():
        return None
    if distinct.str.fullmatch(TIME_OF_DAY).all():
        return texts
    if not distinct.str.fullmatch(r"\d{1,6}").all():
        return None
    width = 4 if int(distinct.str.len().max()) <= 4 and bool((distinct != "0").any()) else 6
    packed = distinct.str.zfill(width)
    if not packed.str.fullmatch(r"([01]\d|2[0-3])([0-5]\d)([0-5]\d)?").all():
        return None
    shown = packed.str[:2] + ":" + packed.str[2:4] + (":" + packed.str[4:6] if width == 6 else "")
    return texts.map(dict(zip(distinct, shown, strict=True))).astype("str")


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


def _adjusted(
    table: Table, chosen: Mapping[str, str], figures: dict[str, FloatArray], notes: list[str]
) -> dict[str, FloatArray]:
    """With an adjusted close mapped to `close`: the adjusted open, high and low where the file has them, else the plain
    ones times adjusted over plain close."""
    theirs = plain(chosen["close"])
    if not theirs.startswith("adj"):
        return figures
    own = {plain(name): name for name in table.names}
    result = dict(figures)
    adjusted = {name: own.get(f"adj{name}", own.get(f"adjusted{name}")) for name in ("open", "high", "low", "volume")}
    plainly = next((own[name] for name in SPELLINGS["close"] if name in own), None)
    ratio = (
        None
        if plainly is None
        else figures["close"] / np.where((values := table.numbers(plainly)) == 0.0, np.nan, values)
    )
    for name in ("open", "high", "low"):
        if name not in figures or plain(chosen[name]).startswith("adj"):
            continue
        column = adjusted[name]
        if column is not None:
            result[name] = table.numbers(column)
            notes.append(f"column '{column}' taken as the {name}, beside '{chosen['close']}'")
        elif ratio is not None:
            result[name] = figures[name] * ratio
            notes.append(f"column '{chosen[name]}' times '{chosen['close']}' over '{plainly}'")
        else:
            raise UserError(
                f"{table.origin}: '{chosen['close']}' is adjusted and '{chosen[name]}' is not, and no plain close "
                f"gives the ratio; map adjusted columns for open, high and low too"
            )
    volume = adjusted["volume"]
    if volume is not None and "volume" in figures:
        result["volume"] = table.numbers(volume)
        notes.append(f"column '{volume}' taken as the volume, beside '{chosen['close']}'")
    return result


def _traded(
    table: Table, chosen: Mapping[str, str], figures: dict[str, FloatArray], notes: list[str]
) -> dict[str, FloatArray]:
    """Says which columns are not used though they look like an adjusted close, or that there is no volume."""
    if "volume" not in figures:
        notes.append("no column is the volume")
    unused = [
        name for name in table.names if plain(name) in ("adjclose", "adjustedclose") and name not in chosen.values()
    ]
    if unused and not plain(chosen["close"]).startswith("adj"):
        notes.append(f"column '{unused[0]}' is not used; data.columns takes it, as {{{unused[0]}: close}}")
    return figures


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


def found(frame: pd.DataFrame) -> str:
    """The columns of a table, for an error."""
    names = [str(name) for name in frame.columns]
    return f"found: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def plain(name: str) -> str:
    """A column name for comparison with `SPELLINGS`."""
    return re.sub(r"[\s_\-()<>\[\].]", "", name).lower()
