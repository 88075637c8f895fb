"""The step of `stepping` fused for a CPU: one pass over the environments, compiled by numba on first use and cached.

Same rules, same order of operations per symbol; only sums over symbols associate differently, so results agree with
the tensor code to rounding (a test holds it). No environment reads another's state: bits do not depend on threads.
Comments name the steps of docs/timeline.md.
"""

from __future__ import annotations

import math
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


def _compiled(function: F) -> F:
    # error_model numpy: 1 / 0 is inf, as in the tensor code; no fastmath: operations keep their order.
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


class Constants(NamedTuple):
    """The numbers of a game (`limits.Rules`, `accounts.Terms`, `game.Game`). All that the compiled code knows comes in
    through here: a constant of another module would be frozen into the cache."""

    pooled: bool
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
    floor: float
    reward_scale: float
    smallest_order: float
    headroom: float
    slot_stride: int
    buys: int  # bytes of the packed mask
    sells: int
    add: int
    memory: float


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
    in_play: Bools  # [N]
    buy_size: Floats  # [7]
    sell_size: Floats  # [7]
    directives: Floats  # [rows, 6]
    log_bars: Singles  # [bars + 1], observed durations


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


class Entries(NamedTuple):
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


class Sight(NamedTuple):
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


@_compiled
def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@_compiled
def _cap(c: Constants, halt: int, share: float) -> float:
    reduced = 1.0 if 0 < halt <= c.cool_down else 0.0
    return c.cap * share * (1.0 - (1.0 - c.reentry_scale) * reduced)


@_compiled
def _slots(c: Constants, share: float) -> float:
    return max(math.floor(c.open_positions * share + 1e-9), 1.0)


@_compiled
def _cost_rate(base: float, impact: float, per_share: float, shares: float) -> float:
    return math.sqrt(min(shares * per_share, 1.0)) * impact + base


@_compiled
def _log_bars(table: Singles, bars: np.float32) -> np.float32:
    index = int(bars)
    if index < table.size:
        return np.float32(table[index])
    return np.float32(np.log1p(bars)) * np.float32(0.2)


@_compiled
def _grant_slots(granted: Bools, action: Ints, first: int, free: float) -> None:
    """`limits.grant_slots` on one portfolio; `granted` comes in as who would open a position."""
    size = granted.size
    given = 0
    for tier in range(3):
        for turn in range(size):
            n = first + turn
            if n >= size:
                n -= size
            if granted[n] and _clamp(3 - action[n], 0, 2) == tier:
                given += 1
                if given > free:
                    granted[n] = False


