"""Parameters and small tables for the tests of sources and companions."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from marl_pipeline.config import DataParams, load_params

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MARL_SHARED_DATA", ROOT.parent / "shared" / "data"))


@lru_cache
def quickstart() -> DataParams:
    return load_params(ROOT / "profiles" / "quickstart.yaml").data


def data_params(**changes: Any) -> DataParams:
    """The quickstart's section `data` without start, in which `changes` are made."""
    return quickstart().model_copy(update={"start": None, **changes})


def daily(**columns: Any) -> pd.DataFrame:
    """Two days of two symbols in the canonical names, dates as text in New York's zone."""
    table = {
        "symbol": ["A", "A", "B", "B"],
        "timestamp": ["2024-01-02", "2024-01-03"] * 2,
        "open": [1.0, 2.0, 3.0, 4.0],
        "high": [1.5, 2.5, 3.5, 4.5],
        "low": [0.5, 1.5, 2.5, 3.5],
        "close": [1.2, 2.2, 3.2, 4.2],
        "volume": [100.0, 200.0, 300.0, 400.0],
    }
    return pd.DataFrame(table | columns)
