"""From the fills at `t + 1` to its mark for a run of environments: steps 5 and 6 of docs/timeline.md."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from marl_pipeline.envs.trading.kernel.arrays import (
    Constants,
    Entries,
    Floats,
    Ints,
    Singles,
    State,
    Tables,
    compiled,
)


class Sums(NamedTuple):
    """Working memory of one environment: sizes of positions [N], and room for sums over them [A]."""

    size: Floats
    net: Floats
    sizes: Floats

    @classmethod
    def empty(cls, size: int, accounts: int) -> Sums:
        return cls(np.empty(size), *np.empty((2, accounts)))


# As in `trade`: numba's cache would not notice a change of a function in another file.


@compiled
def _sum(values: Floats) -> float:
    """In four lanes: four times as fast as in order, and the same on every machine."""
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    whole = values.size - values.size % 4
    for n in range(0, whole, 4):
        first += values[n]
        second += values[n + 1]
        third += values[n + 2]
        fourth += values[n + 3]
    for n in range(whole, values.size):
        first += values[n]
    return (first + second) + (third + fourth)


@compiled
def _pool(pooled: bool, values: Floats, room: Floats) -> Floats:
    """`limits.Rules.pool`: [N] to [A]."""
    if pooled:
        room[0] = _sum(values)
        return room
    return values


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
def _judge(
    e: int, opens: bool, decides: bool, c: Constants, s: State, master: Ints, after: State, entries: Entries, w: Sums
) -> None:
    """6 judge: the books after the mark, kill switch and counters."""
    net = _pool(c.pooled, after.value[e], w.net)
    size = _pool(c.pooled, w.size, w.sizes)
    for a in range(net.size):
        halt, before, fill_equity = s.halt[e, a], s.equity[e, a], entries.fill_equity[e, a]
        equity = after.cash[e, a] + net[a]
        flat = size[a] == 0.0
        moved = max(halt - 1 + (halt == c.liquidating and not flat), 0)
        reentered = moved == c.cool_down and halt == c.cool_down + 1
        peak = max(0.0 if reentered else s.peak[e, a], equity)
        tripped = moved <= c.cool_down and equity <= peak * (1.0 - c.drawdown) and peak > equity
        if tripped:
            moved = c.liquidating - flat
        alive = s.alive[e, a]
        ratio = max(equity, c.floor) / max(before, c.floor)
        growth = np.float32(math.log(ratio)) if ratio != 1.0 else np.float32(0.0)
        entries.growth[e, a] = growth * np.float32(c.reward_scale) if alive else np.float32(0.0)
        alive = alive and equity > c.floor
        turned = entries.notional[e, a] / max(fill_equity, c.floor)
        entries.tripped[e, a] = tripped
        entries.reentered[e, a] = reentered
        after.equity[e, a] = equity
        after.peak[e, a] = peak
        after.halt[e, a] = moved if alive else c.liquidating
        after.alive[e, a] = alive
        if c.counts:
            after.turnover[e, a] = 0.0 if opens else s.turnover[e, a] + turned
        if c.decide_every > 0:
            after.directive[e, a] = master[e, a] if decides else s.directive[e, a]
        if c.pooled:
            memory, change = np.float32(c.memory), np.float32(equity / max(before, c.floor) - 1.0)
            after.last_return[e, a] = change
            after.last_turnover[e, a] = turned
            after.mean[e, a] = s.mean[e, a] + memory * (change - s.mean[e, a])
            after.square[e, a] = s.square[e, a] + memory * (change * change - s.square[e, a])


@compiled
def _share(
    c: Constants, alive: bool, equity: float, pnl: Floats, commission: Floats, slippage: Floats, own: Singles
) -> None:
    """What `net` pays the symbols of a portfolio."""
    start = max(equity, c.floor)
    for n in range(pnl.size):
        paid = np.float32((pnl[n] - commission[n] - slippage[n]) / start * c.reward_scale)
        own[n] = paid if alive else np.float32(0.0)


@compiled
def _gross(c: Constants, value: Floats, gross: Floats, w: Sums) -> None:
    """Exposure of both sides. Where no account can be short it is the value, and not written."""
    if c.pooled or c.shorting:
        for n in range(value.size):
            w.size[n] = abs(value[n])
        pooled = _pool(c.pooled, w.size, w.sizes)
        for a in range(gross.size):
            gross[a] = pooled[a]


@compiled
def mark(
    first: int, last: int, c: Constants, m: Tables, s: State, master: Ints, after: State, entries: Entries, w: Sums
) -> None:
    """Marks environments `first` .. `last` - 1, which `trade` has played: writes the books `after`."""
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
        decides = c.decide_every > 0 and s.steps[e] % c.decide_every == 0
        _judge(e, opens, decides, c, s, master, after, entries, w)
        _gross(c, after.value[e], entries.gross[e], w)
        if c.pooled:
            _share(c, s.alive[e, 0], s.equity[e, 0], pnl, commission, slippage, entries.own[e])
        after.bar[e] = following
        after.steps[e] = s.steps[e] + 1
