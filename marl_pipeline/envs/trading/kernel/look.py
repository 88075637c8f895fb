"""Masks and observations of a run of environments (`TensorEngine.look`)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from marl_pipeline.envs.trading.kernel.arrays import (
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


class Standing(NamedTuple):
    """What the rules ask of an account, per symbol [N]: one value throughout where the account is a portfolio."""

    trading: Bools  # may trade at all
    funded: Bools  # has room for exposure
    slot: Bools  # may open a position
    most: Floats  # money of a position at its cap
    smallest: Floats  # money of the smallest order
    full: Floats  # `most` and equity, kept from 0
    equity: Floats
    fallen: Singles  # as observed
    liquid: Singles
    state: Singles

    @classmethod
    def empty(cls, size: int) -> Standing:
        return cls(*np.empty((3, size), np.bool_), *np.empty((4, size)), *np.empty((3, size), np.float32))


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
def _judge_account(
    e: int,
    a: int,
    first: int,
    last: int,
    gross: float,
    held: int,
    c: Constants,
    m: Tables,
    s: State,
    sight: Sight,
    t: Standing,
) -> None:
    """The standing of account `a`, for its symbols `first` .. `last` - 1."""
    halt, equity, row = s.halt[e, a], s.equity[e, a], s.directive[e, a]
    cap = _cap(c, halt, m.directives[row, 1])
    sight.caps[e, a] = cap
    blocked = halt > c.cool_down
    trading = (not blocked) and s.turnover[e, a] < c.turnover * (1.0 - c.headroom)
    smallest = c.smallest_order * cap * equity
    positive = max(equity, 1e-9)
    trading_and_funded = trading and c.exposure * equity - gross > smallest
    slot = not c.pooled or held < _slots(c, m.directives[row, 2])
    fallen = np.float32(_clamp((1.0 - equity / s.peak[e, a]) * c.drawdown_scale, 0.0, 1.5))
    liquid = np.float32(_clamp(s.cash[e, a] / positive, -1.0, 2.0))
    state = np.float32((0.5 if halt > 0 else 0.0) + (0.5 if blocked else 0.0))
    for n in range(first, last):
        t.trading[n], t.funded[n], t.slot[n] = trading, trading_and_funded, slot
        t.most[n], t.smallest[n], t.full[n], t.equity[n] = cap * equity, smallest, max(positive * cap, 1e-9), positive
        t.fallen[n], t.liquid[n], t.state[n] = fallen, liquid, state


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
        positions[n, 0] = _clamp(worth / t.full[n], -2.0, 2.0)
        positions[n, 1] = _clamp(worth / t.equity[n], -2.0, 2.0)
        positions[n, 2] = _clamp((worth - spent) / max(abs(spent), 1e-12) * 10.0, -5.0, 5.0)
        positions[n, 3] = _log_bars(log_bars, duration[n])
        positions[n, 4] = _log_bars(log_bars, idle[n])
        positions[n, 5] = t.fallen[n]
        positions[n, 6] = t.liquid[n]
        positions[n, 7] = t.state[n]


@compiled
def _observe_portfolio(e: int, gross: float, held: int, c: Constants, s: State, seen: Singles, t: Standing) -> None:
    """`observation.observe_portfolio`; `seen` is [K]."""
    value, invested, equity = s.value[e], s.invested[e], t.equity[0]
    gain, paid, squares, largest = 0.0, 0.0, 0.0, 0.0
    for n in range(value.size):
        gain += value[n] - invested[n]
        paid += abs(invested[n])
        squares += value[n] * value[n]
        largest = max(largest, abs(value[n]))
    mean = s.mean[e, 0]
    deviation = np.sqrt(max(s.square[e, 0] - mean * mean, np.float32(0.0)))
    seen[0] = t.liquid[0]
    seen[1] = _clamp(gross / equity, 0.0, 5.0)
    seen[2] = t.fallen[0]
    seen[3] = _clamp(mean / (deviation + np.float32(1e-4)), -3.0, 3.0)
    seen[4] = min(deviation * 50.0, 5.0)
    seen[5] = held / c.open_positions
    seen[6] = min(s.last_turnover[e, 0], 2.0)
    seen[7] = squares / max(gross * gross, 1e-18)
    seen[8] = min(largest / equity / c.cap, 2.0)
    seen[9] = _clamp(gain / max(paid, 1e-9) * 10.0, -5.0, 5.0)
    seen[10] = _clamp(s.last_return[e, 0] * 50.0, -5.0, 5.0)
    seen[11] = t.state[0]


@compiled
def look(first: int, last: int, c: Constants, m: Tables, s: State, sight: Sight, t: Standing) -> None:
    """Writes the view of the books `s` of environments `first` .. `last` - 1."""
    accounts, size = s.cash.shape[1], s.shares.shape[1]
    for e in range(first, last):
        value = s.value[e]
        if c.pooled:
            gross, held = 0.0, 0
            for n in range(size):
                gross += abs(value[n])
                held += value[n] != 0.0
            _judge_account(e, 0, 0, size, gross, held, c, m, s, sight, t)
            _observe_portfolio(e, gross, held, c, s, sight.portfolio[e, 0], t)
        else:
            for a in range(accounts):
                _judge_account(e, a, a, a + 1, abs(value[a]), 0, c, m, s, sight, t)
        if c.decide_every > 0:
            row = s.directive[e, 0]
            sight.risk[e, 0], sight.cap_share[e, 0] = m.directives[row, 0], m.directives[row, 1]
            sight.slots[e, 0] = _slots(c, m.directives[row, 2])
            for column in range(m.directives.shape[1]):
                sight.observed[e, 0, column] = m.directives[row, column]
        now, invested = s.bar[e], s.invested[e]
        _permit(c, m.tradable[now], m.in_play, s.trades[e], value, invested, sight.allowed[e], t)
        _observe(m.log_bars, value, invested, s.duration[e], s.idle[e], sight.positions[e], t)