@_compiled
def look(first: int, last: int, c: Constants, m: Tables, s: State, sight: Sight) -> None:
    """Masks and observations of environments `first` .. `last` - 1 (`TensorEngine.look`)."""
    accounts, size = s.cash.shape[1], s.shares.shape[1]
    bar, equities, peaks, cashes, halts, turnovers = s.bar, s.equity, s.peak, s.cash, s.halt, s.turnover
    values, invested, duration, idle, trades = s.value, s.invested, s.duration, s.idle, s.trades
    rows, directives, caps = s.directive, m.directives, sight.caps
    tradable, in_play, log_bars = m.tradable, m.in_play, m.log_bars
    allowed, positions, portfolio = sight.allowed, sight.positions, sight.portfolio
    for e in range(first, last):
        now = bar[e]
        for a in range(accounts):
            start, stop = (0, size) if c.pooled else (a, a + 1)
            row = rows[e, a]
            halt, equity = halts[e, a], equities[e, a]
            cap = _cap(c, halt, directives[row, 1])
            caps[e, a] = cap
            if c.decide_every > 0:
                sight.risk[e, a], sight.cap_share[e, a] = directives[row, 0], directives[row, 1]
                sight.slots[e, a] = _slots(c, directives[row, 2])
                for column in range(directives.shape[1]):
                    sight.observed[e, a, column] = directives[row, column]
            gross, paid, squares, largest, held = 0.0, 0.0, 0.0, 0.0, 0
            for n in range(start, stop):
                value = values[e, n]
                gross += value
                held += value > 0.0
                if c.pooled:
                    paid += invested[e, n]
                    squares += value * value
                    largest = max(largest, value)
            blocked = halt > c.cool_down
            most_trades = c.trades if c.counts else 1 << 31
            smallest = c.smallest_order * cap * equity
            trading = turnovers[e, a] < c.turnover * (1.0 - c.headroom)
            funded = trading and c.exposure * equity - gross > smallest
            slot = not c.pooled or held < _slots(c, directives[row, 2])
            positive = max(equity, 1e-9)
            full = max(positive * cap, 1e-9)
            fallen = np.float32(_clamp((1.0 - equity / peaks[e, a]) * c.drawdown_scale, 0.0, 1.5))
            liquid = np.float32(_clamp(cashes[e, a] / positive, -1.0, 1.0))
            state = np.float32((0.5 if halt > 0 else 0.0) + (0.5 if blocked else 0.0))
            for n in range(start, stop):
                value, spent = values[e, n], invested[e, n]
                # Without branches: who may do what is not predictable, and a wrong guess costs more than the rest.
                free = tradable[now, n] & in_play[n] & (not blocked) & (trades[e, n] < most_trades)
                own = value > 0.0
                buy = free & funded & (cap * equity - value > smallest)
                mask = c.buys * (buy & (own | slot)) + c.sells * (free & own & trading)
                allowed[e, n] = mask + c.add * (buy & own & (value > spent)) + 1
                positions[e, n, 0] = min(value / full, 2.0)
                positions[e, n, 1] = min(value / positive, 2.0)
                positions[e, n, 2] = _clamp((value - spent) / max(spent, 1e-12) * 10.0, -5.0, 5.0)
                positions[e, n, 3] = _log_bars(log_bars, duration[e, n])
                positions[e, n, 4] = _log_bars(log_bars, idle[e, n])
                positions[e, n, 5] = fallen
                positions[e, n, 6] = liquid
                positions[e, n, 7] = state
            if c.pooled:
                mean = s.mean[e, a]
                deviation = np.sqrt(max(s.square[e, a] - mean * mean, np.float32(0.0)))
                portfolio[e, a, 0] = liquid
                portfolio[e, a, 1] = _clamp(gross / positive, 0.0, 5.0)
                portfolio[e, a, 2] = fallen
                portfolio[e, a, 3] = _clamp(mean / (deviation + np.float32(1e-4)), -3.0, 3.0)
                portfolio[e, a, 4] = min(deviation * 50.0, 5.0)
                portfolio[e, a, 5] = held / c.open_positions
                portfolio[e, a, 6] = min(s.last_turnover[e, a], 2.0)
                portfolio[e, a, 7] = squares / max(gross * gross, 1e-18)
                portfolio[e, a, 8] = min(largest / positive / c.cap, 2.0)
                portfolio[e, a, 9] = _clamp((gross - paid) / max(paid, 1e-9) * 10.0, -5.0, 5.0)
                portfolio[e, a, 10] = _clamp(s.last_return[e, a] * 50.0, -5.0, 5.0)
                portfolio[e, a, 11] = state


