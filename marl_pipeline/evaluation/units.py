"""Prices and shares as they were traded beside the adjusted ones that the simulator works with, and what corporate
actions brought in cash and shares.

The simulator holds adjusted shares: a split changes nothing there, and a dividend is put back into the stock at the
close before its ex-date (`data.panel.adjust_forward`). For whoever compares with a broker's statement both are undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.data import trailing
from marl_pipeline.data.calendar import session_of, utc_array
from marl_pipeline.data.dataset import FloatArray, Panel
from marl_pipeline.evaluation.track_record import WEIGHT

EVENTS = {
    "seed": "int64",
    "window": "int64",
    "bar": "int64",
    "timestamp": "datetime64[us]",
    "symbol": "str",
    "kind": "str",
    "value": "float64",
    "shares_before": "float64",
    "shares_after": "float64",
    "cash": "float64",
}
"""One row per corporate action of a symbol that was held over its ex-date: `value` new shares for an old one or cash
per share; shares as traded before and after; the cash of a dividend, which the simulator puts back into the stock."""


@dataclass(frozen=True)
class Units:
    """How the panel's prices differ from the file's, and the file's from those that were traded. All are [T, N].

    Attributes:
        splits, dividends: what the panel's price was multiplied by, of splits and of dividends, up to the bar.
        later_splits: new shares for one of the bar, by the splits that a split-adjusted file has already applied.
        actions: column, first bar on or after the ex-date, product of the splits and sum of the dividends.
        in_file: whether the file contains the splits.
    """

    splits: FloatArray
    dividends: FloatArray
    later_splits: FloatArray
    actions: Sequence[tuple[int, int, float, float]]
    in_file: bool

    @property
    def file_over_panel(self) -> FloatArray:
        """A price of the file for one of the panel."""
        return 1.0 / (self.splits * self.dividends)

    @property
    def traded_over_panel(self) -> FloatArray:
        """A price as it was traded for one of the panel."""
        return self.later_splits * self.file_over_panel


def units_of(
    panel: Panel, actions: pd.DataFrame | None, *, adjustment: str, frequency: str, calendar: str
) -> Units | None:
    """The units of a panel; None where the data do not tell.

    Prices that stand as they were traded (`none`) are adjusted by the actions only. Split-adjusted ones (`split`) are
    brought back by the splits of a table of actions. Of prices that contain their dividends (`total`) nothing is known.
    """
    if adjustment == "total" or (adjustment == "split" and actions is None):
        return None
    splits, dividends, later = (np.ones_like(panel.close) for _ in range(3))
    before = trailing.lag(trailing.carried(panel.close), 1)
    found = [] if actions is None else actions_by_bar(panel, actions, frequency=frequency, calendar=calendar)
    in_file = adjustment == "split"
    for column, row, ratio, paid in found:
        if in_file:
            later[:row, column] *= ratio
        if not np.isfinite(before[row, column]):
            continue  # before the symbol's first bar nothing is adjusted
        close = before[row, column] / (splits[row - 1, column] * dividends[row - 1, column])
        if not in_file:
            close /= ratio
            splits[row:, column] *= ratio
        dividends[row:, column] *= close / (close - paid)
    return Units(splits, dividends, later, found, in_file)


def actions_by_bar(
    panel: Panel, actions: pd.DataFrame, *, frequency: str, calendar: str
) -> list[tuple[int, int, float, float]]:
    """Column, first bar on or after the ex-date, product of splits and sum of dividends, in the order of the bars; of
    symbols in the panel and ex-dates after its first bar."""
    days = session_of(panel.timestamps, frequency, calendar).astype("datetime64[D]")
    column = pd.Index(panel.symbols).get_indexer(pd.Index(actions["symbol"]))
    row = np.searchsorted(days, utc_array(actions["ex_date"]).astype("datetime64[D]"))
    split = (actions["kind"] == "split").to_numpy()
    value = actions["value"].to_numpy(dtype=np.float64)
    effects = {"ratio": np.where(split, value, 1.0), "paid": np.where(split, 0.0, value)}
    table = pd.DataFrame({"row": row, "column": column, **effects})
    table = table[(column >= 0) & (row > 0) & (row < len(days))]
    grouped = table.groupby(["row", "column"], sort=True).agg({"ratio": "prod", "paid": "sum"}).reset_index()
    return [(int(one[1]), int(one[0]), float(one[2]), float(one[3])) for one in grouped.to_numpy()]


def with_traded_units(trades: pd.DataFrame, panel: Panel, units: Units | None) -> pd.DataFrame:
    """Fills with `price_traded` and `shares_traded` behind `price`: NaN where the data do not tell."""
    table = trades.copy()
    price = np.full(len(table), np.nan)
    if units is not None:
        column = pd.Index(panel.symbols).get_indexer(pd.Index(table["symbol"]))
        price = table["price"].to_numpy() * units.traded_over_panel[table["bar"].to_numpy(), column]
    place = list(table.columns).index("price") + 1
    table.insert(place, "price_traded", price)
    table.insert(place + 1, "shares_traded", table["notional"].to_numpy() / price)
    return table


def corporate_events(equity: pd.DataFrame, panel: Panel, units: Units | None) -> pd.DataFrame:
    """What corporate actions brought to one chained account (`track_record.chain`), with EVENTS.

    A position that a window sold at its end is not held over to the next one's first bar.
    """
    rows: list[dict[str, object]] = []
    if units is not None:
        close = trailing.carried(panel.close) * units.file_over_panel
        first = int(equity["bar"].iloc[0])
        window, level = equity["window"].to_numpy(), equity["equity"].to_numpy()
        for column, bar, ratio, paid in units.actions:
            place = bar - first
            if not 1 <= place < len(equity) or window[place] != window[place - 1]:
                continue
            symbol = panel.symbols[column]
            held = float(equity[WEIGHT + symbol].iloc[place - 1] * level[place - 1] / close[bar - 1, column])
            if not np.isfinite(held) or held == 0.0:
                continue
            before = held / units.later_splits[bar - 1, column]
            after = before * ratio
            entitled = held if units.in_file else held * ratio
            shared = {"seed": equity["seed"].iloc[0], "window": window[place], "bar": bar, "symbol": symbol}
            shared["timestamp"] = panel.timestamps[bar]
            if ratio != 1.0:
                split = {"kind": "split", "value": ratio, "shares_before": before, "shares_after": after, "cash": 0.0}
                rows.append(shared | split)
            if paid > 0.0:
                each = paid * units.later_splits[bar, column]
                cash = {"kind": "dividend", "value": each, "shares_before": after, "shares_after": after}
                rows.append(shared | cash | {"cash": paid * entitled})
    return pd.DataFrame(rows, columns=list(EVENTS)).astype(dict(EVENTS))
