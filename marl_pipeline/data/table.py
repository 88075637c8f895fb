"""A table as somebody wrote it, with the decisions that are made once for all of it: how its numbers and dates read.

Files of bars and companions alike are read through it: `numbers`, `stamps` and `symbols` give typed columns, and what
cannot be read is refused with the user's own column and line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from marl_pipeline.data.dataset import FloatArray
from marl_pipeline.data.number_format import (
    NOTHING,
    PLAIN,
    Circumstances,
    NumberFormat,
    infer_format,
    is_numeric,
    number_format,
    parse_numbers,
)
from marl_pipeline.data.timestamps import LINE, Stamps, companion_timestamps, parse_timestamps, row_of
from marl_pipeline.errors import UserError

INVISIBLE = "[\u200b-\u200f\u2060\ufeff\u00ad]"
"""Characters without width that web pages leave in copied text: two symbols that look alike would be two."""
DATE_LIKE = r"^\s*[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}"
DOTTED_DATE = r"^\s*[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{2,4}"


@dataclass(frozen=True)
class Table:
    """K rows under the names that they bear in the file.

    Attributes:
        frame: texts as they stand there (dtype str) or the types of a Parquet file; an index named `line` holds the
            lines of a text file.
        origin: names the input in errors.
        separator: between the cells of a text; empty for others.
        quoted: numbers of the text stand between quotes.
        layout: of whose files this is one, such as `MetaTrader`; empty if of nobody's.
        zone: the zone that the layout is known to write times in.
        meaning: canonical name -> column, where the layout decides it.
        fixed: the format of numbers that the layout is known to have.
        asked_numbers: `data.number_format`.
        asked_dates: `data.date_format`.
        companion: the parameters are of the bars: they count only for what this file itself leaves open.
        notes: what was left out or chosen while reading, in words.
    """

    frame: pd.DataFrame
    origin: str
    separator: str = ""
    quoted: bool = False
    layout: str = ""
    zone: str | None = None
    meaning: Mapping[str, str] = field(default_factory=dict)
    fixed: NumberFormat | None = None
    asked_numbers: str | None = None
    asked_dates: str | None = None
    companion: bool = False
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.frame.columns]

    @cached_property
    def format(self) -> NumberFormat:
        """How numbers are written, by all cells of all columns that hold nothing but numbers.

        Raises:
            UserError: the file leaves it open; `data.number_format` decides.
        """
        if self.asked_numbers is None:
            return self._inferred()
        asked = number_format(self.asked_numbers)
        if not self.companion:
            return asked
        try:
            return self._inferred()
        except UserError:
            return asked

    def _inferred(self) -> NumberFormat:
        texts = {name: cells_of(self.frame[name]) for name in self.frame.columns if is_text(self.frame[name])}
        dotted = any(_begins(cells, DOTTED_DATE) for cells in texts.values())
        numeric = {
            str(name): cells for name, cells in texts.items() if not _begins(cells, DATE_LIKE) and is_numeric(cells)
        }
        if not numeric:
            return self.fixed or PLAIN
        return infer_format(numeric, self.origin, Circumstances(self.separator, self.quoted, dotted, self.fixed))

    def numbers(self, name: str) -> FloatArray:
        """[K] float64 of a column, NaN where a cell holds nothing.

        Raises:
            UserError: a cell that is not a number; its line is named.
        """
        values = self.frame[name]
        if not is_text(values):
            return typed_numbers(values, self.origin)
        found, bad = parse_numbers(cells_of(values), self.format)
        if bad is not None:
            mask = np.arange(len(values)) == bad
            written = "" if self.format == PLAIN else f" (numbers are written as {self.format.written} here)"
            raise UserError(
                f"{self.origin}: column '{name}': {str(values.iloc[bad])!r} in {row_of(values, mask)} is not a number"
                f"{written}"
            )
        return found

    def stamps(self, name: str) -> Stamps:
        """The dates or moments of a column: `Stamps.dates` tells one from the other.

        Raises:
            UserError: a cell that is none, or dates whose order the column leaves open (`data.date_format`).
        """
        values = blank_to_null(self.frame[name])
        if self.companion:
            return companion_timestamps(values, self.origin, self.asked_dates)
        return parse_timestamps(values, self.origin, self.asked_dates)

    def symbols(self, name: str) -> pd.Series:
        """Names as they are written, without surrounding blanks."""
        return symbols(self.frame[name], self.origin)

    def figures(self, taken: Collection[str] = ()) -> dict[str, FloatArray]:
        """Every column but those `taken` whose cells are numbers, name -> [K] float64.

        Raises:
            UserError: a column of numbers in which some cell is none; columns of words only are left out.
        """
        return {
            name: self.numbers(name)
            for name in self.names
            if name not in taken and self.holds_numbers(name) and not self.holds_dates(name)
        }

    def holds_numbers(self, name: str) -> bool:
        """Whether the column is one of numbers: more than half of what its cells hold."""
        values = self.frame[name]
        if not is_text(values):
            return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))
        cells = cells_of(values)
        if is_numeric(cells):
            return True
        kept = pc.drop_null(present(cells))
        sample = kept.slice(0, 1000)
        return len(kept) > 0 and sum(is_numeric(sample.slice(row, 1)) for row in range(len(sample))) > len(sample) / 2

    def holds_dates(self, name: str) -> bool:
        """Whether the column is one of dates: moments by type, or texts and counts that read as dates under the name
        of one."""
        values = self.frame[name]
        if pd.api.types.is_datetime64_any_dtype(values):
            return True
        if is_text(values) and _begins(cells_of(values), DATE_LIKE):
            return True
        if not re.search(r"date|time|day|month|period|quarter|year", str(name), re.IGNORECASE):
            return False
        try:
            kept = blank_to_null(values).dropna()
            return len(kept) > 0 and parse_timestamps(kept, self.origin).moments is not None
        except UserError:
            return False

    def holds_moments(self, name: str) -> bool:
        """Whether every cell of the column reads as a date or moment."""
        if pd.api.types.is_bool_dtype(self.frame[name]):
            return False
        try:
            self.stamps(name)
        except UserError:
            return False
        return True

    def counts_since_1970(self, name: str) -> bool:
        """Whether the column counts s, ms, us or ns since 1970."""
        if not re.match(r"\s*\d{9,19}(\.\d+)?\s*$", str(self.frame[name].iloc[0])):
            return False
        cells = self.frame[name].astype("str").str.strip()
        return (
            bool(cells.str.fullmatch(r"\d{9,19}(\.\d+)?").all())
            and self.holds_moments(name)
            and self.stamps(name).aware
        )


def is_text(values: pd.Series) -> bool:
    """Whether a column holds texts (or objects, such as decimals and dates of Python)."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return is_text(values.cat.categories.to_series())
    return bool(pd.api.types.is_string_dtype(values) or pd.api.types.is_object_dtype(values))


