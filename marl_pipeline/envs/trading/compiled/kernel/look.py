"""Masks and observations of a run of environments (`TensorEngine.look`)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from marl_pipeline.envs.trading.compiled.kernel.arrays import (
    Bools,
    Constants,
    Floats,
    Ints,
    Sight,
    Singles,
    State,
    Tables,
    compiled,
)
from marl_pipeline.envs.trading.compiled.kernel.rows import fill, largest, pool, total


class Standing(NamedTuple):
    """What the rules ask of an account; rows [A], or per symbol [N]."""

    trading: Bools  # may trade at all
    funded: Bools  # may trade, and has room for exposure
    slot: Bools  # may open a position
    most: Floats  # money of a position at its cap
    smallest: Floats  # money of the smallest order
    per_cap: Floats  # 1 / `most`, and 1 / equity, both kept from 0
    per_equity: Floats
    fallen: Singles  # as observed
    liquid: Singles
    state: Singles

    @classmethod
    def empty(cls, size: int) -> Standing:
        return cls(*np.empty((3, size), np.bool_), *np.empty((4, size)), *np.empty((3, size), np.float32))


class Scratch(NamedTuple):
    """Working memory of one environment: sizes of positions and another row [N], gross exposure [A]."""

    size: Floats
    row: Floats
    gross: Floats

    @classmethod
    def empty(cls, size: int, accounts: int) -> Scratch:
        sizes, row = np.empty((2, size))
        return cls(sizes, row, np.empty(accounts))


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
    held: int,
    caps: Floats,
    t: Standing,
) -> None:
    """What the accounts may do."""
    most_turned = c.turnover * (1.0 - c.headroom)
    trading, funded, slot, most, smallest = t.trading, t.funded, t.slot, t.most, t.smallest
    for a in range(equity.size):
        caps[a] = _cap(c, halt[a], m.directives[directive[a], 1])
        slot[a] = (not c.pooled) | (held < _slots(c, m.directives[directive[a], 2]))
    for a in range(equity.size):
        most[a] = caps[a] * equity[a]
        smallest[a] = c.smallest_order * caps[a] * equity[a]
        trading[a] = (halt[a] <= c.cool_down) & (turnover[a] < most_turned)
        funded[a] = trading[a] & (c.exposure * equity[a] - gross[a] > smallest[a])


@compiled
def _appear(c: Constants, halt: Ints, equity: Floats, peak: Floats, cash: Floats, caps: Floats, t: Standing) -> None:
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
def _repeat(t: Standing, symbols: Standing) -> None:
    """One account's standing for all its symbols."""
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
    in_play: Bools,
    trades: Ints,
    value: Floats,
    invested: Floats,
    allowed: Ints,
    t: Standing,
) -> None:
    """`limits.permissions`, packed."""
    most_trades = c.trades if c.counts else 1 << 30
    trading, funded, slot, most, smallest = t.trading, t.funded, t.slot, t.most, t.smallest
    # Without branches: who may do what is not predictable, and a wrong guess costs more than the rest.
    for n in range(value.size):
        worth = value[n]
        free = tradable[n] & in_play[n] & (trades[n] < most_trades)
        held = worth != 0.0
        reduce = free & held & trading[n]
        room = free & funded[n] & (most[n] - abs(worth) > smallest[n])
        increase = room & (held | slot[n])
        buy = reduce if worth < 0.0 else increase
        sell = reduce if worth > 0.0 else increase & c.shorting
        add = room & held & (worth > invested[n])
        allowed[n] = c.buys * buy + c.sells * sell + c.add * add + 1


@compiled
def _observe(
    log_bars: Singles,
    value: Floats,
    invested: Floats,
    duration: Singles,
    idle: Singles,
    positions: Singles,
    t: Standing,
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
def _observe_portfolio(e: int, held: int, c: Constants, s: State, seen: Singles, w: Scratch, t: Standing) -> None:
    """`observation.observe_portfolio`; `seen` is [K]."""
    value, invested, per_equity, gross = s.value[e], s.invested[e], t.per_equity[0], w.gross[0]
    row = w.row
    for n in range(value.size):
        row[n] = value[n] - invested[n]
    gain = total(row)
    for n in range(value.size):
        row[n] = abs(invested[n])
    paid = total(row)
    for n in range(value.size):
        row[n] = value[n] * value[n]
    squares = total(row)
    mean = s.mean[e, 0]
    deviation = np.sqrt(max(s.square[e, 0] - mean * mean, np.float32(0.0)))
    seen[0] = t.liquid[0]
    seen[1] = _clamp(gross * per_equity, 0.0, 5.0)
    seen[2] = t.fallen[0]
    seen[3] = _clamp(mean / (deviation + np.float32(1e-4)), -3.0, 3.0)
    seen[4] = min(deviation * 50.0, 5.0)
    seen[5] = held / c.open_positions
    seen[6] = min(s.last_turnover[e, 0], 2.0)
    seen[7] = squares / max(gross * gross, 1e-18)
    seen[8] = min(largest(w.size) * per_equity / c.cap, 2.0)
    seen[9] = _clamp(gain / max(paid, 1e-9) * 10.0, -5.0, 5.0)
    seen[10] = _clamp(s.last_return[e, 0] * 50.0, -5.0, 5.0)
    seen[11] = t.state[0]


@compiled
def look(
    first: int, last: int, c: Constants, m: Tables, s: State, sight: Sight, w: Scratch, books: Standing, t: Standing
) -> None:
    """Writes the view of the books `s` of environments `first` .. `last` - 1.

    Args:
        books: [A]; t: [N], `books` itself where every symbol has an account.
    """
    size = w.size
    for e in range(first, last):
        value, halt, equity, caps = s.value[e], s.halt[e], s.equity[e], sight.caps[e]
        for n in range(value.size):
            size[n] = abs(value[n])
        held = 0
        if c.pooled:
            for n in range(value.size):
                held += value[n] != 0.0
        gross = pool(c.pooled, size, w.gross)
        _bound(c, m, halt, s.directive[e], s.turnover[e], equity, gross, held, caps, books)
        _appear(c, halt, equity, s.peak[e], s.cash[e], caps, books)
        if c.pooled:
            _repeat(books, t)
            _observe_portfolio(e, held, c, s, sight.portfolio[e, 0], w, books)
        if c.decide_every > 0:
            row = s.directive[e, 0]
            sight.risk[e, 0], sight.cap_share[e, 0] = m.directives[row, 0], m.directives[row, 1]
            sight.slots[e, 0] = _slots(c, m.directives[row, 2])
            for column in range(m.directives.shape[1]):
                sight.observed[e, 0, column] = m.directives[row, column]
        now, invested = s.bar[e], s.invested[e]
        _permit(c, m.tradable[now], m.in_play, s.trades[e], value, invested, sight.allowed[e], t)
        _observe(m.log_bars, value, invested, s.duration[e], s.idle[e], sight.positions[e], t)
