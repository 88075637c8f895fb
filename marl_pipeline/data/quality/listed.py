"""What the corporate actions put into the prices: the steps that are expected and are no finding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.data.calendar import utc_array
from marl_pipeline.data.dataset import BoolArray, FloatArray
from marl_pipeline.data.quality.table import SortedBars


@dataclass(frozen=True)
class Listed:
    """[n] by row of the sorted bars.

    Attributes:
        step: log step that the actions put into the price at the row, 0 for none.
        split: new shares for one old of the splits that the prices should show at the row, 1 for none.
    """

    step: FloatArray
    split: FloatArray


def expected_steps(bars: SortedBars, valid: BoolArray, actions: pd.DataFrame | None, adjustment: str) -> Listed:
    """Finds the first valid row on or after each ex-date, and what the action does there to prices that do not contain
    it yet: a split divides them, a dividend D takes D off the close before.

    Args:
        actions: symbol, ex_date, kind (`split`, `dividend`), value; None for none.
        adjustment: `none` (prices contain nothing: splits and dividends are steps), `split` (dividends are), `total`.
    """
    step, split = np.zeros(len(bars)), np.ones(len(bars))
    rows = np.flatnonzero(valid)
    if actions is None or adjustment == "total" or not len(rows):
        return Listed(step, split)
    kinds = ["split", "dividend"] if adjustment == "none" else ["dividend"]
    table = actions[actions["kind"].isin(kinds) & actions["symbol"].isin(bars.names) & (actions["value"] > 0)]
    code = np.searchsorted(bars.names, table["symbol"].to_numpy(dtype=str))
    day = utc_array(table["ex_date"]).astype("datetime64[D]")
    session = bars.session[rows]
    date = np.where(session >= 0, bars.days.session[session], bars.stamp[rows]).astype("datetime64[D]")
    width = np.int64(1_000_000)
    key = bars.symbol[rows] * width + date.astype(np.int64)
    place = np.searchsorted(key, code * width + day.astype(np.int64))
    here = (place > 0) & (place < len(rows))
    here[here] = (bars.symbol[rows[place[here]]] == code[here]) & (bars.symbol[rows[place[here] - 1]] == code[here])
    kind, value = table["kind"].to_numpy(dtype=str)[here], table["value"].to_numpy(dtype=np.float64)[here]
    place = place[here]
    at = rows[place]
    np.multiply.at(split, at[kind == "split"], value[kind == "split"])
    paid = np.zeros(len(bars))
    np.add.at(paid, at[kind == "dividend"], value[kind == "dividend"])
    before = np.full(len(bars), np.inf)
    before[at] = bars.values["close"][rows[place - 1]] / split[at]
    left = np.maximum(1.0 - paid / before, 1e-6)
    step[at] = np.log(left[at]) - np.log(split[at])
    return Listed(step, split)