def cells_of(values: pd.Series) -> Any:
    """A column as a pyarrow array of strings."""
    if pd.api.types.is_object_dtype(values) or isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object).map(lambda value: None if value is None or value != value else str(value))
    array = pa.array(values, from_pandas=True)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def present(cells: Any) -> Any:
    """Cells, null where they hold nothing or a word that stands for it."""
    text = pc.utf8_trim_whitespace(cells)
    return pc.if_else(pc.is_in(pc.utf8_lower(text), value_set=pa.array(NOTHING)), pa.scalar(None, pa.string()), text)


def blank_to_null(values: pd.Series) -> pd.Series:
    """The column with missing values where its texts are blank."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    if not pd.api.types.is_string_dtype(values) or pd.api.types.is_object_dtype(values):
        return values
    blank = values.str.strip() == ""
    return values.mask(blank.fillna(False)) if bool(blank.any()) else values


def typed_numbers(values: pd.Series, origin: str) -> FloatArray:
    """[K] float64 of a column of numbers."""
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        raise UserError(f"{origin}: column '{values.name}' holds {values.dtype}, not numbers")
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def symbols(values: pd.Series, origin: str) -> pd.Series:
    """Names as text without surrounding blanks, numbered from 0.

    Raises:
        UserError: a row without one, or names that are truths or fractions.
    """
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_float_dtype(values):
        raise UserError(f"{origin}: column '{values.name}' holds {values.dtype}, not names; store symbols as text")
    names = values.astype("str").str.replace(INVISIBLE, "", regex=True).str.strip()
    missing = (values.isna() | (names == "")).to_numpy()
    if missing.any():
        raise UserError(f"{origin}: column '{values.name}': {row_of(values, missing)} has no symbol")
    return names.reset_index(drop=True)


def _begins(cells: Any, pattern: str) -> bool:
    """Whether the first cell that holds something matches."""
    for text in cells.slice(0, 50).to_pylist():
        if text is not None and text.strip():
            return bool(re.match(pattern, text))
    return False


__all__ = ["LINE", "Table", "cells_of", "is_text", "present", "symbols"]
