"""Columns of companion files: which is which, days, and the columns of figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import FloatArray, TimeArray
from marl_pipeline.data.schema import SPELLINGS, found, match, numbers, plain
from marl_pipeline.data.sources.tables import read_table
from marl_pipeline.data.timestamps import parse_timestamps
from marl_pipeline.errors import UserError

DATES = (*SPELLINGS["timestamp"], "observationdate", "asof", "asofdate", "day")
PERIOD_NAMES = ("period", "referenceperiod", "referencedate", "refperiod", "refdate", "month", "quarter", "year")
RELEASES = (
    "released",
    "releasedate",
    "releasedat",
    "release",
    "realtimestart",
    "vintage",
    "vintagedate",
    "published",
    "publishedat",
    "publicationdate",
    "announced",
    "announcementdate",
    "availableat",
    "availablefrom",
    "knownat",
)
"""Names of the column that says when a row was released."""

CALENDAR_NAMES = (
    *DATES,
    *PERIOD_NAMES,
    *RELEASES,
    "realtimeend",
    "weekday",
    "dayofweek",
    "week",
    "hour",
    "index",
)
"""Columns that are about time or order and never figures."""

AMOUNT = re.compile(r"[\s$\u20ac\u00a3\u00a5(+-]*\.?\d.*")
WRITTEN_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?|\d{4}-\d{2}|\d{4}-?Q[1-4]")


def columns_of(
    path: str, wanted: Mapping[str, tuple[str, ...]], frame: pd.DataFrame | None = None
) -> dict[str, pd.Series]:
    """The wanted columns of a file by our names; each keeps the name it has there, for errors.

    Raises:
        UserError: one of them is missing.
    """
    table = read_table(Path(path)) if frame is None else frame
    chosen = match(table, wanted, path)
    missing = [name for name in wanted if name not in chosen]
    if missing:
        raise UserError(f"{path}: column '{missing[0]}' is missing ({found(table)})")
    return {ours: table[theirs] for ours, theirs in chosen.items()}


def figures_in(
    frame: pd.DataFrame, path: str, taken: set[str], parameter: str, notes: list[str]
) -> dict[str, FloatArray]:
    """Every column of numbers but those taken and those that hold dates; what is left out is noted.

    Raises:
        UserError: there is none, or a column holds numbers and something that is none.
    """
    figures, dates, texts = {}, [], []
    for name in map(str, frame.columns):
        column = frame[name]
        if name in taken:
            continue
        if holds_dates(column):
            dates.append(name)
        elif holds_texts(column):
            texts.append(name)
        else:
            figures[name] = numbers(column, path)
    if not figures:
        raise UserError(f"{path}: no column of numbers ({found(frame)})")
    notes += [f"{parameter}: column '{name}' holds dates and is no figure" for name in dates]
    notes += [f"{parameter}: column '{name}' holds texts and is left out" for name in texts]
    return figures


def holds_dates(column: pd.Series) -> bool:
    """Whether a column is about time, by its name or by its values: a date must never become a figure."""
    if plain(str(column.name)) in CALENDAR_NAMES or pd.api.types.is_datetime64_any_dtype(column):
        return True
    if isinstance(column.dtype, pd.PeriodDtype):
        return True
    there = column.dropna()
    if not len(there) or pd.api.types.is_bool_dtype(column):
        return False
    if not pd.api.types.is_numeric_dtype(column):
        return bool(there.astype(str).str.strip().str.fullmatch(WRITTEN_DATE).all())
    values = there.to_numpy(dtype=np.float64)
    if not (values == np.rint(values)).all():
        return False
    if ((values >= 1.8e7) & (values < 2.2e7)).all():
        days = pd.to_datetime(there.astype(np.int64).astype(str), format="%Y%m%d", errors="coerce")
        return bool(days.notna().all())
    counts = any(((values >= low) & (values < 3 * low)).all() for low in (7e8, 7e11, 7e14, 7e17))
    named = re.search(r"(?i)date|time|epoch|stamp|unix|^(ts|dt|t|as_?of)$", str(column.name))
    return counts and bool(named)


def holds_texts(column: pd.Series) -> bool:
    """Whether no cell of a column begins like a number."""
    if pd.api.types.is_bool_dtype(column):
        return True
    if pd.api.types.is_numeric_dtype(column):
        return False
    return not column.dropna().astype(str).str.fullmatch(AMOUNT).any()


def days_of(written: pd.Series, path: str) -> pd.Series:
    """datetime64[us, UTC] midnight of the written days, NaT where blank."""
    blank = written.isna() | (written.astype("str").str.strip() == "")
    days = pd.Series(pd.NaT, index=range(len(written)), dtype="datetime64[us, UTC]")
    if not blank.all():
        stamps = parse_timestamps(written[~blank], path)
        days[~blank.to_numpy()] = utc(stamps.moments.astype("datetime64[D]").astype("datetime64[us]"))
    return days


def utc(moments: TimeArray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(moments.astype("datetime64[us]")).tz_localize("UTC")
