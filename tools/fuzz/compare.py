"""What came of reading a file: equal to its truth, refused, silently wrong, or a crash."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from marl_pipeline.config import load_params
from marl_pipeline.data.sources.files import read_bars
from marl_pipeline.errors import UserError
from tools.fuzz.files import DESTROYED, Written

PARAMS = load_params(Path(__file__).parents[2] / "profiles" / "quickstart.yaml").data


@dataclass(frozen=True)
class Outcome:
    """`kind` and, unless equal, the refusal or the first difference in words."""

    kind: Literal["equal", "refused", "wrong", "crash"]
    words: str = ""


def outcome(written: Written, folder: Path) -> Outcome:
    """Reads the file as a user would and compares every value exactly."""
    path = folder / written.name
    path.write_bytes(written.data)
    try:
        bars = read_bars(path, PARAMS.model_copy(update={**written.params, "path": str(path)}))
    except UserError as error:
        lines = str(error).splitlines()
        return Outcome("refused", str(error)) if len(lines) == 1 else Outcome("crash", f"{len(lines)} lines: {error}")
    except Exception:
        return Outcome("crash", traceback.format_exc())
    finally:
        path.unlink()
    difference = differs(bars, written.truth)
    if difference and written.style["accident"] in DESTROYED:
        difference = f"a file that is not whole was read: {difference}"
    return Outcome("wrong", difference) if difference else Outcome("equal")


def differs(bars: pd.DataFrame, truth: pd.DataFrame) -> str:
    """The first difference in words; empty if there is none."""
    bars = bars.sort_values(["symbol", "timestamp"], kind="stable").reset_index(drop=True)
    if len(bars) != len(truth):
        return f"{len(bars)} rows for {len(truth)}"
    for name in truth.columns:
        read, meant = bars[name], truth[name]
        if name in ("symbol", "timestamp"):
            alike = (read.to_numpy() == meant.to_numpy()).astype(bool)
        else:
            alike = (read.to_numpy() == meant.to_numpy()) | (np.isnan(read.to_numpy()) & np.isnan(meant.to_numpy()))
        if not alike.all():
            place = int(np.argmin(alike))
            return f"{name} of row {place}: {read.iloc[place]!r} for {meant.iloc[place]!r}"
    return ""
