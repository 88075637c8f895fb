"""Recorded episodes: one table with a row for every episode, step and symbol, and what is true of all of it.

The columns are fixed here, so that recorder and reader agree on them. Figures of the account stand on
every row of a symbol that trades it: on each symbol's own row with an account per symbol, repeated over the symbols in
a portfolio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import pandas as pd

from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.errors import UserError

VERSION = 1
"""Of the format; a file of another one is refused."""

Kind = Literal["int16", "int32", "float32", "bool", "time", "name"]


@dataclass(frozen=True)
class Column:
    """`name` is a text of few values, stored once each."""

    kind: Kind
    meaning: str


HALTS: tuple[str, ...] = ("normal", "reduced", "cooling", "liquidating")
"""States of the kill switch: re-entered with reduced sizes, flat and waiting, selling everything."""

COLUMNS: Mapping[str, Column] = {
    "episode": Column("int16", "number of the episode, from 0"),
    "step": Column("int32", "step of the episode, from 1; the row tells what this step did and what held after it"),
    "bar": Column("int32", "bar of the mark after the step; the decision was taken one bar before"),
    "session": Column("int32", "session of that bar, counted from the first bar of the market"),
    "timestamp": Column("time", "start of that bar, UTC"),
    "symbol": Column("name", "who decided"),
    "playing": Column("bool", "the symbol was in the universe and its account alive"),
    "choice": Column("bool", "more than HOLD was allowed"),
    "chosen": Column("name", "action chosen"),
    "executed": Column("name", "action executed: HOLD where the mask refused the chosen one"),
    "shares": Column("float32", "shares traded, purchases positive"),
    "price": Column("float32", "price of the fill, before costs"),
    "commission": Column("float32", "paid for the fill, in currency"),
    "slippage": Column("float32", "paid for the fill, in currency"),
    "price_pnl": Column("float32", "gain of the position by price alone, in currency"),
    "weight": Column("float32", "value of the position over the equity of its account, after the mark"),
    "forced_close": Column("bool", "the position was closed because the symbol is gone"),
    "reward": Column("float32", "paid to the symbol's agent"),
    "own_net": Column("float32", "what `net` would have paid it"),
    "equity": Column("float32", "of the account, in currency, after the mark"),
    "cash": Column("float32", "of the account, in currency"),
    "gross": Column("float32", "value of the account's positions, in currency"),
    "drawdown": Column("float32", "of equity from its reference, a positive share"),
    "turnover": Column("float32", "traded in the step, as a multiple of equity"),
    "borrow": Column("float32", "fee on a debit balance, in currency"),
    "interest": Column("float32", "on cash, in currency"),
    "net": Column("float32", "change of the account's log equity times the scale of rewards"),
    "alive": Column("bool", "the account has equity left"),
    "halt": Column("name", f"kill switch: {', '.join(HALTS)}"),
    "kill_switch": Column("bool", "the kill switch tripped in this step"),
    "reentry": Column("bool", "the account came back in this step"),
    "directive_risk": Column("float32", "risk multiplier of the active directive"),
    "directive_cap": Column("float32", "most value / equity of one position under it"),
    "directive_mode": Column("name", "mode of the active directive"),
    "master_reward": Column("float32", "paid to the master; 0 without one"),
}
"""Beside these, one float32 column `<group>_<component>` for each component of a reward that has any."""

COMPONENT = Column("float32", "component of the reward, weighted, in the guide's own numbers")


@dataclass(frozen=True)
class About:
    """What is true of all rows.

    Attributes:
        mode: an account per symbol, or one portfolio.
        policy: name of a plain policy, or the folder of its weights.
        reward, master_reward: what was paid.
        reward_scale: what rewards are multiplied by; reward_unit: what one unit of a component pays.
        initial_cash: of every account.
        seed, source, span: of the draws; market the episodes were played on; bars they lie in (start, stop).
        actions: all there are.
        components: group of agents -> its components.
        limits: the active hard limits (`market.limits`).
    """

    mode: Mode
    policy: str
    reward: str
    master_reward: str
    reward_scale: float
    reward_unit: float
    initial_cash: float
    seed: int
    source: str
    span: tuple[int, int]
    actions: tuple[str, ...]
    components: Mapping[str, tuple[str, ...]]
    limits: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> About:
        """Raises:
        UserError: of another version, or incomplete.
        """
        if value.get("version") != VERSION:
            raise UserError(
                f"{where}: episodes of format {value.get('version')}, this program reads {VERSION}; record them again"
            )
        names = {field.name for field in fields(cls)}
        if names - set(value):
            raise UserError(f"{where}: lacks {sorted(names - set(value))} in its header; record it again")
        known = {name: value[name] for name in names}
        known["span"], known["actions"] = tuple(value["span"]), tuple(value["actions"])
        known["components"] = {group: tuple(parts) for group, parts in value["components"].items()}
        return cls(**known)

    def columns(self) -> dict[str, Column]:
        """Every column of such a table, in order."""
        parts = {f"{group}_{part}": COMPONENT for group, names in self.components.items() for part in names}
        return {**COLUMNS, **parts}


@dataclass(frozen=True)
class Episodes:
    """Attributes:
    about: what is true of all rows.
    table: the columns of `about.columns()`, sorted by episode, step and symbol; the symbols of a step are all there.
    """

    about: About
    table: pd.DataFrame

    @property
    def count(self) -> int:
        return int(self.table["episode"].nunique())

    @property
    def symbols(self) -> int:
        """N."""
        return len(self.table["symbol"].cat.categories)

    def books(self) -> pd.DataFrame:
        """One row per episode, step and account: `book` numbers the accounts through all episodes."""
        if self.about.mode == "portfolio":
            books = self.table.iloc[:: self.symbols]
            return books.assign(book=books["episode"].to_numpy()).reset_index(drop=True)
        number = self.table["episode"].to_numpy().astype("int64") * self.symbols + self.table["symbol"].cat.codes
        return self.table.assign(book=number).reset_index(drop=True)


def typed(table: pd.DataFrame, about: About, where: str) -> pd.DataFrame:
    """`table` with exactly the columns it must have, in order and of their types.

    Raises:
        UserError: a column is missing or cannot be of its type, or there is no row.
    """
    columns = about.columns()
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{where}: lacks the columns {missing} of an episode file; record it again")
    if not len(table):
        raise UserError(f"{where}: holds no step; record it again")
    types = {"time": "datetime64[us]", "name": "category"}
    try:
        return table[list(columns)].astype(
            {name: types.get(column.kind, column.kind) for name, column in columns.items()}
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: not an episode file: {error}; record it again") from None
