"""Masks and observations of a run of environments (`TensorEngine.observe`)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from marl_pipeline.envs.trading.compiled.kernel.arrays import (
    Bools,
    Constants,
    Floats,
    Ints,
    Layout,
    Singles,
    State,
    Tables,
    ViewArrays,
    compiled,
)
from marl_pipeline.envs.trading.compiled.kernel.rows import fill, gather, largest, pool


class AccountLimits(NamedTuple):
    """What the rules ask of an account; rows [A], or per symbol [N]."""

    trading: Bools  # may trade at all
    funded: Bools  # may trade, and may add exposure
    slot: Bools  # may open a position
    most: Floats  # money of a position at its cap
    smallest: Floats  # money of the smallest order
    per_cap: Floats  # 1 / `most`, and 1 / equity, both kept from 0
    per_equity: Floats
    fallen: Singles  # as observed
    liquid: Singles
    state: Singles

    @classmethod
    def empty(cls, size: int) -> AccountLimits:
        return cls(*np.empty((3, size), np.bool_), *np.empty((4, size)), *np.empty((3, size), np.float32))


class Scratch(NamedTuple):
    """Working memory of one environment: sizes of positions and another row [N], sums over accounts [A]. `held` is 0
    where nobody counts positions."""

    size: Floats
    row: Floats
    gross: Floats
    gain: Floats
    paid: Floats
    squares: Floats
    largest: Floats
    held: Ints

    @classmethod
    def empty(cls, size: int, accounts: int) -> Scratch:
        sizes, row = np.empty((2, size))
        gross, gain, paid, squares, most = np.empty((5, accounts))
        return cls(sizes, row, gross, gain, paid, squares, most, np.zeros(accounts, np.int64))


@compiled
def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@compiled
def _cap(c: Constants, halt: int, share: float) -> float:
    reduced = 1.0 if 0 < halt <= c.cool_down else 0.0
    return c.cap * share * (1.0 - (1.0 - c.reentry_scale) * reduced)


@compiled
def _slots(c: Constants, share: float) -> float:
    return max(math.floor(c.open_positions * share + 1e-9), 1.0)


@compiled
def _log_bars(table: Singles, bars: np.float32) -> np.float32:
    index = int(bars)
    if index < table.size:
        return np.float32(table[index])
    return np.float32(np.log1p(bars)) * np.float32(0.2)


@compiled
def _bound(
    c: Constants,
    m: Tables,
    halt: Ints,
    directive: Ints,
    turnover: Floats,
    equity: Floats,
    gross: Floats,
    held: Ints,
    caps: Floats,
    t: AccountLimits,
) -> None:
    """What the accounts may do."""
    most_turned = c.turnover * (1.0 - c.headroom)
    trading, funded, slot, most, smallest = t.trading, t.funded, t.slot, t.most, t.smallest
    for a in range(equity.size):
        caps[a] = _cap(c, halt[a], m.directives[directive[a], 1])
        slot[a] = (not c.pooled) | (held[a] < _slots(c, m.directives[directive[a], 2]))
    for a in range(equity.size):
        most[a] = caps[a] * equity[a]
        smallest[a] = c.smallest_order * caps[a] * equity[a]
        trading[a] = (halt[a] <= c.cool_down) & (turnover[a] < most_turned)
        funded[a] = trading[a] & (c.exposure * equity[a] - gross[a] > smallest[a])


@compiled
def _appear(
    c: Constants, halt: Ints, equity: Floats, peak: Floats, cash: Floats, caps: Floats, t: AccountLimits
) -> None:
    """What is observed of the accounts."""
    per_cap, per_equity, fallen, liquid, state = t.per_cap, t.per_equity, t.fallen, t.liquid, t.state
    for a in range(equity.size):
        positive = max(equity[a], 1e-9)
        per_equity[a] = 1.0 / positive
        per_cap[a] = 1.0 / max(positive * caps[a], 1e-9)
        fallen[a] = _clamp((1.0 - equity[a] / peak[a]) * c.drawdown_scale, 0.0, 1.5)
        liquid[a] = _clamp(cash[a] * per_equity[a], -1.0, 2.0)
        state[a] = 0.5 * (halt[a] > 0) + 0.5 * (halt[a] > c.cool_down)


@compiled
def _repeat(g: Layout, t: AccountLimits, symbols: AccountLimits) -> None:
    """The limits of accounts, repeated for all their symbols."""
    if g.segmented:
        gather(symbols.trading, t.trading, g.account_of)
        gather(symbols.funded, t.funded, g.account_of)
        gather(symbols.slot, t.slot, g.account_of)
        gather(symbols.most, t.most, g.account_of)
        gather(symbols.smallest, t.smallest, g.account_of)
        gather(symbols.per_cap, t.per_cap, g.account_of)
        gather(symbols.per_equity, t.per_equity, g.account_of)
        gather(symbols.fallen, t.fallen, g.account_of)
        gather(symbols.liquid, t.liquid, g.account_of)
        gather(symbols.state, t.state, g.account_of)
        return
    fill(symbols.trading, t.trading[0])
    fill(symbols.funded, t.funded[0])
    fill(symbols.slot, t.slot[0])
    fill(symbols.most, t.most[0])
    fill(symbols.smallest, t.smallest[0])
    fill(symbols.per_cap, t.per_cap[0])
    fill(symbols.per_equity, t.per_equity[0])
    fill(symbols.fallen, t.fallen[0])
    fill(symbols.liquid, t.liquid[0])
    fill(symbols.state, t.state[0])


@compiled
def _permit(
    c: Constants,
    tradable: Bools,
    in_universe: Bools,
    trades: Ints,
    value: Floats,
    invested: Floats,
    allowed: Ints,
    t: AccountLimits,
) -> None:
    """`limits.permissions`, packed."""
    most_trades = c.trades if c.counts else 1 << 30
    trading, funded, slot, most, smallest = t.trading, t.funded, t.slot, t.most, t.smallest
    # Without branches: who may do what is not predictable, and a wrong guess costs more than the rest.
    for n in range(value.size):
        worth = value[n]
        free = tradable[n] & in_universe[n] & (trades[n] < most_trades)
        held = worth != 0.0
        reduce = free & held & trading[n]
        within_cap = free & funded[n] & (most[n] - abs(worth) > smallest[n])
        increase = within_cap & (held | slot[n])
        buy = reduce if worth < 0.0 else increase
        sell = reduce if worth > 0.0 else increase & c.shorting
        add = within_cap & held & (worth > invested[n])
        allowed[n] = c.buys * buy + c.sells * sell + c.add * add + 1


@compiled
def _observe(
    log_bars: Singles,
    value: Floats,
    invested: Floats,
    duration: Singles,
    idle: Singles,
    positions: Singles,
    t: AccountLimits,
) -> None:
    """`observation.observe_positions`."""
    for n in range(value.size):
        worth, spent = value[n], invested[n]
        positions[n, 0] = _clamp(worth * t.per_cap[n], -2.0, 2.0)
        positions[n, 1] = _clamp(worth * t.per_equity[n], -2.0, 2.0)
        positions[n, 2] = _clamp((worth - spent) / max(abs(spent), 1e-12) * 10.0, -5.0, 5.0)
        positions[n, 3] = _log_bars(log_bars, duration[n])
        positions[n, 4] = _log_bars(log_bars, idle[n])
        positions[n, 5] = t.fallen[n]
        positions[n, 6] = t.liquid[n]
        positions[n, 7] = t.state[n]


@compiled
def _count_held(g: Layout, value: Floats, held: Ints) -> None:
    """Open positions of each portfolio."""
    if g.segmented:
        for a in range(held.size):
            count = 0
            for k in range(g.bounds[a], g.bounds[a + 1]):
                count += value[g.order[k]] != 0.0
            held[a] = count
        return
    count = 0
    for n in range(value.size):
        count += value[n] != 0.0
    held[0] = count


@compiled
def _sum_up(g: Layout, value: Floats, invested: Floats, w: Scratch) -> None:
    """The sums over positions that are observed of each portfolio."""
    row = w.row
    for n in range(value.size):
        row[n] = value[n] - invested[n]
    pool(g, row, w.gain)
    for n in range(value.size):
        row[n] = abs(invested[n])
    pool(g, row, w.paid)
    for n in range(value.size):
        row[n] = value[n] * value[n]
    pool(g, row, w.squares)
    if g.segmented:
        for a in range(w.largest.size):
            most = 0.0
            for k in range(g.bounds[a], g.bounds[a + 1]):
                most = max(most, w.size[g.order[k]])
            w.largest[a] = most
    else:
        w.largest[0] = largest(w.size)


@compiled
def _observe_portfolio(e: int, a: int, c: Constants, s: State, seen: Singles, w: Scratch, t: AccountLimits) -> None:
    """`observation.observe_portfolio` of account `a`; `seen` is [K]."""
    per_equity, gross, mean = t.per_equity[a], w.gross[a], s.mean[e, a]
    deviation = np.sqrt(max(s.square[e, a] - mean * mean, np.float32(0.0)))
    seen[0] = t.liquid[a]
    seen[1] = _clamp(gross * per_equity, 0.0, 5.0)
    seen[2] = t.fallen[a]
    seen[3] = _clamp(mean / (deviation + np.float32(1e-4)), -3.0, 3.0)
    seen[4] = min(deviation * 50.0, 5.0)
    seen[5] = w.held[a] / c.open_positions
    seen[6] = min(s.last_turnover[e, a], 2.0)
    seen[7] = w.squares[a] / max(gross * gross, 1e-18)
    seen[8] = min(w.largest[a] * per_equity / c.cap, 2.0)
    seen[9] = _clamp(w.gain[a] / max(w.paid[a], 1e-9) * 10.0, -5.0, 5.0)
    seen[10] = _clamp(s.last_return[e, a] * 50.0, -5.0, 5.0)
    seen[11] = t.state[a]


@compiled
def observe(
    first: int,
    last: int,
    c: Constants,
    m: Tables,
    s: State,
    view: ViewArrays,
    w: Scratch,
    books: AccountLimits,
    t: AccountLimits,
) -> None:
    """Writes the view of the books `s` of environments `first` .. `last` - 1.

    Args:
        books: [A]; t: [N], `books` itself where every symbol has an account.
    """
    size, g = w.size, m.layout
    for e in range(first, last):
        value, halt, equity, caps = s.value[e], s.halt[e], s.equity[e], view.caps[e]
        for n in range(value.size):
            size[n] = abs(value[n])
        if c.pooled:
            _count_held(g, value, w.held)
        gross = pool(g, size, w.gross)
        _bound(c, m, halt, s.directive[e], s.turnover[e], equity, gross, w.held, caps, books)
        _appear(c, halt, equity, s.peak[e], s.cash[e], caps, books)
        if c.pooled:
            _sum_up(g, value, s.invested[e], w)
            for a in range(equity.size):
                _observe_portfolio(e, a, c, s, view.portfolio[e, a], w, books)
            _repeat(g, books, t)
        if c.decide_every > 0:
            for a in range(equity.size):
                row = s.directive[e, a]
                view.risk[e, a], view.cap_share[e, a] = m.directives[row, 0], m.directives[row, 1]
                view.slots[e, a] = _slots(c, m.directives[row, 2])
                for column in range(m.directives.shape[1]):
                    view.observed[e, a, column] = m.directives[row, column]
        now, invested = s.bar[e], s.invested[e]
        _permit(c, m.tradable[now], m.in_universe, s.trades[e], value, invested, view.allowed[e], t)
        _observe(m.log_bars, value, invested, s.duration[e], s.idle[e], view.positions[e], t)
