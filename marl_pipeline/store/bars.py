"""Bars and companions on disk, in bytes that depend on their content only.

`data/historical/<SYMBOL>/<1Day|1Hour>/data.parquet` holds one symbol's bars in the order they came;
`data/companions/<name>.parquet` one companion, `info.json` what is known about the source.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd

from marl_pipeline.data.companions import TABLES, Companions
from marl_pipeline.data.matching import refuse_case_clash
from marl_pipeline.data.schema import COLUMNS, TIMESTAMP_DTYPE
from marl_pipeline.errors import UserError

UNSAFE = re.compile(r"[^A-Za-z0-9_.\-^]")
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def folder_name(symbol: str) -> str:
    """The symbol as a folder name on any system; `symbol_name` reverses it. What is unsafe is percent-encoded."""
    safe = UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), symbol)
    if safe[0] == "." or RESERVED.fullmatch(safe):
        safe = f"%{ord(safe[0]):02X}{safe[1:]}"
    return safe[:-1] + "%2E" if safe.endswith(".") else safe


def symbol_name(folder: str) -> str:
    """The symbol that `folder_name` stored."""
    return unquote(folder)


def save_bars(folder: Path, bars: pd.DataFrame, frequency: str) -> None:
    """Writes the canonical bars, one file per symbol, each in the order of its rows.

    Raises:
        UserError: two symbols differ by case only (one folder on some systems).
    """
    names = sorted(bars["symbol"].unique())
    refuse_case_clash(names)
    codes = pd.Categorical(bars["symbol"], categories=names).codes
    by_symbol = bars.groupby(codes, sort=True).indices
    for code, name in enumerate(names):
        file = folder / folder_name(name) / frequency / "data.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_table(file, bars.iloc[by_symbol[code]])


def load_bars(folder: Path, frequency: str) -> pd.DataFrame:
    """The bars that `save_bars` wrote: symbols sorted, each one's rows in their order.

    Raises:
        UserError: the folder holds no bars of this frequency.
    """
    files = sorted(folder.glob(f"*/{frequency}/data.parquet"), key=lambda file: symbol_name(file.parts[-3]))
    if not files:
        raise UserError(f"{folder}: no bars of frequency {frequency} here; run the stage ingest first")
    table = pd.concat([load_table(file) for file in files], ignore_index=True)
    return table[list(COLUMNS)].astype({"symbol": "str", "timestamp": TIMESTAMP_DTYPE})


def save_companions(folder: Path, companions: Companions, info: Mapping[str, Any]) -> None:
    """Writes the tables that are set and `info.json`: `info` and the benchmark's name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        if (table := getattr(companions, name)) is not None:
            save_table(folder / f"{name}.parquet", table)
    text = json.dumps({**info, "benchmark": companions.benchmark_name}, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "info.json").write_text(text + "\n", encoding="utf-8")


def load_companions(folder: Path) -> Companions:
    """The companions that `save_companions` wrote."""
    tables = {name: folder / f"{name}.parquet" for name in TABLES}
    found: dict[str, Any] = {name: load_table(file) if file.exists() else None for name, file in tables.items()}
    return Companions(**found, benchmark_name=str(load_info(folder)["benchmark"]))


def load_info(folder: Path) -> dict[str, Any]:
    """What `ingest` wrote about the source: `source`, `frequency`, `adjustment`, `benchmark`, `symbols` (rows each).

    Raises:
        UserError: there is none.
    """
    try:
        info: dict[str, Any] = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder / 'info.json'}: no such file; run the stage ingest first") from None
    return info


def save_table(file: Path, table: pd.DataFrame) -> None:
    """One table as parquet: zstd, no index, bytes that depend on the content only."""
    table.reset_index(drop=True).to_parquet(file, index=False, compression="zstd", engine="pyarrow")


def load_table(file: Path) -> pd.DataFrame:
    """One table that `save_table` wrote, its moments in datetime64[us]."""
    return pd.read_parquet(file, engine="pyarrow")


def replace_table(file: Path, table: pd.DataFrame) -> None:
    """Writes one table as `save_table` does, whole or not at all.

    Raises:
        UserError: there is no such folder, or it cannot be written to.
    """
    partial = file.with_name(f".partial-{file.name}")
    try:
        save_table(partial, table)
        os.replace(partial, file)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)
