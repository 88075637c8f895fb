"""What one walk-forward window of one seed leaves behind: equity, positions, fills and decisions bar by bar.

The formats are fixed here so that the code that trades a window and the code that reports it agree on columns and
meaning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

TIME = "datetime64[us]"

MODES = ("defensive", "neutral", "aggressive")
"""Names of `directive_mode` 0, 1, 2."""

EQUITY_COLUMNS: Mapping[str, str] = {
    "bar": "int64",
    "timestamp": TIME,
    "equity": "float64",
    "cash": "float64",
    "exposure": "float64",
    "turnover": "float64",
    "commission": "float64",
    "slippage": "float64",
    "borrow": "float64",
    "interest": "float64",
    "directive_risk": "float64",
    "directive_cap": "float64",
    "directive_mode": "int64",
    "drawdown": "float64",
    "kill_switch": "bool",
}
"""One row per bar of the window, at the mark of that bar's close.

The first row is the window's first bar, before anything was traded: equity and cash are the initial cash, the rest
is 0. Money is in account currency; `exposure` (sum of absolute position values), `turnover` (notional traded since
the last row) and `drawdown` (positive) are shares of equity; costs are what was paid since the last row.
"""

POSITION_COLUMNS: Mapping[str, str] = {"bar": "int64", "timestamp": TIME, "symbol": "str", "weight": "float64"}
"""Positions held at the mark of a bar as a share of equity; a symbol that is not held has no row."""

TRADE_COLUMNS: Mapping[str, str] = {
    "bar": "int64",
    "timestamp": TIME,
    "symbol": "str",
    "side": "str",
    "action": "str",
    "shares": "float64",
    "price": "float64",
    "notional": "float64",
    "commission": "float64",
    "slippage": "float64",
}
"""One row per fill; `bar` is the bar it was filled at, `side` is buy or sell, `shares` and `notional` are positive,
`action` is what the agent chose (or the name of the event that forced the fill)."""

DECISION_COLUMNS: Mapping[str, str] = {
    "bar": "int64",
    "timestamp": TIME,
    "symbol": "str",
    "chosen": "int8",
    "executed": "int8",
    "directive": "int8",
    "ordered": "int8",
}
"""One row per symbol and decision bar, that is every bar of the window but the last: what was decided at its close.

`chosen` is the action of the policy and `executed` the one that the limits let through (numbers of `Action`);
`directive` is the master's joint action that bound them (48, the full limits, where no master has decided), and
`ordered` the one that the master chose at this bar, -1 where it did not decide. What is decided at a bar fills in the
next one, so that fills alone cannot show what was known when.
"""

TABLES: Mapping[str, Mapping[str, str]] = {
    "equity": EQUITY_COLUMNS,
    "positions": POSITION_COLUMNS,
    "trades": TRADE_COLUMNS,
    "decisions": DECISION_COLUMNS,
}
"""The tables of a record and their columns."""


@dataclass(frozen=True)
class Curve:
    """One line of a training or tuning picture."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"curve {self.name!r}: {len(self.x)} x values and {len(self.y)} y values")

    def as_json(self) -> dict[str, Any]:
        """`{name, x, y}`; a value that is not finite becomes null."""
        return {"name": self.name, "x": list(self.x), "y": [v if math.isfinite(v) else None for v in self.y]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Curve:
        y = tuple(math.nan if v is None else float(v) for v in value["y"])
        return cls(str(value["name"]), tuple(float(v) for v in value["x"]), y)


@dataclass(frozen=True)
class Record:
    """One window traded by one seed.

    Attributes:
        window, seed: which.
        initial_cash: what the account started with; it started flat.
        equity: EQUITY_COLUMNS, one row per bar of the test part, ascending and without gaps.
        positions: POSITION_COLUMNS, any number of rows.
        trades: TRADE_COLUMNS, any number of rows.
        decisions: DECISION_COLUMNS, one row per symbol and decision bar; empty for a rule that sets positions itself.
        tuning: curves of the tuning before the window.
    """

    window: int
    seed: int
    initial_cash: float
    equity: pd.DataFrame
    positions: pd.DataFrame
    trades: pd.DataFrame
    decisions: pd.DataFrame
    tuning: Sequence[Curve] = ()

    def __post_init__(self) -> None:
        """Puts columns into order and type.

        Raises:
            ValueError: a column is missing, equity has gaps in its bars, or a figure of equity is not finite.
        """
        for name, columns in TABLES.items():
            object.__setattr__(self, name, typed(getattr(self, name), columns, f"{self.label} {name}"))
        bars = self.equity["bar"]
        if len(bars) == 0 or not (bars.diff().iloc[1:] == 1).all():
            raise ValueError(f"{self.label} equity: one row per bar is needed, without gaps")
        equity = self.equity["equity"]
        if not equity.map(math.isfinite).all() or abs(equity.iloc[0] - self.initial_cash) > 1e-6 * self.initial_cash:
            raise ValueError(f"{self.label} equity: must be finite and start at the initial cash {self.initial_cash}")

    @property
    def label(self) -> str:
        return f"window {self.window} seed {self.seed}"


def typed(frame: pd.DataFrame, columns: Mapping[str, str], what: str) -> pd.DataFrame:
    """`frame` with exactly `columns`, in order and of their types, with a fresh index.

    Raises:
        ValueError: a column is missing.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"{what}: missing columns {missing} (found {list(frame.columns)})")
    frame = frame[list(columns)].reset_index(drop=True)
    if isinstance(frame["timestamp"].dtype, pd.DatetimeTZDtype):
        frame = frame.assign(timestamp=frame["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None))
    return frame.astype(dict(columns))
