"""The user's own bars: one file, a folder of files, or `<SYMBOL>/<1Day|1Hour>/data.parquet` as ingest stores them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from marl_pipeline.config import NOT_SET, DataParams
from marl_pipeline.data.schema import SPELLINGS, normalise_bars, plain
from marl_pipeline.data.sources.tables import kind_of, read_table
from marl_pipeline.errors import UserError

FREQUENCIES = ("1Day", "1Hour")


def read_bars(path: Path, params: DataParams) -> pd.DataFrame:
    """The canonical bars of a file or folder, in the order they stand there (files by name).

    A file without a symbol column holds the symbol it is named after (in the stored layout: its folder).

    Raises:
        UserError: nothing there, nothing readable, or a table that is no bars.
    """
    if str(path) in ("", ".", NOT_SET):
        raise UserError(f"data.path is not set; data.source {params.source} needs a file or folder of bars")
    if not path.is_dir():
        return _read_one(path, path.name.split(".", 1)[0], params)
    files = bar_files(path, params.frequency)
    return pd.concat([_read_one(file, symbol, params) for file, symbol in files], ignore_index=True)


def bar_files(folder: Path, frequency: str) -> list[tuple[Path, str]]:
    """The files of bars in `folder` and the symbol each is named after.

    Raises:
        UserError: there are none, or only of another frequency.
    """
    stored = [file for file in sorted(folder.glob("*/*/data.*")) if kind_of(file) and file.parts[-2] in FREQUENCIES]
    if stored:
        wanted = [(file, _unquoted(file.parts[-3])) for file in stored if file.parts[-2] == frequency]
        if not wanted:
            raise UserError(f"{folder}: holds bars of {stored[0].parts[-2]} only; set data.frequency")
        return wanted
    flat = sorted(
        file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".") and kind_of(file)
    )
    if not flat:
        raise UserError(f"{folder}: no .csv or .parquet files here")
    return [(file, file.name.split(".", 1)[0] if kind_of(file) == "csv" else file.stem) for file in flat]


def _read_one(path: Path, symbol: str, params: DataParams) -> pd.DataFrame:
    frame = read_table(path)
    mapped = "symbol" in params.columns.values()
    named = mapped or any(plain(str(name)) in SPELLINGS["symbol"] for name in frame.columns)
    return normalise_bars(frame, params=params, origin=str(path), default_symbol=None if named else symbol)


def _unquoted(folder: str) -> str:
    from urllib.parse import unquote

    return unquote(folder)
