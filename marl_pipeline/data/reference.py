"""Companions that are tables of facts: sectors, corporate actions, membership of an index."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from marl_pipeline.data.companion_columns import DATES, columns_of, days_of
from marl_pipeline.data.matching import listed
from marl_pipeline.data.schema import SPELLINGS, match, numbers, symbols
from marl_pipeline.data.sources.tables import read_table
from marl_pipeline.errors import UserError

RATIO = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?::|/|-?\s?for\s?-?)\s*(\d+(?:\.\d+)?)\s*")
"""Splits that are written as 4:1, 4/1 or 4-for-1."""


def load_sectors(path: str, notes: list[str]) -> pd.DataFrame:
    """Columns symbol, sector (`GICS Sector` and the like); the first row of a symbol counts."""
    table = columns_of(path, {"symbol": SPELLINGS["symbol"], "sector": ("sector", "gicssector", "sectorname")})
    names = symbols(table["symbol"], path)
    sector = table["sector"].astype("str").str.strip().reset_index(drop=True)
    result = pd.DataFrame({"symbol": names, "sector": sector})[table["sector"].notna().to_numpy()]
    several = result.drop_duplicates().loc[lambda rows: rows["symbol"].duplicated(), "symbol"]
    if len(several):
        notes.append(f"sectors: several sectors for {listed(several.unique())}; the first row of each counts")
    return result.drop_duplicates("symbol").reset_index(drop=True)


def load_actions(path: str, notes: list[str]) -> pd.DataFrame:
    """Columns symbol, ex_date, kind, value; a row that stands there twice counts once.

    Raises:
        UserError: a kind that is neither split nor dividend, a value that is not positive, or two splits on one day.
    """
    wanted = {
        "symbol": SPELLINGS["symbol"],
        "ex_date": ("exdate", "exdividenddate", *DATES),
        "kind": ("kind", "type", "action"),
        "value": ("value", "ratio", "amount"),
    }
    table = columns_of(path, wanted, _one_row_an_action(read_table(Path(path)), path))
    kind = table["kind"].astype("str").str.strip().str.lower().str.removesuffix("s").reset_index(drop=True)
    value = numbers(_ratios(table["value"]), path)
    bad = ~kind.isin(["split", "dividend"]).to_numpy() | ~(value > 0.0)
    if bad.any():
        row = int(np.argmax(bad))
        raise UserError(
            f"{path}: row {row + 1}: expected kind split or dividend with a positive value, found "
            f"{table['kind'].iloc[row]} {value[row]:g}"
        )
    days = days_of(table["ex_date"], path)
    result = pd.DataFrame({"symbol": symbols(table["symbol"], path), "ex_date": days, "kind": kind, "value": value})
    if (again := result.duplicated()).any():
        notes.append(f"corporate_actions: {int(again.sum()):,} rows stand there twice and count once")
        result = result[~again].reset_index(drop=True)
    splits = result[result["kind"] == "split"]
    if (twice := splits.duplicated(["symbol", "ex_date"])).any():
        first = splits[twice].iloc[0]
        raise UserError(f"{path}: two different splits of {first['symbol']} on {first['ex_date']:%Y-%m-%d}; keep one")
    return result


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
    table = columns_of(path, wanted)
    result = pd.DataFrame({name: days_of(table[name], path) for name in ("start", "end")})
    result.insert(0, "symbol", symbols(table["symbol"], path))
    backwards = (result["end"] < result["start"]).to_numpy()
    if backwards.any():
        row = result.iloc[int(np.argmax(backwards))]
        raise UserError(f"{path}: {row['symbol']} ends on {row['end']:%Y-%m-%d}, before it starts")
    return result


def _one_row_an_action(frame: pd.DataFrame, path: str) -> pd.DataFrame:
    """A table with a column of dividends and one of splits, as yfinance writes it, with one row for each of them."""
    wide = match(frame, {"dividend": ("dividends", "dividend"), "split": ("stocksplits", "splits", "split")}, path)
    if not wide or "value" in match(frame, {"value": ("value", "ratio", "amount")}, path):
        return frame
    columns_of(path, {"symbol": SPELLINGS["symbol"]}, frame)
    kept = [name for name in frame.columns if name not in wide.values()]
    parts = []
    for kind, column in wide.items():
        value = numbers(_ratios(frame[column]), path)
        there = np.isfinite(value) & (value != 0.0)
        parts.append(frame.loc[there, kept].assign(kind=kind, value=value[there]))
    actions: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return actions


def _ratios(values: pd.Series) -> pd.Series:
    """Splits that are written as ratios as numbers; everything else as it is."""
    if pd.api.types.is_numeric_dtype(values):
        return values

    def number(value: object) -> object:
        found = RATIO.fullmatch(str(value))
        return float(found[1]) / float(found[2]) if found and float(found[2]) else value

    read: pd.Series = values.astype(object).map(number)
    return read
