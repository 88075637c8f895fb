"""Companions that are time series: VIX, macro and sentiment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.availability import Dates, availability, not_before_close, read_dates, superseded_left_out
from marl_pipeline.data.companion_columns import DATES, PERIOD_NAMES, RELEASES, columns_of, figures_in
from marl_pipeline.data.dataset import FloatArray
from marl_pipeline.data.matching import listed
from marl_pipeline.data.schema import SPELLINGS, match, numbers, symbols
from marl_pipeline.data.sources.tables import read_table
from marl_pipeline.errors import UserError

SERIES = ("series", "seriesid", "indicator", "variable", "name", "symbol", "ticker")
"""Columns that name the series of a row in a long macro file."""

COUNTS = frozenset(
    """n count counts num number volume mentions headlines articles tweets posts messages news words
    buzz""".split()  # noqa: SIM905
)
"""Words in the names of sentiment figures that are counts where all values are whole: several rows for one symbol and
date are added up. All other figures are averaged."""

KEYS = ["symbol", "timestamp", "available_at", "expires_at"]


def figures_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The numeric columns of a companion, in the order of its file."""
    return tuple(str(name) for name in table.select_dtypes("number").columns)


def load_vix(params: DataParams) -> pd.DataFrame:
    """Columns timestamp, available_at, expires_at, close; of a file of several indices the VIX."""
    path = params.vix
    frame = read_table(Path(path), params)
    if "symbol" in (named := match(frame, {"symbol": SPELLINGS["symbol"]}, path)):
        names = symbols(frame[named["symbol"]], path)
        if names.nunique() > 1:
            chosen = names.str.upper().str.lstrip("^$.").eq("VIX").to_numpy()
            if not chosen.any():
                raise UserError(f"{path}: several symbols ({listed(sorted(names.unique()))}); keep the VIX only")
            frame = frame[chosen].reset_index(drop=True)
    wanted = {"timestamp": DATES, "close": (*SPELLINGS["close"], "vix", "vixclose", "vixcls", "value")}
    table = columns_of(path, wanted, frame)
    figures = {"close": numbers(table["close"], path)}
    dates = not_before_close(read_dates(table["timestamp"], params, path), params.calendar)
    return superseded_left_out(availability(dates, None, figures, params, "vix", path), ("close",))


def load_macro(params: DataParams, notes: list[str]) -> pd.DataFrame:
    """Columns timestamp, available_at, expires_at and every column of numbers of the file; of a long file (date,
    series, value) one for each series."""
    path = params.macro
    frame, dates, released, taken = _dated(params, path, {})
    series = match(frame, {"series": SERIES}, path).get("series")
    if series is not None and frame[series].nunique() > 1 and len(np.unique(dates.moments)) < len(frame):
        figures = _by_series(frame, series, path, notes, taken)
    else:
        figures = figures_in(frame, path, taken, "macro", notes)
    table = availability(dates, released, figures, params, "macro", path)
    return superseded_left_out(table, tuple(figures))


def load_sentiment(params: DataParams, notes: list[str]) -> pd.DataFrame:
    """Columns symbol, timestamp, available_at, expires_at and every other column of numbers of the file.

    Several rows of one symbol with the same date (and release) become one: counts are added up (`COUNTS`), all other
    figures averaged.
    """
    path = params.sentiment
    wanted = {"symbol": SPELLINGS["symbol"]}
    frame, dates, released, taken = _dated(params, path, wanted)
    figures = figures_in(frame, path, taken, "sentiment", notes)
    names = symbols(frame[match(frame, wanted, path)["symbol"]], path)
    table = availability(dates, released, figures, params, "sentiment", path)
    table.insert(0, "symbol", np.tile(names.to_numpy(dtype=object), len(table) // len(names)))
    if table.duplicated(KEYS).any():
        ways = {name: "sum" if _is_count(name, values) else "mean" for name, values in figures.items()}
        words = ", ".join(f"{name} ({way})" for name, way in ways.items())
        many = int(table.groupby(KEYS).size().gt(1).sum())
        table = _merged(table, ways)
        notes.append(f"sentiment: {many:,} times several rows for one symbol and date, which became one: {words}")
    kept = [superseded_left_out(rows, tuple(figures)) for _, rows in table.groupby("symbol", sort=True)]
    return pd.concat(kept, ignore_index=True).astype({"symbol": "str"})


def _merged(table: pd.DataFrame, ways: Mapping[str, str]) -> pd.DataFrame:
    groups = table.groupby(KEYS, sort=False)
    sums, means = groups.sum(min_count=1), groups.mean()
    return pd.DataFrame({name: (sums if way == "sum" else means)[name] for name, way in ways.items()}).reset_index()


def _is_count(name: str, values: FloatArray) -> bool:
    there = values[np.isfinite(values)]
    words = set(re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()))
    return bool(words & COUNTS) and bool(((there >= 0.0) & (there == np.rint(there))).all())


def _by_series(frame: pd.DataFrame, series: str, path: str, notes: list[str], taken: set[str]) -> dict[str, FloatArray]:
    """The figures of a long file, one for each name in the column `series`; NaN in the rows of the others."""
    figures = figures_in(frame, path, taken | {series}, "macro", notes)
    names = symbols(frame[series], path)
    result = {}
    for name in names.drop_duplicates():
        chosen = names.eq(name).to_numpy()
        for column, values in figures.items():
            result[str(name) if len(figures) == 1 else f"{name}_{column}"] = np.where(chosen, values, np.nan)
    return result


def _dated(
    params: DataParams, path: str, also: Mapping[str, tuple[str, ...]]
) -> tuple[pd.DataFrame, Dates, Dates | None, set[str]]:
    """A file, its dates, its releases where it names them, and the columns that these and `also` stand in."""
    frame = read_table(Path(path), params)
    dates = DATES if "timestamp" in match(frame, {"timestamp": DATES}, path) else (*DATES, *PERIOD_NAMES)
    wanted = {"timestamp": dates, **also}
    table = columns_of(path, wanted, frame)
    optional = match(frame, {"released": RELEASES}, path)
    released = read_dates(frame[optional["released"]], params, path) if optional else None
    taken = {*match(frame, wanted, path).values(), *optional.values()}
    return frame, read_dates(table["timestamp"], params, path), released, taken
