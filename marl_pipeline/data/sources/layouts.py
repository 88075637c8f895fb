"""Whose file it is: the layouts of known vendors, recognised by header or by the shape of the rows.

A layout says which column means what where names alone do not, and in which zone and number format its vendor writes.
docs/data.md shows a sample of each.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from marl_pipeline.data.number_format import PLAIN, NumberFormat
from marl_pipeline.data.schema import FIELDS, SPELLINGS, plain
from marl_pipeline.data.sources.cells import is_number
from marl_pipeline.data.sources.containers import Member
from marl_pipeline.data.table import LINE, Table
from marl_pipeline.errors import UserError


@dataclass(frozen=True)
class Headed:
    """A layout that its header shows.

    Attributes:
        name: of the vendor.
        needs: columns that must be there, as `plain` writes them.
        meaning: canonical name -> column, for those that the usual spellings do not find.
        zone: of its times, where they name none.
        fixed: how it writes numbers, whatever the machine.
    """

    name: str
    needs: frozenset[str]
    meaning: Mapping[str, str] = field(default_factory=dict)
    zone: str | None = None
    fixed: NumberFormat | None = None


PRICES = frozenset({"open", "high", "low", "close"})
HEADED = (
    Headed("MetaTrader", PRICES | {"date", "tickvol"}, fixed=PLAIN),
    Headed("Stooq", PRICES | {"ticker", "per", "date", "time", "openint"}, fixed=PLAIN),
    Headed("Tiingo", PRICES | {"date", "adjclose", "adjopen", "divcash", "splitfactor"}, fixed=PLAIN),
    Headed("Alpha Vantage", PRICES | {"timestamp", "adjustedclose", "dividendamount"}, fixed=PLAIN),
    Headed("Dukascopy", PRICES | {"localtime"}, {"timestamp": "localtime"}, fixed=PLAIN),
    Headed("Dukascopy", PRICES | {"gmttime"}, {"timestamp": "gmttime"}, zone="UTC", fixed=PLAIN),
    Headed("Binance", PRICES | {"opentime", "closetime"}, {"timestamp": "opentime", "volume": "volume"}, fixed=PLAIN),
    Headed("CryptoDataDownload", PRICES | {"unix", "date", "symbol"}, {"timestamp": "unix"}, fixed=PLAIN),
    Headed("investing.com", frozenset({"date", "price", "open", "high", "low"}), {"close": "price"}),
    Headed("Nasdaq", frozenset({"date", "close/last", "open", "high", "low"}), {"close": "close/last"}),
    Headed("TradingView", PRICES | {"time"}, {"timestamp": "time"}),
)

KLINES: tuple[str, ...] = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count")
KLINES += ("taker_buy_volume", "taker_buy_quote_volume", "ignore")
DAY_AND_TIME = ("date", "time", "open", "high", "low", "close", "volume")
STAMPED = ("timestamp", "open", "high", "low", "close", "volume")
HEADERLESS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Binance", KLINES, (r"\d{13}(\d{3})?",)),
    ("MetaTrader", DAY_AND_TIME, (r"\d{4}\.\d{2}\.\d{2}", r"\d{2}:\d{2}")),
    ("HistData", STAMPED, (r"\d{8} \d{6}",)),
)
"""Vendor, names of the columns, and what the first cells look like."""

LEAN_BAR = r"\d{8} \d{2}:\d{2}"
LEAN_MINUTES = re.compile(r"(?P<day>\d{8})_(?P<symbol>[^_]+)_(?:minute|second|hour|daily)_trade$")
LEAN_SCALE = 10_000.0
UNSCALED = ("crypto", "forex", "cfd", "cryptofuture")
"""Security types whose prices LEAN writes as they are."""


def arrange(table: Table, member: Member) -> Table:
    """The table with named columns, one row for a symbol and moment, and what its layout decides.

    Raises:
        UserError: there is no header and the rows are of no known layout.
    """
    frame = table.frame
    if isinstance(frame.columns, pd.RangeIndex):
        return _headerless(table, member)
    if isinstance(frame.columns, pd.MultiIndex):
        return _stacked(table, [tuple(str(part) for part in name) for name in frame.columns])
    named = [str(name).strip().lstrip("\ufeff") for name in frame.columns]
    pairs = [_pair(name) for name in named]
    if len(pairs) > 1 and all(pairs[1:]):
        return _stacked(table, [pair or (name, "") for pair, name in zip(pairs, named, strict=True)])
    table = replace(table, frame=frame.set_axis(pd.Index(named), axis=1))
    known = {plain(name): name for name in named}
    for layout in HEADED:
        if layout.needs <= known.keys():
            meaning = {ours: known[theirs] for ours, theirs in layout.meaning.items()}
            return replace(table, layout=layout.name, meaning=meaning, zone=layout.zone, fixed=layout.fixed)
    return table


def _headerless(table: Table, member: Member) -> Table:
    frame = table.frame
    first = [str(cell).strip() for cell in frame.iloc[0]]
    minutes = LEAN_MINUTES.search(PurePosixPath(member.name).stem)
    if minutes and len(first) == 6 and all(cell.isdigit() for cell in first[:5]):
        return _lean(table, member, minutes["day"], minutes["symbol"])
    if member.zipped and len(first) == 6 and re.fullmatch(LEAN_BAR, first[0]):
        return _lean(table, member, None, PurePosixPath(member.name).stem)
    for vendor, names, shapes in HEADERLESS:
        if len(first) == len(names) and all(
            re.fullmatch(shape, cell) for shape, cell in zip(shapes, first, strict=False)
        ):
            meaning = {"timestamp": names[0]} if vendor == "Binance" else {}
            return replace(
                table, frame=frame.set_axis(pd.Index(names), axis=1), layout=vendor, meaning=meaning, fixed=PLAIN
            )
    line = f"line {frame.index[0]}" if frame.index.name == LINE else "the first row"
    raise UserError(
        f"{table.origin}: has no header: {line} is a row ({', '.join(first[:4])}, ...); write the names of the columns "
        "above it, such as timestamp,open,high,low,close,volume"
    )


def _lean(table: Table, member: Member, day: str | None, symbol: str) -> Table:
    """LEAN's bars: prices of equities times 10,000, and times as ms since midnight of the day in the file's name."""
    frame = table.frame.set_axis(pd.Index(STAMPED), axis=1)
    whole = all(frame[name].str.fullmatch(r"\s*\d+\s*").all() for name in STAMPED[1:5])
    scale = LEAN_SCALE if whole and not any(part in UNSCALED for part in PurePosixPath(member.origin).parts) else 1.0
    read = replace(table, frame=frame, fixed=PLAIN)
    columns: dict[str, object] = {name: read.numbers(name) / scale for name in STAMPED[1:5]}
    if day is None:
        columns["timestamp"] = frame["timestamp"]
    else:
        since = read.numbers("timestamp").astype("timedelta64[ms]")
        columns["timestamp"] = pd.Series(
            (np.datetime64(pd.Timestamp(day)) + since).astype("datetime64[us]"), index=frame.index
        )
    columns["volume"] = read.numbers("volume")
    columns["symbol"] = pd.Series(symbol.upper(), index=frame.index, dtype="str")
    note = f"prices divided by {scale:,.0f}" if scale != 1.0 else "prices as they are"
    stored = pd.DataFrame(columns, index=frame.index)
    return replace(table, frame=stored, layout="LEAN", fixed=PLAIN, notes=(*table.notes, note))


def _pair(name: str) -> tuple[str, str] | None:
    """Two levels of a name that pandas flattened, as ('Close', 'AAA')."""
    if not re.fullmatch(r"\(.*,.*\)", name):
        return None
    try:
        value = ast.literal_eval(name)
    except (ValueError, SyntaxError):
        return None
    return (str(value[0]), str(value[1])) if isinstance(value, tuple) and len(value) == 2 else None


def _stacked(table: Table, names: Sequence[tuple[str, ...]]) -> Table:
    """One row for a symbol and moment of a table whose header has two lines, fields and symbols, as yfinance writes."""
    levels = list(zip(*names, strict=True))
    first = [level[1:] for level in levels]
    place = next((index for index, level in enumerate(first) if all(plain(cell) in FIELDS for cell in level)), None)
    if place is None or len(levels) < 2:
        shown = " / ".join(", ".join(cells[:3]) for cells in levels[:2])
        raise UserError(
            f"{table.origin}: the header has {len(levels)} lines ({shown}, ...) of which none names open, high, low, "
            "close; keep one line"
        )
    other = 1 - place if place < 2 else 0
    fields, symbols = levels[place], levels[other]
    stamps = table.frame.iloc[:, 0]
    called = next((cells[0] for cells in reversed(levels) if plain(cells[0]) in SPELLINGS["timestamp"]), "Date")
    parts = []
    for symbol in dict.fromkeys(symbols[1:]):
        chosen = [column for column in range(1, len(fields)) if symbols[column] == symbol]
        part = table.frame.iloc[:, chosen].set_axis(pd.Index([fields[column] for column in chosen]), axis=1)
        if part.columns.duplicated().any():
            raise UserError(
                f"{table.origin}: '{symbol}' has the column '{part.columns[part.columns.duplicated()][0]}' twice"
            )
        part.insert(0, called, stamps)
        part.insert(0, "symbol", pd.Series(symbol, index=part.index, dtype="str"))
        parts.append(part[~_empty(part.iloc[:, 2:])])
    frame = pd.concat(parts)
    if not len(frame):
        raise UserError(f"{table.origin}: the file has no rows, only a header")
    return replace(
        table, frame=frame, layout="yfinance", notes=(*table.notes, "header of two lines: fields and symbols")
    )


def _empty(frame: pd.DataFrame) -> pd.Series:
    """Rows in which no column holds anything."""
    empty = frame.isna()
    for place in range(frame.shape[1]):
        values = frame.iloc[:, place]
        if pd.api.types.is_string_dtype(values):
            empty.iloc[:, place] |= values.str.strip().fillna("") == ""
    return empty.all(axis=1)


# one column a symbol ---------------------------------------------------------------------------------------------

TICKER = re.compile(r"[\^$]?[A-Z0-9]{1,12}([.\-=/&_:^ ][A-Z0-9]{1,8}){0,3}[=^]?[A-Z]?")
LETTERS = frozenset("OHLCV")
KINDS = frozenset(
    """price px adj adjusted raw unadj unadjusted bid ask mid trade last day daily session bar candle prev previous
    regular split ohlc quote stock value mkt market index spot""".split()  # noqa: SIM905
)
"""What stands beside a field in a column's name without being a symbol: price_open, bid close."""


