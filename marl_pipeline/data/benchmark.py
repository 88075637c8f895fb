"""The series that a strategy has to beat by buying and holding it: a symbol among the bars or a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.availability import read_dates
from marl_pipeline.data.calendar import known_at
from marl_pipeline.data.companion_columns import DATES, columns_of, utc
from marl_pipeline.data.matching import likely_spelling
from marl_pipeline.data.schema import normalise_bars
from marl_pipeline.data.sources.names import benchmark_symbol, is_set
from marl_pipeline.data.sources.tables import read_table
from marl_pipeline.errors import UserError

FALLBACK = "SPY"
"""Taken from a benchmark file that holds several symbols."""

CARRIED = pd.Timedelta(days=7)
"""How long a close of the benchmark is carried forward: over holidays that the bars do not share, no longer."""


def load_benchmark(params: DataParams, bars: pd.DataFrame) -> tuple[pd.DataFrame | None, str]:
    """The benchmark's closes (timestamp, available_at, close) and its name; None and "" when it is not set.

    A bar counts from its completion. A file of bars with several symbols gives SPY.

    Raises:
        UserError: the symbol is not among the bars, or the file has several symbols without SPY.
    """
    if not is_set(params.benchmark):
        return None, ""
    symbol = benchmark_symbol(params.benchmark)
    if symbol is not None:
        chosen = bars[bars["symbol"] == symbol]
        if chosen.empty:
            meant = likely_spelling(symbol, set(bars["symbol"].unique()))
            hint = f"did you mean '{meant}'?" if meant else "name one that is, or a file of bars"
            raise UserError(f"data.benchmark: '{symbol}' is not among the bars; {hint}")
        return _closes(chosen, params.frequency, params), symbol
    path = params.benchmark
    frame = read_table(Path(path), params)
    written = columns_of(path, {"timestamp": DATES}, frame)["timestamp"]
    dates = read_dates(written, params, path)
    changes: dict[str, object] = {"columns": {}}
    if dates.kind == "day":
        frame = frame.assign(**{str(written.name): dates.moments})
        changes |= {"frequency": "1Day", "timezone": "UTC", "stamp": "start"}  # dates need no zone
    own = params.model_copy(update=changes)
    table = normalise_bars(frame, params=own, origin=path, default_symbol=Path(path).name.split(".", 1)[0])
    names = sorted(table["symbol"].unique())
    if len(names) > 1 and FALLBACK not in names:
        raise UserError(f"{path}: several symbols ({', '.join(names[:5])}); keep the benchmark's bars only")
    name = names[0] if len(names) == 1 else FALLBACK
    return _closes(table[table["symbol"] == name], own.frequency, own), name


def _closes(bars: pd.DataFrame, frequency: str, params: DataParams) -> pd.DataFrame:
    kept = bars[np.isfinite(bars["close"]) & (bars["close"] > 0.0)].drop_duplicates("timestamp")
    available = known_at(kept["timestamp"], frequency, params.calendar)
    columns = {"timestamp": kept["timestamp"].to_numpy(), "close": kept["close"].to_numpy()}
    table = pd.DataFrame(
        {
            "timestamp": kept["timestamp"].array,
            "available_at": utc(available),
            "expires_at": utc(available) + CARRIED,
            "close": columns["close"],
        }
    )
    return table.sort_values("timestamp", kind="stable").reset_index(drop=True)
