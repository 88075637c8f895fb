"""From the fills at `t + 1` to its mark for a run of environments: steps 5 and 6 of docs/timeline.md."""

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
    LedgerArrays,
    Singles,
    State,
    Tables,
    compiled,
)
from marl_pipeline.envs.trading.compiled.kernel.rows import pool, spread

SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
LOG_2 = math.log(2.0)


class Sums(NamedTuple):
    """Working memory of one environment: sizes of positions [N], and per account [A] sums over them and the growth of
    equity, the latter also by its bits."""

    size: Floats
    net: Floats
    sizes: Floats
    ratio: Floats
    ratio_bits: Ints
    log: Floats
    log_bits: Ints
    exponent: Floats

    @classmethod
    def empty(cls, size: int, accounts: int) -> Sums:
        net, sizes, ratio, log, exponent = np.empty((5, accounts))
        return cls(np.empty(size), net, sizes, ratio, ratio.view(np.int64), log, log.view(np.int64), exponent)


@compiled
def _mark(
    fill: Floats,
    mark: Floats,
    before: Floats,
    shares: Floats,
    traded: Floats,
    price: Floats,
    pnl: Floats,
    holding: Floats,
    marked: Floats,
    value: Floats,
    size: Floats,
) -> None:
    """5 mark."""
    for n in range(fill.size):
        held = shares[n] + traded[n]
        price[n] = fill[n]
        pnl[n] = shares[n] * (mark[n] - before[n]) + traded[n] * (mark[n] - fill[n])
        holding[n] = held
        marked[n] = mark[n]
        value[n] = held * mark[n]
        size[n] = abs(held)


@compiled
def _invest(shares: Floats, size: Floats, paid: Floats, old_invested: Floats, invested: Floats) -> None:
    """What was paid for the shares held."""
    for n in range(shares.size):
        kept = min(size[n] / max(abs(shares[n]), 1e-200), 1.0)
        invested[n] = paid[n] + old_invested[n] * kept


@compiled
def _count(
    traded: Floats, size: Floats, old_duration: Singles, old_idle: Singles, duration: Singles, idle: Singles
) -> None:
    """Bars that positions are held, and since they were traded."""
    one, none = np.float32(1.0), np.float32(0.0)
    for n in range(traded.size):
        duration[n] = old_duration[n] + one if size[n] > 0.0 else none
        idle[n] = old_idle[n] + one if traded[n] == 0.0 else none


@compiled
def _log(ratio_bits: Ints, log: Floats, log_bits: Ints, exponent: Floats) -> None:
    """Natural logarithms of positive numbers to within an ulp or two: simple enough to be vectorised, as `math.log` is
    not. x = 2^k m with m in [sqrt(1/2), sqrt(2)), log m = 2 artanh((m - 1) / (m + 1)) by its series."""
    for a in range(ratio_bits.size):
        power = (ratio_bits[a] - SQRT_HALF_BITS) >> 52
        exponent[a] = power
        log_bits[a] = ratio_bits[a] - (power << 52)
    for a in range(log.size):
        s = (log[a] - 1.0) / (log[a] + 1.0)
        z = s * s
        tail = z / 21.0 + 1.0 / 19.0
        tail = tail * z + 1.0 / 17.0
        tail = tail * z + 1.0 / 15.0
        tail = tail * z + 1.0 / 13.0
        tail = tail * z + 1.0 / 11.0
        tail = tail * z + 1.0 / 9.0
        tail = tail * z + 1.0 / 7.0
        tail = tail * z + 1.0 / 5.0
        tail = tail * z + 1.0 / 3.0
        log[a] = 2.0 * s + (2.0 * s * z * tail + exponent[a] * LOG_2)


@compiled
def _grow(floor: Floats, cash: Floats, net: Floats, before: Floats, equity: Floats, w: Sums) -> None:
    """6 limits: equity after the mark, and in `w.log` the change of its logarithm."""
    ratio = w.ratio
    for a in range(net.size):
        equity[a] = cash[a] + net[a]
        ratio[a] = max(equity[a], floor[a]) / max(before[a], floor[a])
    _log(w.ratio_bits, w.log, w.log_bits, w.exponent)


@compiled
def _switch(
    c: Constants,
    size: Floats,
    equity: Floats,
    old_peak: Floats,
    old_halt: Ints,
    peak: Floats,
    halt: Ints,
    tripped: Bools,
    reentered: Bools,
) -> None:
    """6 limits: the kill switch."""
    remaining = 1.0 - c.drawdown
    for a in range(size.size):
        flat = size[a] == 0.0
        moved = max(old_halt[a] - 1 + ((old_halt[a] == c.liquidating) & (not flat)), 0)
        reenters = (moved == c.cool_down) & (old_halt[a] == c.cool_down + 1)
        reference = max(0.0 if reenters else old_peak[a], equity[a])
        trips = (moved <= c.cool_down) & (equity[a] <= reference * remaining) & (reference > equity[a])
        peak[a] = reference
        halt[a] = c.liquidating - flat if trips else moved
        tripped[a] = trips
        reentered[a] = reenters


