"""From the orders at `t` to the fills at `t + 1` for a run of environments: steps 1 to 4 of docs/timeline.md.

An environment is worked through in rows over its N symbols, each loop simple enough to be vectorised. Rows of accounts
have length A: `pool` sums N to A, `spread` repeats A to N; where every symbol has an account both are the row itself.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from marl_pipeline.envs.trading.compiled.kernel.arrays import (
    Bools,
    Constants,
    Floats,
    Ints,
    Layout,
    LedgerArrays,
    State,
    Tables,
    ViewArrays,
    compiled,
)
from marl_pipeline.envs.trading.compiled.kernel.rows import pool, spread


class Rows(NamedTuple):
    """Working memory of one environment: orders, what they come to, and sums; [N], or [A] where it says so."""

    side: Floats
    increase: Floats
    reduce: Floats
    value: Floats
    reduced: Floats
    amount: Floats
    freed: Floats
    freed_cost: Floats
    cost: Floats
    notional: Floats
    paid_out: Floats
    size: Floats
    tier: Ints
    least: Floats  # [A] share of every position that is closed by force
    budget: Floats  # [A]
    carried: Floats  # [A] cash after carry
    smallest: Floats  # [A]
    scale: Floats  # [A]
    most: Floats  # [A]
    sums: Floats  # [5, A]
    spread: Floats  # [5, N]
    nothing: Floats  # zeros

    @classmethod
    def empty(cls, size: int, accounts: int) -> Rows:
        symbols, books = np.empty((12, size)), np.empty((6, accounts))
        sums, spread = np.empty((5, accounts)), np.empty((5, size))
        arrays: list[Any] = [*symbols, np.empty(size, np.int64), *books, sums, spread, np.zeros(size)]
        return cls(*arrays)


@compiled
def _decide(c: Constants, m: Tables, shares: Floats, allowed: Ints, chosen: Ints, executed: Ints, w: Rows) -> int:
    """What the mask lets through, and its size. Returns how many actions are none of the seven."""
    invalid = 0
    side, increase, reduce = w.side, w.increase, w.reduce
    for n in range(shares.size):
        action = chosen[n]
        valid = 0 <= action < c.actions
        invalid += not valid
        action = action if valid else 0
        action = action * ((allowed[n] >> (action * 8)) & 1)
        executed[n] = action
        held = shares[n]
        selling = (action == c.sell_partial) | (action == c.sell_all)
        short = int(c.shorting & ((held < 0.0) | (selling & (held == 0.0))))
        side[n] = 1.0 - 2.0 * short
        increase[n] = m.increase[action + c.actions * short]
        reduce[n] = m.reduce[action + c.actions * short]
    return invalid


@compiled
def _force(c: Constants, g: Layout, active: bool, halt: Ints, equity: Floats, value: Floats, w: Rows) -> None:
    """What a tripped kill switch and too much leverage close, whatever the agents say."""
    least = w.least
    for a in range(least.size):
        least[a] = 1.0 if active and halt[a] == c.liquidating else 0.0
    if c.leveraged and active:
        for n in range(value.size):
            w.size[n] = abs(value[n])
        gross = pool(g, w.size, w.sums[0])
        for a in range(least.size):
            least[a] = max(least[a], 1.0 - c.leverage * max(equity[a], 0.0) / max(gross[a], 1e-300))


@compiled
def _carry(
    c: Constants,
    g: Layout,
    days: float,
    cash: Floats,
    value: Floats,
    interest: Floats,
    borrow: Floats,
    carried: Floats,
    w: Rows,
) -> None:
    """1 carry."""
    earned, charged = days * c.cash_per_day, days * c.borrow_per_day
    if c.shorting:
        for n in range(value.size):
            w.size[n] = max(-value[n], 0.0)
        short = pool(g, w.size, w.sums[0])
        for a in range(cash.size):
            free = cash[a] - short[a]
            interest[a] = max(free, 0.0) * earned
            borrow[a] = (max(-free, 0.0) + short[a]) * charged
            carried[a] = cash[a] + interest[a] - borrow[a]
    else:
        for a in range(cash.size):
            interest[a] = max(cash[a], 0.0) * earned
            borrow[a] = max(-cash[a], 0.0) * charged
            carried[a] = cash[a] + interest[a] - borrow[a]


@compiled
def _appraise(c: Constants, g: Layout, shares: Floats, fill: Floats, caps: Floats, equity: Floats, w: Rows) -> None:
    """Positions and equity at the prices of the fill."""
    worth, value = w.freed, w.value
    for n in range(shares.size):
        worth[n] = shares[n] * fill[n]
        value[n] = abs(worth[n])
    net = pool(g, worth, w.sums[0])
    for a in range(equity.size):
        equity[a] = w.carried[a] + net[a]
        w.smallest[a] = c.smallest_order * caps[a] * equity[a]


@compiled
def _reduce(
    c: Constants,
    g: Layout,
    shares: Floats,
    fill: Floats,
    capacity: Floats,
    turnover: Floats,
    equity: Floats,
    w: Rows,
) -> None:
    """2 reduce: capacity, then what is left of the turnover."""
    least = spread(g, w.least, w.spread[0])
    smallest = spread(g, w.smallest, w.spread[1])
    reduce, value, reduced, freed, size = w.reduce, w.value, w.reduced, w.freed, w.size
    for n in range(shares.size):
        part = max(reduce[n], least[n])
        whole = np.ceil(part)
        part = whole if (1.0 - part) * value[n] < smallest[n] else part
        size[n] = abs(shares[n])
        reduced[n] = min(part * size[n], capacity[n])
        freed[n] = reduced[n] * fill[n]
    total = pool(g, freed, w.sums[0])
    scale = w.scale
    for a in range(equity.size):
        room = max(c.turnover - turnover[a], 0.0) * equity[a]
        share = min(max(room / max(total[a], 1e-300), 0.0), 1.0)
        scale[a] = 1.0 if w.least[a] > 0.0 else share


@compiled
def _grant_slots(
    amount: Floats, shares: Floats, action: Ints, sell_partial: int, first: int, free: int, tier: Ints
) -> None:
    """`limits.grant_slots` on a portfolio of all symbols: orders that get no slot are struck out of `amount`."""
    size = amount.size
    large, medium = 0, 0
    for n in range(size):
        opens = (shares[n] == 0.0) & (amount[n] > 0.0)
        rank = 2 if action[n] == sell_partial else max(3 - action[n], 0)
        tier[n] = rank if opens else 3
        large += tier[n] == 0
        medium += tier[n] == 1
    # Free slots less what goes to larger orders; then one pass in rotation, without branches.
    left_large, left_medium, left_small = free, free - large, free - large - medium
    for rank in range(first, first + size):
        n = rank - size if rank >= size else rank
        left_large -= tier[n] == 0
        left_medium -= tier[n] == 1
        left_small -= tier[n] == 2
        denied = (tier[n] == 0) & (left_large < 0) | (tier[n] == 1) & (left_medium < 0)
        denied |= (tier[n] == 2) & (left_small < 0)
        amount[n] = 0.0 if denied else amount[n]


@compiled
def _grant_slots_of(
    amount: Floats, shares: Floats, action: Ints, sell_partial: int, order: Ints, first: int, free: int, tier: Ints
) -> None:
    """`_grant_slots` on a portfolio of the symbols `order`."""
    size = order.size
    large, medium = 0, 0
    for k in range(size):
        n = order[k]
        opens = (shares[n] == 0.0) & (amount[n] > 0.0)
        rank = 2 if action[n] == sell_partial else max(3 - action[n], 0)
        tier[n] = rank if opens else 3
        large += tier[n] == 0
        medium += tier[n] == 1
    left_large, left_medium, left_small = free, free - large, free - large - medium
    for rank in range(first, first + size):
        n = order[rank - size if rank >= size else rank]
        left_large -= tier[n] == 0
        left_medium -= tier[n] == 1
        left_small -= tier[n] == 2
        denied = (tier[n] == 0) & (left_large < 0) | (tier[n] == 1) & (left_medium < 0)
        denied |= (tier[n] == 2) & (left_small < 0)
        amount[n] = 0.0 if denied else amount[n]


@compiled
def _share_slots(
    c: Constants, g: Layout, now: int, shares: Floats, executed: Ints, slots: Floats, amount: Floats, tier: Ints
) -> None:
    """Strikes the orders that get no slot of their account out of `amount`."""
    for a in range(slots.size):
        own = g.order[g.bounds[a] : g.bounds[a + 1]]
        held, openings = 0, 0
        for k in range(own.size):
            flat = shares[own[k]] == 0.0
            held += not flat
            openings += flat & (amount[own[k]] > 0.0)
        if openings > slots[a] - held:
            first = now * c.slot_stride % own.size
            _grant_slots_of(amount, shares, executed, c.sell_partial, own, first, int(slots[a]) - held, tier)


@compiled
def _ask(
    c: Constants,
    g: Layout,
    now: int,
    shares: Floats,
    mark: Floats,
    capacity: Floats,
    executed: Ints,
    slots: Floats,
    w: Rows,
) -> None:
    """3 increase: shares asked for, within the capacity and the free slots."""
    budget = spread(g, w.budget, w.spread[0])
    increase, amount = w.increase, w.amount
    for n in range(shares.size):
        amount[n] = min(increase[n] * budget[n] / mark[n], capacity[n])
    if not c.pooled:
        return
    if g.segmented:
        _share_slots(c, g, now, shares, executed, slots, amount, w.tier)
        return
    held, openings = 0, 0
    for n in range(shares.size):
        flat = shares[n] == 0.0
        held += not flat
        openings += flat & (amount[n] > 0.0)
    if openings > slots[0] - held:
        first = now * c.slot_stride % shares.size
        _grant_slots(amount, shares, executed, c.sell_partial, first, int(slots[0]) - held, w.tier)


@compiled
def _limit(
    c: Constants,
    g: Layout,
    fill: Floats,
    gone: Bools,
    active: bool,
    impact: Floats,
    per_share: Floats,
    caps: Floats,
    turnover: Floats,
    equity: Floats,
    closed: Bools,
    w: Rows,
) -> None:
    """3 increase: the position cap, then what exposure and turnover leave. `w.amount` becomes money."""
    sums = w.sums
    for a in range(equity.size):
        w.most[a] = caps[a] * equity[a]
    most = spread(g, w.most, w.spread[0])
    scale = spread(g, w.scale, w.spread[1])
    reduced, amount, value, size = w.reduced, w.amount, w.value, w.size
    freed, freed_cost, cost = w.freed, w.freed_cost, w.cost
    for n in range(fill.size):
        leaving = size[n] if active & gone[n] else 0.0
        closed[n] = leaving > 0.0
        reduced[n] = reduced[n] * scale[n] + leaving
        freed[n] = reduced[n] * fill[n]
        amount[n] = min(amount[n] * fill[n], max(most[n] - value[n], 0.0))
    for n in range(fill.size):
        share = min((amount[n] / fill[n] + reduced[n]) * per_share[n], 1.0)
        rate = math.sqrt(share) * impact[n] + c.base
        freed_cost[n] = freed[n] * rate
        cost[n] = amount[n] * rate
    gross = pool(g, value, sums[0])
    sale = pool(g, freed, sums[1])
    sale_cost = pool(g, freed_cost, sums[2])
    total = pool(g, amount, sums[3])
    expense = pool(g, cost, sums[4])
    limit = c.exposure * (1.0 - c.headroom)
    for a in range(equity.size):
        remaining = equity[a] - sale_cost[a]
        fundable = (limit * remaining - (gross[a] - sale[a])) / max(total[a] + limit * expense[a], 1e-300)
        room = (c.turnover - turnover[a]) * (1.0 - c.headroom) * equity[a] - sale[a]
        share = min(max(min(fundable, room / max(total[a], 1e-300)), 0.0), 1.0)
        w.scale[a] = share
        w.most[a] = caps[a] * (1.0 - c.headroom) * (remaining - share * expense[a])


@compiled
def _pay(
    c: Constants,
    g: Layout,
    fill: Floats,
    impact: Floats,
    per_share: Floats,
    traded: Floats,
    commission: Floats,
    slippage: Floats,
    paid: Floats,
    w: Rows,
) -> None:
    """4 pay: the fills and their costs."""
    scale = spread(g, w.scale, w.spread[0])
    most = spread(g, w.most, w.spread[1])
    smallest = spread(g, w.smallest, w.spread[2])
    reduced, amount, value, side, freed = w.reduced, w.amount, w.value, w.side, w.freed
    notional, paid_out = w.notional, w.paid_out
    for n in range(fill.size):
        money = min(scale[n] * amount[n], max(most[n] - value[n], 0.0))
        amount[n] = money if money >= smallest[n] else 0.0
    for n in range(fill.size):
        money = amount[n]
        increased = money / fill[n]
        turned = money + freed[n]
        rate = math.sqrt(min((increased + reduced[n]) * per_share[n], 1.0)) * impact[n] + c.base
        traded[n] = side[n] * (increased - reduced[n])
        commission[n] = turned * c.commission
        slippage[n] = turned * (rate - c.commission)
        paid[n] = side[n] * money + money * rate
        notional[n] = turned
        paid_out[n] = side[n] * (money - freed[n]) + turned * rate


@compiled
def trade(
    first: int,
    last: int,
    c: Constants,
    m: Tables,
    s: State,
    seen: ViewArrays,
    chosen: Ints,
    after: State,
    entries: LedgerArrays,
    w: Rows,
) -> int:
    """Executes the orders of environments `first` .. `last` - 1, from the books `s` of which `seen` is the view.

    Writes the entries of the ledger and, of the books after it, the cash.

    Returns:
        How many of the chosen actions are none of the seven (they are executed as HOLD; the caller raises).
    """
    invalid, g = 0, m.layout
    for e in range(first, last):
        now, end = s.bar[e], s.end[e]
        active = now < end
        following = min(now + 1, end)
        shares, caps, turnover = s.shares[e], seen.caps[e], s.turnover[e]
        fill, capacity = m.fill[following], m.capacity[now] if active else w.nothing
        impact, per_share = m.impact[now], m.per_share[now]
        executed, equity, traded = entries.executed[e], entries.fill_equity[e], entries.shares[e]

        invalid += _decide(c, m, shares, seen.allowed[e], chosen[e], executed, w)
        _force(c, g, active, s.halt[e], s.equity[e], s.value[e], w)
        for a in range(caps.size):
            w.budget[a] = seen.risk[e, a] * caps[a] * s.equity[e, a]
        days = m.days[following] if active else 0.0
        _carry(c, g, days, s.cash[e], s.value[e], entries.interest[e], entries.borrow[e], w.carried, w)
        _appraise(c, g, shares, fill, caps, equity, w)
        _reduce(c, g, shares, fill, capacity, turnover, equity, w)
        _ask(c, g, now, shares, s.mark[e], capacity, executed, seen.slots[e], w)
        _limit(c, g, fill, m.gone[following], active, impact, per_share, caps, turnover, equity, entries.closed[e], w)
        _pay(c, g, fill, impact, per_share, traded, entries.commission[e], entries.slippage[e], entries.paid[e], w)
        spent = pool(g, w.paid_out, w.sums[0])
        notional = pool(g, w.notional, w.sums[1])
        for a in range(caps.size):
            after.cash[e, a] = w.carried[a] - spent[a]
            entries.notional[e, a] = notional[a]
    return invalid
