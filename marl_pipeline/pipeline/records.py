"""Walk-forward records and track records on disk, in bytes that depend on their content only."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.records import TABLES, Curve, Record
from marl_pipeline.store.paths import WALK_FORWARD

EQUITY = Path("reports/equity.parquet")
TRADES = Path("reports/trades.parquet")
EVENTS = Path("reports/corporate_events.parquet")
BASELINES = Path("reports/baselines.parquet")
"""The chained track records with their fills and corporate actions, and the baselines' accounts."""


def record_folder(strategy: str, window: int, seed: int, root: Path = WALK_FORWARD) -> Path:
    """Where the record of one strategy, window and seed lies."""
    return root / strategy / f"window_{window}_seed_{seed}"


def save_record(folder: Path, record: Record) -> None:
    """Writes one parquet file for each table of the record and `tuning.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        save_table(folder / f"{name}.parquet", getattr(record, name))
    tuning = {
        "window": record.window,
        "seed": record.seed,
        "initial_cash": record.initial_cash,
        "curves": [curve.as_json() for curve in record.tuning],
    }
    (folder / "tuning.json").write_text(json.dumps(tuning, indent=1, allow_nan=False) + "\n")


def load_record(folder: Path) -> Record:
    """Reads what `save_record` wrote.

    Raises:
        UserError: the folder or one of its files is missing.
    """
    try:
        tuning = json.loads((folder / "tuning.json").read_text())
        tables = {name: load_table(folder / f"{name}.parquet") for name in TABLES}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or folder}: no walk-forward record here; run `dvc repro` first") from None
    return Record(
        window=int(tuning["window"]),
        seed=int(tuning["seed"]),
        initial_cash=float(tuning["initial_cash"]),
        tuning=tuple(Curve.from_json(curve) for curve in tuning["curves"]),
        **tables,
    )


def save_table(path: Path, table: pd.DataFrame) -> None:
    """One table as parquet: zstd, no index; its moments, which are in UTC, say so."""
    naive = list(table.select_dtypes("datetime").columns)
    table.assign(**{name: table[name].dt.tz_localize("UTC") for name in naive}).to_parquet(
        path, index=False, compression="zstd"
    )


def load_table(path: Path) -> pd.DataFrame:
    """Reads what `save_table` wrote, moments without their zone (UTC).

    Raises:
        FileNotFoundError: it is not there.
    """
    table: pd.DataFrame = pd.read_parquet(path)
    zoned = list(table.select_dtypes("datetimetz").columns)
    return table.assign(**{name: table[name].dt.tz_localize(None) for name in zoned})
