"""The symbol that a file is named after, out of what vendors and people put around it; a name that is none is refused.

A year, a folder, a word such as `bars` or a decoration nobody knows never becomes a symbol: `data.file_name` says where
the symbol stands.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from marl_pipeline.data.sources.containers import stem_of
from marl_pipeline.errors import UserError

SYMBOL = r"(?P<symbol>[^\s,]+?)"
TICKER = r"(?P<symbol>[\^$]?[A-Z][A-Z0-9]*(?:[.=/][A-Z]+)*)"
YEAR = r"(?P<symbol>[^\s,_]+)[_-](?P<year>(?:19|20)\d\d)"
DECORATIONS: tuple[tuple[str, str], ...] = (
    ("TradingView", rf"[A-Z0-9]+(?:_DLY)?_{SYMBOL}, (?:\d+[SHDWMR]?|[SHDWMR])(?: \(\d+\))?(?:[ _][0-9a-f]{{4,6}})?"),
    ("investing.com", rf"{SYMBOL} (?:Stock Price History|Historical Data)(?: ?\(\d+\))?(?: - Investing\.com.*)?"),
    ("Alpha Vantage", rf"(?:intraday_\d+min|(?:daily|weekly|monthly)(?:_adjusted)?)_{SYMBOL}"),
    ("Binance", rf"{SYMBOL}-\d+[smhdwM]o?-\d{{4}}-\d{{2}}(?:-\d{{2}})?"),
    ("HistData", rf"DAT_[A-Z]+_{SYMBOL}_[A-Z]\d?_\d{{4,6}}"),
    ("Dukascopy", rf"{SYMBOL}_Candlestick_\d+_[A-Za-z]+_(?:BID|ASK)_[\d.]+-[\d.]+"),
    ("Dukascopy", rf"{SYMBOL}-[mhd]\d+-(?:bid|ask)-\d{{4}}-\d\d-\d\d.*"),
    ("MetaTrader", rf"{SYMBOL}_(?:M\d+|H\d+|D1|W1|MN1?|Daily|Weekly|Monthly)(?:_\d{{8,12}}_\d{{8,12}})?"),
    ("MetaTrader", r"(?P<symbol>[A-Z]{6})(?:1|5|15|30|60|240|1440|10080)"),
    ("Stooq", r"(?P<symbol>[\^a-z0-9.-]+)_(?P<market>[a-z]{2})_[dwm]"),
    ("Tiingo", rf"tiingo_{SYMBOL}"),
    ("a name before a year", YEAR),
    ("capitals between small letters", rf"(?:[a-z]+\d*[_ -])*{TICKER}(?:[_ -]\d*[a-z]+\d*)*"),
)
"""How vendors decorate the symbol in a file's name, the most particular first."""

WORDS = frozenset(
    (
        *("bar", "bars", "data", "dataset", "price", "prices", "ohlc", "ohlcv", "quote", "quotes", "history", "file"),
        *("historical", "historicaldata", "daily", "day", "hourly", "hour", "minute", "stock", "stocks", "equity"),
        *("equities", "export", "download", "downloads", "test", "sample", "table", "output", "chart", "candle"),
        *("candles", "klines", "market", "ticker", "tickers", "symbol", "symbols", "all", "combined", "merged"),
        *("part", "panel", "wide", "long", "close", "closes", "historicalprices", "historical_prices", "untitled"),
        *("mydata", "book1", "sheet1"),
    )
)
"""Words that name a file and no symbol, unless all are capitals."""

PLAIN = re.compile(r"[\^$#.]?[^\W_]+([.\-=/&+!:][^\W_]+)*([=!^][A-Z0-9]*)?|[A-Z0-9]+_[A-Z0-9]+")
PLACE = "{symbol}"


def symbol_of(name: str, origin: str, pattern: str | None = None) -> tuple[str, str]:
    """The symbol in the name of a file, and in words what was taken away from the name.

    Args:
        name: of the file, or its path below the folder of bars.
        origin: names the file in errors.
        pattern: `data.file_name`: where `{symbol}` stands for the symbol and `*` for anything, as `*_{symbol}, *`.

    Raises:
        UserError: the name does not fit the pattern, or holds no symbol that is certain.
    """
    path = PurePosixPath(name)
    stem = unquote(stem_of(path.name))
    if pattern is not None:
        return _by_pattern(str(path.with_name(stem)) if "/" in pattern else stem, origin, pattern), ""
    for vendor, shape in DECORATIONS:
        match = re.fullmatch(shape, stem)
        if match:
            symbol = match["symbol"]
            if vendor == "Stooq":
                symbol = f"{symbol}.{match['market']}".upper()
            if vendor == "Dukascopy":
                symbol = symbol.upper()
            if not _is_symbol(symbol):
                break
            return (
                symbol,
                "" if symbol == stem else f"the symbol is taken out of the file's name ({vendor})",
            )
    if not _is_symbol(stem):
        raise UserError(
            f"{origin}: has no column of symbols, and its name '{stem}' is {_what(stem)}; name the column in "
            f"data.columns, or say with data.file_name where the symbol stands, as '{_suggestion(stem)}'"
        )
    return stem, ""


def year_of(name: str) -> int | None:
    """The year that a name such as AAA_2021 ends with, if it is decorated by nothing else."""
    match = re.fullmatch(YEAR, unquote(stem_of(PurePosixPath(name).name)))
    return int(match["year"]) if match else None


def _by_pattern(stem: str, origin: str, pattern: str) -> str:
    if pattern.count(PLACE) != 1:
        raise UserError(f"data.file_name: '{pattern}' must hold {PLACE} once, as in '*_{PLACE}, *'")
    stem_pattern = stem_of(pattern)
    parts = [r".*?" if part == "*" else re.escape(part) for part in re.split(r"(\*)", stem_pattern)]
    shape = "".join(parts).replace(re.escape(PLACE), "(?P<symbol>.+)")
    match = re.fullmatch(shape, stem)
    if not match or not match["symbol"].strip():
        raise UserError(f"{origin}: the name '{stem}' does not fit data.file_name '{pattern}'")
    return match["symbol"].strip()


def _is_symbol(stem: str) -> bool:
    return bool(PLAIN.fullmatch(stem)) and _what(stem) == ""


def _what(stem: str) -> str:
    """Why a name is no symbol; empty if it may be one."""
    if re.fullmatch(r"(19|20)\d\d", stem):
        return "a year"
    if re.fullmatch(r"(19|20)\d\d[-_.]?(0[1-9]|1[0-2])([-_.]?[0-3]\d)?([-_ ].*)?", stem):
        return "a date"
    if re.fullmatch(r"(?i)[mhdw]\d{1,4}|\d{1,4} ?(s|m|min|h|d|w|mo|hour|day|week)", stem):
        return "a frequency"
    if stem.lower() in WORDS and not (stem.isupper() and len(stem) <= 5):
        return "no symbol"
    return "" if PLAIN.fullmatch(stem) else "more than a symbol"


def _suggestion(stem: str) -> str:
    found = re.search(r"[A-Z]{2,}[A-Z0-9.]*", stem)
    return stem.replace(found[0], PLACE, 1) if found and found[0] != stem else PLACE
