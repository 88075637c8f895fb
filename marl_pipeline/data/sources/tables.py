"""Files of rows as tables, whole or refused: text in any usual dress, and Parquet."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from marl_pipeline.config import DataParams
from marl_pipeline.data.schema import SPELLINGS, plain
from marl_pipeline.data.sources import cells as cut
from marl_pipeline.data.sources.containers import PARQUET, Member, unpack
from marl_pipeline.data.sources.layouts import arrange
from marl_pipeline.data.sources.text import lines_of
from marl_pipeline.data.table import LINE, Table, cells_of, is_text, present
from marl_pipeline.errors import UNREADABLE_PARQUET, UserError


def open_table(path: Path, params: DataParams | None = None) -> Table:
    """Reads the one table in a file beside the bars; `data.number_format` and `data.date_format` of `params` decide
    what the file itself leaves open.

    Columns keep their names and cells stay what they are; `Table.numbers`, `.stamps`, `.symbols` and `.figures` type
    them by the rules of the whole file.

    Raises:
        UserError: the file is missing, empty, of unknown ending, no text, ragged, truncated or corrupt.
    """
    members = unpack(path)
    if len(members) > 1:
        names = ", ".join(member.name for member in members[:3])
        raise UserError(
            f"{path}: holds {len(members)} files ({names}{', ...' if len(members) > 3 else ''}), expected one"
        )
    return replace(table_of(members[0], params), companion=True)


def table_of(member: Member, params: DataParams | None = None) -> Table:
    """The table in a member's bytes."""
    notes: tuple[str, ...] = ()
    quoted = False
    if member.name.lower().endswith(PARQUET):
        frame, separator = _parquet(member), ""
    else:
        cells = cut.cells_of(lines_of(member), member.origin)
        frame, separator, quoted, notes = _frame(cells), cells.separator, cells.quoted, cells.notes
    table = Table(
        frame,
        member.origin,
        separator=separator,
        quoted=quoted,
        asked_numbers=params.number_format if params else None,
        asked_dates=params.date_format if params else None,
        notes=notes,
    )
    return arrange(table, member)


def read_table(path: Path, params: DataParams | None = None) -> pd.DataFrame:
    """The same as a plain frame: columns of numbers as float64, others as they are."""
    table = open_table(path, params)
    twice = sorted({name for name in table.names if table.names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: column '{twice[0]}' stands there twice; keep one")
    frame = table.frame.copy()
    named = [name for name in table.names if plain(name) in SPELLINGS["symbol"]]
    dated = [name for name in table.names if plain(name) in SPELLINGS["timestamp"]]
    figures = table.figures([*named, *dated])
    for name in table.names:
        if name in figures:
            frame[name] = figures[name]
        elif name not in named and is_text(frame[name]):
            frame[name] = pd.Series(present(cells_of(frame[name])).to_pandas().array, index=frame.index)
    return frame


def _parquet(member: Member) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(io.BytesIO(member.data), engine="pyarrow", partitioning=None)
    except UNREADABLE_PARQUET as error:
        reason = str(error).splitlines()[0][:160]
        raise UserError(
            f"{member.origin}: not a readable parquet file, truncated or corrupt ({reason}); fetch it again"
        ) from None
    if not len(frame):
        raise UserError(f"{member.origin}: the file has no rows")
    levels = [
        level for level, name in enumerate(frame.index.names) if name is not None or not _counts(frame.index, level)
    ]
    names = ["" if frame.index.names[level] is None else frame.index.names[level] for level in levels]
    index = [frame.index.get_level_values(level) for level in levels]
    frame = frame.reset_index(drop=True)
    for place, (name, values) in enumerate(zip(names, index, strict=True)):
        label = f"Unnamed: {place}" if name == "" else name
        key = (label, *[""] * (frame.columns.nlevels - 1)) if frame.columns.nlevels > 1 else label
        frame.insert(place, key, values)
    return frame


def _counts(index: pd.Index, level: int) -> bool:
    """Whether a nameless level of the index just numbers the rows."""
    return index.nlevels == 1 and (isinstance(index, pd.RangeIndex) or pd.api.types.is_integer_dtype(index.dtype))


def _frame(cells: cut.Cells) -> pd.DataFrame:
    """Texts under the names of the header (unnamed ones as pandas shows them), rows labelled by their lines."""
    count = len(cells.columns)
    frame: pd.DataFrame = pa.table(cells.columns, names=[str(place) for place in range(count)]).to_pandas()
    frame.index = pd.Index(cells.lines, name=LINE)
    if not cells.header:
        frame.columns = pd.RangeIndex(count)
    elif len(cells.header) == 1:
        frame.columns = pd.Index([name or f"Unnamed: {place}" for place, name in enumerate(cells.header[0])])
    else:
        frame.columns = pd.MultiIndex.from_arrays([list(line) for line in cells.header])
    return frame
