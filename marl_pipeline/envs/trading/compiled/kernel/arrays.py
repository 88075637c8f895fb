"""What goes into the compiled code and what comes out of it: named tuples of numbers and arrays.

All that the compiled code knows of a game comes in through here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compiles as a part of what calls it (`step`)."""
    return cast(F, _compiler(cache=False)(function))


def cached(function: F) -> F:
    """Compiles on first use and caches beside the source: numba watches that file, and what a function closes over."""
    return cast(F, _compiler(cache=True)(function))


def _compiler(*, cache: bool) -> Any:
    # error_model numpy: 1 / 0 is inf, as in the tensor code; no fastmath: operations keep their order. Without numba's
    # runtime nothing is allocated in here, and no array is counted when it is passed on or cut into rows.
    return numba.njit(nogil=True, cache=cache, error_model="numpy", _nrt=False)


class Constants(NamedTuple):
    """The numbers of a game (`limits.Rules`, `accounts.Terms`, `game.Game`)."""

    pooled: bool
    shorting: bool
    leveraged: bool
    counts: bool
    decide_every: int  # 0 without a master
    exposure: float
    leverage: float
    cap: float
    open_positions: float
    trades: int
    turnover: float
    drawdown: float
    drawdown_scale: float
    cool_down: int
    liquidating: int
    reentry_scale: float
    commission: float
    base: float  # commission and base slippage of a side
    borrow_per_day: float
    cash_per_day: float
    reward_scale: float
    smallest_order: float
    headroom: float
    slot_stride: int
    actions: int
    sell_partial: int
    sell_all: int
    buys: int  # bytes of the packed mask
    sells: int
    add: int
    memory: float


class Layout(NamedTuple):
    """Which symbols share an account (`partition.Partition`)."""

    pooled: bool  # accounts are portfolios
    segmented: bool  # and there are several
    account_of: Ints  # [N]
    order: Ints  # [N] symbols by account, in their order
    bounds: Ints  # [A + 1] where each account's symbols begin in `order`


class Tables(NamedTuple):
    """The market and the lookup tables of `game.Game`; [T, N] unless they say otherwise."""

    mark: Floats
    fill: Floats
    capacity: Floats
    per_share: Floats
    impact: Floats
    gone: Bools
    tradable: Bools
    days: Floats  # [T]
    new_session: Bools  # [T]
    in_universe: Bools  # [N]
    increase: Floats  # [14]
    reduce: Floats  # [14]
    directives: Floats  # [rows, 6]
    log_bars: Singles  # [bars + 1], observed durations
    floor: Floats  # [A]
    layout: Layout


class State(NamedTuple):
    """The fields of `book.Book` that change."""

    bar: Ints
    end: Ints
    steps: Ints
    cash: Floats
    equity: Floats
    peak: Floats
    halt: Ints
    alive: Bools
    turnover: Floats
    directive: Ints
    mean: Singles
    square: Singles
    last_return: Singles
    last_turnover: Singles
    shares: Floats
    invested: Floats
    mark: Floats
    value: Floats
    duration: Singles
    idle: Singles
    trades: NDArray[np.int32]


class LedgerArrays(NamedTuple):
    """The fields of `accounts.Ledger` that are not the book's, and the rest of `game.Outcome`. For accounts, `gross` is
    the book's `value`, and a symbol's `growth` its `own`: not written there."""

    shares: Floats
    price: Floats
    commission: Floats
    slippage: Floats
    price_pnl: Floats
    closed: Bools
    paid: Floats
    borrow: Floats
    interest: Floats
    notional: Floats
    fill_equity: Floats
    gross: Floats
    executed: Ints
    tripped: Bools
    reentered: Bools
    growth: Singles
    own: Singles


class ViewArrays(NamedTuple):
    """The arrays of `game.View`. Those of the directive are written where there is a master, `portfolio` where books
    are pooled."""

    caps: Floats
    allowed: Ints
    positions: Singles
    portfolio: Singles
    risk: Floats
    cap_share: Floats
    slots: Floats
    observed: Singles
