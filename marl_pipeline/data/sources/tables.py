"""Files of rows as tables: csv and parquet, whole or refused.

A csv is UTF-8 text (a byte order mark is dropped) separated by commas, semicolons or tabs. In a file separated by
semicolons or tabs whose numbers hold commas and no dots before them, the comma is the decimal sign.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd

from marl_pipeline.data.schema import SPELLINGS, plain
from marl_pipeline.errors import UNREADABLE_PARQUET, UserError

CSV, PARQUET = (".csv", ".tsv", ".txt", ".csv.gz"), (".parquet", ".pq")
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A", "-", "."]
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+")


def kind_of(path: Path) -> str | None:
    """`csv` or `parquet` by the ending of the name, None for any other."""
    name = path.name.lower()
    if name.endswith(CSV):
        return "csv"
    return "parquet" if name.endswith(PARQUET) else None


def read_table(path: Path) -> pd.DataFrame:
    """Reads a file of rows with a header.

    Raises:
        UserError: the file is missing, empty, of unknown ending, no text, ragged, truncated or corrupt.
    """
    kind = kind_of(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a file of rows")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if kind is None:
        raise UserError(f"{path}: unknown kind of file '{path.suffix}'; expected .csv, .csv.gz, .tsv or .parquet")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    return _read_csv(path) if kind == "csv" else _read_parquet(path)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path, engine="pyarrow", partitioning=None)
    except UNREADABLE_PARQUET as error:
        reason = str(error).splitlines()[0][:160]
        raise UserError(
            f"{path}: not a readable parquet file, truncated or corrupt ({reason}); fetch it again"
        ) from None
    named = [name for name in frame.index.names if name is not None]
    if named:
        frame = frame.reset_index(named)
    if frame.empty:
        raise UserError(f"{path}: the file has no rows")
    return frame.reset_index(drop=True)


def _read_csv(path: Path) -> pd.DataFrame:
    text = _text(path)
    first = text.lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    separator = max((",", ";", "\t"), key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=separator))]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise UserError(f"{path}: column '{twice[0]}' stands there twice; keep one")
    _refuse_ragged(path, text, separator, len(header))
    decimal = "," if separator != "," and _decimal_comma(text, separator) else "."
    names = [column for column in header if plain(column) in SPELLINGS["symbol"]]
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=0,
            names=header,
            index_col=False,
            dtype=dict.fromkeys(names, "str"),
            keep_default_na=False,
            na_values={column: [] if column in names else MISSING for column in header},
            decimal=decimal,
            thousands="." if decimal == "," else None,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, ValueError) as error:
        raise UserError(f"{path}: not a table of rows ({' '.join(str(error).split())})") from None
    if frame.empty:
        raise UserError(f"{path}: the file has no rows, only a header")
    return frame.drop(columns=[column for column in header if not column and frame[column].isna().all()])


def _text(path: Path) -> str:
    try:
        data = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: not readable, truncated or corrupt ({error})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    if "\x00" in text:
        raise UserError(f"{path}: not a text file (it holds zero bytes)")
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text


def _refuse_ragged(path: Path, text: str, separator: str, fields: int) -> None:
    """Raises on the first line whose number of fields is not the header's: pandas would fill it silently."""
    if '"' in text:
        rows = csv.reader(io.StringIO(text), delimiter=separator)
        counts = ((rows.line_num, len(row)) for row in rows if row)
        bad = next(((line, count) for line, count in counts if count != fields), None)
    else:
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        ends = np.append(np.flatnonzero(data == ord("\n")), len(data))
        separators = np.flatnonzero(data == ord(separator))
        count = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
        length = np.diff(ends, prepend=-1) - 1
        carriage = np.zeros(len(ends), dtype=bool)
        carriage[length > 0] = data[ends[length > 0] - 1] == ord("\r")
        wrong = (count != fields) & (length - carriage > 0)
        first = int(np.argmax(wrong))
        bad = (first + 1, int(count[first])) if wrong.any() else None
    if bad is not None:
        raise UserError(f"{path}: line {bad[0]} has {bad[1]} fields, the header has {fields}; is the file cut off?")


def _decimal_comma(text: str, separator: str) -> bool:
    """Whether numbers are written as 1.234,5: judged on the first 1000 lines."""
    fields = [field.strip() for line in text.splitlines()[1:1000] for field in line.split(separator)]
    return any(DECIMAL_COMMA.fullmatch(field) for field in fields)