@compiled
def _survive(
    c: Constants,
    floor: Floats,
    equity: Floats,
    log: Floats,
    old_alive: Bools,
    alive: Bools,
    halt: Ints,
    growth: Singles,
) -> None:
    """6 limits: what the books earned, and which are out of the game."""
    scale = np.float32(c.reward_scale)
    for a in range(equity.size):
        growth[a] = np.float32(log[a]) * scale if old_alive[a] else np.float32(0.0)
        lives = old_alive[a] & (equity[a] > floor[a])
        alive[a] = lives
        halt[a] = halt[a] if lives else c.liquidating


@compiled
def _tally(e: int, opens: bool, c: Constants, floor: Floats, s: State, after: State, entries: LedgerArrays) -> None:
    """6 limits: turnover, and a portfolio's running figures."""
    if c.counts or c.pooled:
        for a in range(s.cash.shape[1]):
            turned = entries.notional[e, a] / max(entries.fill_equity[e, a], floor[a])
            if c.counts:
                after.turnover[e, a] = 0.0 if opens else s.turnover[e, a] + turned
            if c.pooled:
                after.last_turnover[e, a] = turned
    if c.pooled:
        memory = np.float32(c.memory)
        for a in range(s.cash.shape[1]):
            change = np.float32(after.equity[e, a] / max(s.equity[e, a], floor[a]) - 1.0)
            after.last_return[e, a] = change
            after.mean[e, a] = s.mean[e, a] + memory * (change - s.mean[e, a])
            after.square[e, a] = s.square[e, a] + memory * (change * change - s.square[e, a])


@compiled
def _share(
    c: Constants,
    g: Layout,
    floor: Floats,
    alive: Bools,
    equity: Floats,
    pnl: Floats,
    commission: Floats,
    slippage: Floats,
    own: Singles,
    w: Sums,
) -> None:
    """What `net` pays the symbols of portfolios."""
    if g.segmented:
        for a in range(equity.size):
            w.net[a] = max(equity[a], floor[a])
        starts = spread(g, w.net, w.size)
        for n in range(pnl.size):
            paid = np.float32((pnl[n] - commission[n] - slippage[n]) / starts[n] * c.reward_scale)
            own[n] = paid if alive[g.account_of[n]] else np.float32(0.0)
        return
    start, lives = max(equity[0], floor[0]), alive[0]
    for n in range(pnl.size):
        paid = np.float32((pnl[n] - commission[n] - slippage[n]) / start * c.reward_scale)
        own[n] = paid if lives else np.float32(0.0)


@compiled
def _gross(c: Constants, g: Layout, value: Floats, gross: Floats, w: Sums) -> None:
    """Exposure of both sides. Where no account can be short it is the value, and not written."""
    if c.pooled or c.shorting:
        for n in range(value.size):
            w.size[n] = abs(value[n])
        pooled = pool(g, w.size, w.sizes)
        for a in range(gross.size):
            gross[a] = pooled[a]


@compiled
def mark(
    first: int, last: int, c: Constants, m: Tables, s: State, master: Ints, after: State, entries: LedgerArrays, w: Sums
) -> None:
    """Marks environments `first` .. `last` - 1, which `trade` has executed: writes the books `after`."""
    g = m.layout
    for e in range(first, last):
        following = min(s.bar[e] + 1, s.end[e])
        shares, traded, executed = s.shares[e], entries.shares[e], entries.executed[e]
        commission, slippage, paid, pnl = (
            entries.commission[e],
            entries.slippage[e],
            entries.paid[e],
            entries.price_pnl[e],
        )
        prices = (m.fill[following], m.mark[following], s.mark[e])
        _mark(*prices, shares, traded, entries.price[e], pnl, after.shares[e], after.mark[e], after.value[e], w.size)
        _invest(shares, w.size, paid, s.invested[e], after.invested[e])
        _count(traded, w.size, s.duration[e], s.idle[e], after.duration[e], after.idle[e])
        opens = m.new_session[min(following + 1, m.new_session.size - 1)]
        if c.counts:
            for n in range(shares.size):
                trades = s.trades[e, n] + ((traded[n] != 0.0) & (executed[n] != 0))
                after.trades[e, n] = 0 if opens else trades
        equity, halt = after.equity[e], after.halt[e]
        _grow(m.floor, after.cash[e], pool(g, after.value[e], w.net), s.equity[e], equity, w)
        sizes = pool(g, w.size, w.sizes)
        switched = (after.peak[e], halt, entries.tripped[e], entries.reentered[e])
        _switch(c, sizes, equity, s.peak[e], s.halt[e], *switched)
        _survive(c, m.floor, equity, w.log, s.alive[e], after.alive[e], halt, entries.growth[e])
        _tally(e, opens, c, m.floor, s, after, entries)
        if c.decide_every > 0:
            decides = s.steps[e] % c.decide_every == 0
            for a in range(equity.size):
                after.directive[e, a] = master[e, a] if decides else s.directive[e, a]
        _gross(c, g, after.value[e], entries.gross[e], w)
        if c.pooled:
            _share(c, g, m.floor, s.alive[e], s.equity[e], pnl, commission, slippage, entries.own[e], w)
        after.bar[e] = following
        after.steps[e] = s.steps[e] + 1