def as_rows(table: Table, columns: Mapping[str, str]) -> Table:
    """A table of one column a symbol as rows of closes; any other as it is.

    Such a table has a date, no symbol, no prices by name, and names of columns that look like symbols. Capital letters
    (C, V, O) are fields only if open, high, low and close are all there.

    Raises:
        UserError: the letters may be fields or symbols.
    """
    names = table.names
    if columns or table.layout or len(set(names)) < len(names):
        return table
    stamped = [name for name in names if plain(name) in SPELLINGS["timestamp"] or _unnamed(name)]
    others = [name for name in names if name not in stamped]
    letters = [name for name in others if name in LETTERS]
    fields = [name for name in others if plain(name) in FIELDS and name not in LETTERS]
    if not stamped or not others or any(plain(name) in SPELLINGS["symbol"] for name in others):
        return table
    if set(letters) >= {"O", "H", "L", "C"}:
        return table
    symbols = [name for name in others if TICKER.fullmatch(name) and table.holds_numbers(name)]
    split = None if len(fields) == len(others) else _fielded(table, others)
    if split is not None:
        pairs = [(stamped[0], ""), *((split[name][1], split[name][0]) for name in others)]
        return _stacked(replace(table, frame=table.frame[[stamped[0], *others]]), pairs)
    if fields or len(symbols) < len(others) or _named_after_fields(others):
        return table
    if letters and len(letters) == len(others):
        raise UserError(
            f"{table.origin}: columns {', '.join(letters)} may be fields of bars or symbols; say which field in "
            f"data.columns, as {{{letters[0]}: close}}, or add a column symbol"
        )
    if all(is_number(name) for name in others) and len(others) < 2:
        return table
    long = table.frame.melt(
        id_vars=[stamped[0]], value_vars=symbols, var_name="symbol", value_name="close", ignore_index=False
    )
    long = long[~_empty(long[["close"]])].astype({"symbol": "str"})
    if not len(long):
        raise UserError(f"{table.origin}: the file has no rows, only a header")
    note = f"one column a symbol ({', '.join(symbols[:3])}{', ...' if len(symbols) > 3 else ''}): closes only"
    return replace(table, frame=long, layout="wide", notes=(*table.notes, note))


