"""The user's own bars: one file, a folder of files, or `<SYMBOL>/<1Day|1Hour>/data.parquet` as ingest stores them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
import pandas as pd

from marl_pipeline.config import NOT_SET, DataParams
from marl_pipeline.data.schema import Reading, bars_of
from marl_pipeline.data.sources.containers import EXPECTED, OTHERS, Member, is_hidden, is_ignored, kind_of, unpack
from marl_pipeline.data.sources.filenames import symbol_of, year_of
from marl_pipeline.data.sources.layouts import as_rows
from marl_pipeline.data.sources.tables import table_of
from marl_pipeline.errors import UserError

FREQUENCIES = ("1Day", "1Hour")


@dataclass(frozen=True)
class BarsRead:
    """Bars as understood.

    Attributes:
        bars: canonical ones, in the order they stand in the files (files by name).
        readings: how each file was read.
    """

    bars: pd.DataFrame
    readings: tuple[Reading, ...]

    @property
    def profile(self) -> dict[str, object]:
        """The keys of section `data` that decide what the files themselves decided here, where all agree."""
        keys: dict[str, object] = {}
        for key in ("number_format", "date_format", "stamp"):
            values = {reading.profile().get(key) for reading in self.readings}
            if len(values) == 1 and (value := values.pop()) is not None:
                keys[key] = value
        return keys

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or chosen, each once, with the first file it happened in."""
        first: dict[str, str] = {}
        count: dict[str, int] = {}
        for reading in self.readings:
            for note in reading.notes:
                first.setdefault(note, reading.origin)
                count[note] = count.get(note, 0) + 1
        more = {note: f" and {count[note] - 1} more" if count[note] > 1 else "" for note in first}
        return tuple(f"{Path(origin).name}{more[note]}: {note}" for note, origin in first.items())


def read_bars(path: Path, params: DataParams) -> pd.DataFrame:
    """The canonical bars of a file or folder; see `understand_bars`."""
    return understand_bars(path, params).bars


def understand_bars(path: Path, params: DataParams) -> BarsRead:
    """The canonical bars of a file or folder, in the order they stand there (files by name), and how they were read.

    A file without a symbol column holds the symbol it is named after (in the stored layout: its folder).

    Raises:
        UserError: nothing there, nothing readable, or a table that is no bars.
    """
    if str(path) in ("", ".", NOT_SET):
        raise UserError(f"data.path is not set; data.source {params.source} needs a file or folder of bars")
    files = bar_files(path, params.frequency) if path.is_dir() else [BarFile(path, path.name)]
    read = [part for file in files for part in _read_file(file, params)]
    if len(read) == 1:
        bars = read[0][0]
    else:
        _refuse_conflicts(read)
        bars = pd.concat([part for part, _ in read], ignore_index=True)
    return BarsRead(bars, tuple(reading for _, reading in read))


@dataclass(frozen=True)
class BarFile:
    """A file of bars: where it is, its path below the folder, and the symbol that the stored layout names."""

    path: Path
    below: str
    symbol: str | None = None


def bar_files(folder: Path, frequency: str) -> list[BarFile]:
    """The files of bars in `folder` and below it.

    Raises:
        UserError: there are none, or only of another frequency, or one of a kind that is not read.
    """
    stored = [file for file in sorted(folder.glob("*/*/data.*")) if kind_of(file) and file.parts[-2] in FREQUENCIES]
    if stored:
        wanted = [BarFile(file, file.name, unquote(file.parts[-3])) for file in stored if file.parts[-2] == frequency]
        if not wanted:
            raise UserError(f"{folder}: holds bars of {stored[0].parts[-2]} only; set data.frequency")
        return wanted
    found = []
    for file in sorted(folder.rglob("*")):
        below = PurePosixPath(file.relative_to(folder))
        if file.is_dir() or is_hidden(below) or is_ignored(file.name):
            continue
        if kind_of(file) not in ("text", "parquet", "zip"):
            what = f", {OTHERS[file.suffix.lower()]}," if file.suffix.lower() in OTHERS else ""
            raise UserError(f"{folder}: holds {below}{what} which is not read; {EXPECTED}; move it or convert it")
        partition = re.search(r"(?:^|/)(?:symbol|ticker)=([^/]+)/", str(below))
        found.append(BarFile(file, str(below), unquote(partition[1]) if partition else None))
    if not found:
        raise UserError(f"{folder}: no .csv or .parquet files here")
    return found


def _read_file(file: BarFile, params: DataParams) -> Iterator[tuple[pd.DataFrame, Reading]]:
    members = unpack(file.path)
    for member in members:
        yield read_member(member, params, file.below if len(members) == 1 else member.name, file.symbol)


def read_member(
    member: Member, params: DataParams, name: str, symbol: str | None = None
) -> tuple[pd.DataFrame, Reading]:
    """The canonical bars of one table and how it was read.

    Args:
        member: its bytes.
        params: of the data.
        name: that a symbol is looked for in, if there is no column of symbols.
        symbol: the one that is known to be meant then.
    """
    table = as_rows(table_of(member, params), params.columns)
    bars, reading = bars_of(table, params=params, default_symbol=symbol or "")
    if symbol is not None or "symbol" in reading.columns.values():
        return bars, reading
    symbol, note = symbol_of(name, member.origin, params.file_name)
    bars["symbol"] = pd.Series(symbol, index=bars.index, dtype="str")
    reading = replace(reading, notes=(note, *reading.notes) if note else reading.notes)
    year = year_of(name) if params.file_name is None else None
    if year is not None and not (bars["timestamp"].dt.year - year).abs().le(1).all():
        raise UserError(
            f"{member.origin}: is named {name} and holds bars of other years; say with data.file_name where the symbol "
            "stands"
        )
    return bars, reading


def _refuse_conflicts(read: list[tuple[pd.DataFrame, Reading]]) -> None:
    """Raises if two files that were named after one symbol hold different bars for one moment."""
    named: dict[str, list[tuple[pd.DataFrame, Reading]]] = {}
    for part, reading in read:
        if "symbol" not in reading.columns.values():
            named.setdefault(str(part["symbol"].iloc[0]), []).append((part, reading))
    for symbol, parts in named.items():
        if len(parts) < 2:
            continue
        closes = pd.concat([part[["timestamp", "close"]] for part, _ in parts])
        spread = closes.groupby("timestamp")["close"].agg(["min", "max"])
        differing = ~np.isclose(spread["min"], spread["max"], rtol=1e-9, equal_nan=True)
        if differing.mean() > 0.5:
            first = spread.index[int(np.argmax(differing))]
            raise UserError(
                f"{parts[0][1].origin} and {Path(parts[1][1].origin).name}: are both named after {symbol} and differ "
                f"(first at {first}); add a column symbol or set data.file_name"
            )
