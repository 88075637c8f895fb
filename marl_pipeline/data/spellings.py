"""The canonical names of a bar's columns, the usual spellings of each, and which column of a table is meant by one."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from marl_pipeline.errors import UserError

PRICES = ("open", "high", "low", "close")
COLUMNS = ("symbol", "timestamp", *PRICES, "volume")

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


def found(frame: pd.DataFrame) -> str:
    """The columns of a table, for an error."""
    names = [str(name) for name in frame.columns]
    return f"found: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def plain(name: str) -> str:
    """A column name for comparison with `SPELLINGS`; a number before it, as in `1. open`, is none of it."""
    return re.sub(r"^\s*\d{1,2}\. |[\s_\-()<>\[\].]", "", name).lower()