def _fielded(table: Table, names: list[str]) -> dict[str, tuple[str, str]] | None:
    """Symbol and field of names such as AAA_close, Close AAA or AAA.Open, if all are of one such form."""
    for pattern, order in ((r"(.+)[_. :|/-]([A-Za-z ]+)", (1, 2)), (r"([A-Za-z ]+)[_. :|/-](.+)", (2, 1))):
        found = {name: re.fullmatch(pattern, name) for name in names}
        if all(
            match and plain(match[order[1]]) in FIELDS and len(plain(match[order[1]])) > 1 for match in found.values()
        ):
            pairs = {name: (match[order[0]], match[order[1]]) for name, match in found.items() if match}
            named = {symbol.lower() for symbol, _ in pairs.values()}
            return None if named & KINDS else pairs
    return None


def _named_after_fields(names: list[str]) -> bool:
    """Whether the names hold several fields with something around them, as PX_OPEN and PX_LAST do, and not symbols."""
    parts = [set(re.findall(r"[A-Z]+", name)) & {"OPEN", "HIGH", "LOW", "CLOSE", "LAST", "VOLUME"} for name in names]
    return len(names) > 1 and len(set().union(*parts)) > 1 and sum(map(bool, parts)) > len(names) / 2


def _unnamed(name: str) -> bool:
    return bool(re.fullmatch(r"Unnamed: \d+|index|__index_level_0__", name))