@_compiled
def step(
    first: int,
    last: int,
    c: Constants,
    m: Tables,
    s: State,
    allowed: Ints,
    chosen: Ints,
    master: Ints,
    after: State,
    entries: Entries,
    sight: Sight,
) -> int:
    """Plays environments `first` .. `last` - 1 by one bar and looks at the result (`TensorEngine.step`).

    Returns:
        How many of the chosen actions are none of the seven (they are played as HOLD; the caller raises).
    """
    accounts, size = s.cash.shape[1], s.shares.shape[1]
    shares, invested, marks, values, trades = s.shares, s.invested, s.mark, s.value, s.trades
    mark_table, fill_table, capacity_table, gone_table = m.mark, m.fill, m.capacity, m.gone
    per_share_table, impact_table, buy_size, sell_size = m.per_share, m.impact, m.buy_size, m.sell_size
    executed = entries.executed
    directives = m.directives
    old_directive, old_halt, old_equity, old_cash, old_turnover = s.directive, s.halt, s.equity, s.cash, s.turnover
    old_alive, old_peak, old_mean, old_square = s.alive, s.peak, s.mean, s.square
    out_borrow, out_interest, out_notional, out_fill_equity, out_tripped = (
        entries.borrow,
        entries.interest,
        entries.notional,
        entries.fill_equity,
        entries.tripped,
    )
    out_reentered, out_growth, out_gross = entries.reentered, entries.growth, entries.gross
    new_cash, new_equity, new_peak, new_halt, new_alive = after.cash, after.equity, after.peak, after.halt, after.alive
    new_turnover, new_directive, new_last_return, new_last_turnover, new_mean = (
        after.turnover,
        after.directive,
        after.last_return,
        after.last_turnover,
        after.mean,
    )
    new_square = after.square
    duration, idle = s.duration, s.idle
    out_traded, out_price, out_pnl, out_closed = entries.shares, entries.price, entries.price_pnl, entries.closed
    out_commission, out_slippage, out_paid, out_own = entries.commission, entries.slippage, entries.paid, entries.own
    new_shares, new_invested, new_mark, new_value = after.shares, after.invested, after.mark, after.value
    new_duration, new_idle, new_trades = after.duration, after.idle, after.trades
    worth, sold, wanted, opening = np.empty(size), np.empty(size), np.empty(size), np.empty(size, np.bool_)
    invalid = 0
    for e in range(first, last):
        now, end = s.bar[e], s.end[e]
        active = now < end
        following = min(now + 1, end)
        days = m.days[following] if active else 0.0
        opens = m.new_session[min(following + 1, m.new_session.size - 1)]
        decides = c.decide_every > 0 and s.steps[e] % c.decide_every == 0
        for a in range(accounts):
            start, stop = (0, size) if c.pooled else (a, a + 1)
            row, halt, before = old_directive[e, a], old_halt[e, a], old_equity[e, a]
            cap = _cap(c, halt, directives[row, 1])

            # Orders at the close of t.
            budget = directives[row, 0] * cap * before
            forced = active and halt == c.liquidating
            least = 1.0 if forced else 0.0
            if c.leveraged:
                exposed = 0.0
                for n in range(start, stop):
                    exposed += values[e, n]
                excess = 1.0 - c.leverage * max(before, 0.0) / max(exposed, 1e-300)
                if active and excess > 0.0:
                    forced = True
                    least = max(least, excess)

            # 1 carry.
            cash = old_cash[e, a]
            interest = max(cash, 0.0) * (days * c.cash_per_day)
            borrow = max(-cash, 0.0) * (days * c.borrow_per_day)
            cash = cash + interest - borrow
            gross, held = 0.0, 0
            for n in range(start, stop):
                worth[n] = shares[e, n] * fill_table[following, n]
                gross += worth[n]
                held += shares[e, n] > 0.0
            equity = cash + gross
            smallest = c.smallest_order * cap * equity

            # 2 sell, and what the buys ask for.
            sale, openings = 0.0, 0
            for n in range(start, stop):
                action = chosen[e, n]
                if action < 0 or action >= buy_size.size:
                    invalid += 1
                    action = 0
                action = action * ((allowed[e, n] >> (action * 8)) & 1)
                executed[e, n] = action
                capacity = capacity_table[now, n] if active else 0.0
                part = max(sell_size[action], least)
                sold[n] = 0.0
                if part > 0.0:
                    if (1.0 - part) * worth[n] < smallest:
                        part = max(part, np.ceil(part))
                    sold[n] = min(part * shares[e, n], capacity)
                    sale += sold[n] * fill_table[following, n]
                wanted[n] = 0.0
                opening[n] = False
                if buy_size[action] > 0.0:
                    wanted[n] = min(buy_size[action] * budget / marks[e, n], capacity)
                    opening[n] = wanted[n] > 0.0 and not shares[e, n] > 0.0
                    openings += opening[n]
            room = max(c.turnover - old_turnover[e, a], 0.0) * equity
            scale = _clamp(room / max(sale, 1e-300), 0.0, 1.0)
            if forced:
                scale = max(scale, 1.0)

            # 3 buy: slots, cap, then pro rata.
            if c.pooled and openings > 0:
                free_slots = _slots(c, directives[row, 2]) - held
                if openings > free_slots:
                    _grant_slots(opening, executed[e], now * c.slot_stride % size, free_slots)
                    for n in range(size):
                        if not opening[n] and not shares[e, n] > 0.0:
                            wanted[n] = 0.0
            sale, sale_cost, total, cost = 0.0, 0.0, 0.0, 0.0
            for n in range(start, stop):
                sold[n] *= scale
                if active and gone_table[following, n]:
                    sold[n] += shares[e, n]
                if sold[n] == 0.0 and wanted[n] == 0.0:
                    continue
                fill = fill_table[following, n]
                amount = min(wanted[n] * fill, max(cap * equity - worth[n], 0.0))
                rate = _cost_rate(c.base, impact_table[now, n], per_share_table[now, n], amount / fill + sold[n])
                proceeds = sold[n] * fill
                sale += proceeds
                sale_cost += proceeds * rate
                total += amount
                cost += amount * rate
                wanted[n] = amount
            limit = c.exposure * (1.0 - c.headroom)
            remaining = equity - sale_cost
            fundable = (limit * remaining - (gross - sale)) / max(total + limit * cost, 1e-300)
            room = (c.turnover - old_turnover[e, a]) * (1.0 - c.headroom) * equity - sale
            scale = _clamp(min(fundable, room / max(total, 1e-300)), 0.0, 1.0)
            most = cap * (1.0 - c.headroom) * (remaining - scale * cost)

            # 4 pay, 5 mark.
            start_equity = max(before, c.floor)
            alive = old_alive[e, a]
            spent, notional, gross_after, holdings = 0.0, 0.0, 0.0, 0.0
            for n in range(start, stop):
                fill, mark = fill_table[following, n], mark_table[following, n]
                had = shares[e, n]
                paid, bought, commission, slippage = 0.0, 0.0, 0.0, 0.0
                if sold[n] != 0.0 or wanted[n] != 0.0:
                    amount = min(scale * wanted[n], max(most - worth[n], 0.0))
                    if amount < smallest:
                        amount = 0.0
                    bought = amount / fill
                    rate = _cost_rate(c.base, impact_table[now, n], per_share_table[now, n], bought + sold[n])
                    proceeds = sold[n] * fill
                    traded_money = amount + proceeds
                    commission = traded_money * c.commission
                    slippage = traded_money * (rate - c.commission)
                    paid = amount + amount * rate
                    spent += amount - proceeds + traded_money * rate
                    notional += traded_money
                traded = bought - sold[n]
                holding = had + traded
                value = holding * mark
                pnl = had * (mark - marks[e, n]) + traded * (mark - fill)
                gross_after += value
                holdings += holding
                out_traded[e, n] = traded
                out_price[e, n] = fill
                out_commission[e, n] = commission
                out_slippage[e, n] = slippage
                out_pnl[e, n] = pnl
                out_closed[e, n] = active and gone_table[following, n] and had > 0.0
                out_paid[e, n] = paid
                new_shares[e, n] = holding
                new_invested[e, n] = paid + invested[e, n] * min(holding / max(had, 1e-200), 1.0)
                new_mark[e, n] = mark
                new_value[e, n] = value
                new_duration[e, n] = duration[e, n] + np.float32(1.0) if holding > 0.0 else np.float32(0.0)
                new_idle[e, n] = idle[e, n] + np.float32(1.0) if traded == 0.0 else np.float32(0.0)
                if c.counts:
                    mine = trades[e, n] + (traded != 0.0 and executed[e, n] != 0)
                    new_trades[e, n] = 0 if opens else mine
                if c.pooled:
                    own = np.float32((pnl - commission - slippage) / start_equity * c.reward_scale)
                    out_own[e, n] = own if alive else np.float32(0.0)
            cash -= spent
            final = cash + gross_after

            # 6 judge.
            flat = holdings == 0.0
            moved = max(halt - 1 + (halt == c.liquidating and not flat), 0)
            reentered = moved == c.cool_down and halt == c.cool_down + 1
            peak = max(0.0 if reentered else old_peak[e, a], final)
            tripped = moved <= c.cool_down and final <= peak * (1.0 - c.drawdown) and peak > final
            if tripped:
                moved = c.liquidating - flat
            turned = notional / max(equity, c.floor)
            growth = np.float32(math.log(max(final, c.floor) / start_equity))  # as log1p of the float32 return
            growth = growth * np.float32(c.reward_scale) if alive else np.float32(0.0)
            alive = alive and final > c.floor
            out_borrow[e, a] = borrow
            out_interest[e, a] = interest
            out_notional[e, a] = notional
            out_fill_equity[e, a] = equity
            out_tripped[e, a] = tripped
            out_reentered[e, a] = reentered
            out_growth[e, a] = growth
            new_cash[e, a] = cash
            new_equity[e, a] = final
            new_peak[e, a] = peak
            new_halt[e, a] = moved if alive else c.liquidating
            new_alive[e, a] = alive
            if c.counts:
                new_turnover[e, a] = 0.0 if opens else old_turnover[e, a] + turned
            if decides:
                new_directive[e, a] = master[e, a]
            elif c.decide_every > 0:
                new_directive[e, a] = row
            if c.pooled:
                out_gross[e, a] = gross_after
                memory = np.float32(c.memory)
                change = np.float32(final / start_equity - 1.0)
                new_last_return[e, a] = change
                new_last_turnover[e, a] = turned
                new_mean[e, a] = old_mean[e, a] + memory * (change - old_mean[e, a])
                new_square[e, a] = old_square[e, a] + memory * (change * change - old_square[e, a])
        after.bar[e] = following
        after.steps[e] = s.steps[e] + 1
        look(e, e + 1, c, m, after, sight)
    return invalid
