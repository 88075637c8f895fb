"""The money: what a book holds, how orders fill at the next bar, and what the books say afterwards.

One code for every partition of the symbols into accounts: `[E, N]` per symbol, `[E, A]` per account, `Rules.pool` and
`Rules.spread` between them. Money is float64 and every step satisfies:
equity change = price P&L - commission - slippage - borrow + interest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from marl_pipeline.envs.trading.core.limits import HEADROOM, Rules, grant_slots

DAYS_PER_YEAR = 365.0


@dataclass(frozen=True)
class Terms:
    """What trading and carrying cost: rates per side as fractions of notional, carry per year."""

    commission: float
    slippage: float
    borrow: float
    cash: float


class Bar(NamedTuple):
    """What the market says of the step from bar `t` to `t + 1`; [E, N] float64 unless said otherwise.

    Attributes:
        mark: known at `t`.
        capacity: shares that an order may trade: known at `t`, 0 where nothing fills at `t + 1`; finite.
        per_share: 1 / capacity, huge where that is 0.
        impact: slippage beyond the base of an order as large as the capacity, known at `t`.
        fill: price at `t + 1` (the mark of `t` where nothing fills).
        gone: 1 where a position is closed for good at `t + 1`, else 0; the capacity is 0 there.
        next_mark: at `t + 1`.
        days: [E, 1] calendar days from `t` to `t + 1`.
    """

    mark: Tensor
    capacity: Tensor
    per_share: Tensor
    impact: Tensor
    fill: Tensor
    gone: Tensor
    next_mark: Tensor
    days: Tensor


class Orders(NamedTuple):
    """What is asked of the market at `t`.

    Attributes:
        action: [E, N] int64 as executed (what the mask refuses is HOLD by now).
        side: [E, N] 1 or -1: the side of the position, or of the one to be opened; [1, 1] where all are long.
        increase: [E, N] shares by which the position is to grow; 0 where `reduce` is not.
        reduce: [E, N] share of the position to be closed.
        forced: [E, A] the account is being liquidated or deleveraged: its reductions know no turnover limit.
        caps: [E, A] the most value / equity of one position.
        slots: [E, A] the most open positions, or None for accounts of one symbol.
        first: [E, A] which symbol of the account is served first when slots run short.
        turnover: [E, A] of the session so far, as a multiple of equity.
    """

    action: Tensor
    side: Tensor
    increase: Tensor
    reduce: Tensor
    forced: Tensor
    caps: Tensor
    slots: Tensor | None
    first: Tensor
    turnover: Tensor


class Ledger(NamedTuple):
    """What one step did to the books; money is float64.

    Attributes:
        shares: [E, N] traded, buys positive.
        price: [E, N] of the fill, before costs.
        commission, slippage: [E, N].
        price_pnl: [E, N] gain of the position by price alone, from the last mark to this one.
        closed: [E, N] bool, a position in a symbol that is gone was closed at its last price.
        paid: [E, N] money spent on increases, costs included; what a short sale brings, net of costs, is negative.
        borrow, interest: [E, A] carried over the bars.
        notional: [E, A] traded.
        fill_equity: [E, A] equity at the fill prices, before trading.
        cash, gross, equity: [E, A] after the mark; `gross` counts long and short alike.
        holding, value: [E, N] shares, and money in the position, after the mark; negative when short.
    """

    shares: Tensor
    price: Tensor
    commission: Tensor
    slippage: Tensor
    price_pnl: Tensor
    closed: Tensor
    paid: Tensor
    borrow: Tensor
    interest: Tensor
    notional: Tensor
    fill_equity: Tensor
    cash: Tensor
    gross: Tensor
    equity: Tensor
    holding: Tensor
    value: Tensor


# Choices by 0/1 factors instead of torch.where: on a CPU the latter costs 15 multiplications.


def _cost_rate(terms: Terms, bar: Bar, shares: Tensor) -> Tensor:
    """Commission and slippage per notional of orders of `shares` [E, N] >= 0.

    Slippage is base + impact x sqrt(shares / capacity), the ratio at most 1: orders within capacity are never above
    it, and a forced close of a symbol that is gone pays the full impact.
    """
    share = (shares * bar.per_share).clamp(max=1.0)
    return share.sqrt().mul_(bar.impact).add_(terms.commission + terms.slippage)


def execute(rules: Rules, terms: Terms, bar: Bar, orders: Orders, cash: Tensor, shares: Tensor) -> Ledger:
    """Carries, fills and marks: `cash` [E, A] and `shares` [E, N] at `t` become those at `t + 1`.

    In order: interest and borrow fee for the days since the last mark; reductions (at most the capacity, scaled down by
    what is left of the session's turnover); increases (capacity, free slots, position cap at the fill price, then pro
    rata to exposure, cash and turnover); costs on every share traded; the mark. Where the capacity is 0 orders are
    cancelled. No order carries a position across zero.
    """
    interest, borrow = _carry(rules, terms, bar, cash, shares)
    carried = cash + interest - borrow
    worth = shares * bar.fill
    value = rules.size(worth)
    gross = rules.pool(value)
    equity = carried + rules.pool(worth)
    smallest = rules.min_order * orders.caps * equity

    size = rules.size(shares)
    leaving = bar.gone * size
    reduced = _reductions(rules, bar, orders, size, value, equity, smallest) + leaving
    wanted = torch.minimum(orders.increase, bar.capacity)
    if orders.slots is not None:
        held = size > 0.0
        opening = (wanted > 0.0) & ~held
        wanted = wanted * (~_denied(rules, orders, orders.slots, held, opening))
    closed = reduced * bar.fill
    amount = _increases(rules, terms, bar, orders, wanted, reduced, closed, value, gross, equity, smallest)
    increased = amount / bar.fill

    traded = orders.side * (increased - reduced)
    notional = amount + closed
    rate = _cost_rate(terms, bar, increased + reduced)
    commission = notional * terms.commission
    slippage = notional * (rate - terms.commission)
    holding = shares + traded
    after = carried - rules.pool(orders.side * (amount - closed) + notional * rate)
    price_pnl = torch.addcmul(shares * (bar.next_mark - bar.mark), traded, bar.next_mark - bar.fill)
    next_value = holding * bar.next_mark
    return Ledger(
        shares=traded,
        price=bar.fill,
        commission=commission,
        slippage=slippage,
        price_pnl=price_pnl,
        closed=leaving > 0.0,
        paid=torch.addcmul(orders.side * amount, amount, rate),
        borrow=borrow,
        interest=interest,
        notional=rules.pool(notional),
        fill_equity=equity,
        cash=after,
        gross=rules.pool(rules.size(next_value)),
        equity=after + rules.pool(next_value),
        holding=holding,
        value=next_value,
    )


def _denied(rules: Rules, orders: Orders, slots: Tensor, held: Tensor, opening: Tensor) -> Tensor:
    """[E, N] bool: would open a position, and gets no slot."""
    partition = rules.partition
    free = slots - partition.count(held)
    if partition.kind == "one":
        return opening & ~grant_slots(opening, orders.action, orders.first, free)
    rows, action = partition.rows(opening), partition.rows(orders.action)
    granted = grant_slots(rows, action, orders.first.unsqueeze(-1), free.unsqueeze(-1))
    return opening & ~partition.symbols(granted)


def _carry(rules: Rules, terms: Terms, bar: Bar, cash: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Interest earned and borrow fee paid: [E, A] each.

    Cash to the market value of the shorts is locked up as their collateral: it earns nothing, and longs it would pay
    for are owed to the lender like any debit. The fee is on that debit, `max(longs - equity, 0)`, and on the shorts.
    """
    if rules.shorting:
        short = rules.pool((-shares * bar.mark).clamp(min=0.0))
        free = cash - short
        owed = (-free).clamp(min=0.0) + short
    else:
        free, owed = cash, (-cash).clamp(min=0.0)
    interest = free.clamp(min=0.0) * (bar.days * (terms.cash / DAYS_PER_YEAR))
    return interest, owed * (bar.days * (terms.borrow / DAYS_PER_YEAR))


def _reductions(
    rules: Rules, bar: Bar, orders: Orders, size: Tensor, value: Tensor, equity: Tensor, smallest: Tensor
) -> Tensor:
    """Shares to close of the symbols that are still there."""
    leaves_dust = (1.0 - orders.reduce) * value < rules.spread(smallest)
    part = torch.maximum(orders.reduce, orders.reduce.ceil() * leaves_dust)
    reduced = torch.minimum(part * size, bar.capacity)
    turnover_left = (rules.turnover - orders.turnover).clamp(min=0.0) * equity
    scale = (turnover_left / rules.pool(reduced * bar.fill).clamp(min=1e-300)).clamp(min=0.0, max=1.0)
    return reduced * rules.spread(torch.maximum(scale, orders.forced.double()))


def _increases(
    rules: Rules,
    terms: Terms,
    bar: Bar,
    orders: Orders,
    wanted: Tensor,
    reduced: Tensor,
    closed: Tensor,
    value: Tensor,
    gross: Tensor,
    equity: Tensor,
    smallest: Tensor,
) -> Tensor:
    """Money by which positions grow, such that no limit is exceeded at the fill price after all costs.

    Costs of the unscaled orders bound those of the scaled ones from above (the rate of slippage falls with size), so
    exposure <= limit x equity and value <= cap x equity hold for equity net of the costs of this very trade.
    """
    limit = rules.exposure * (1.0 - HEADROOM)
    amount = torch.minimum(wanted * bar.fill, (rules.spread(orders.caps * equity) - value).clamp(min=0.0))
    rate = _cost_rate(terms, bar, amount / bar.fill + reduced)  # no symbol grows and shrinks at once
    remaining = equity - rules.pool(closed * rate)
    cost = rules.pool(amount * rate)
    total = rules.pool(amount)
    freed = rules.pool(closed)
    fundable = (limit * remaining - (gross - freed)) / (total + limit * cost).clamp(min=1e-300)
    turnover_left = (rules.turnover - orders.turnover) * (1.0 - HEADROOM) * equity - freed
    scale = torch.minimum(fundable, turnover_left / total.clamp(min=1e-300)).clamp(min=0.0, max=1.0)
    lowest = remaining - scale * cost
    most = rules.spread(orders.caps * (1.0 - HEADROOM) * lowest)
    amount = torch.minimum(rules.spread(scale) * amount, (most - value).clamp(min=0.0))
    return amount * (amount >= rules.spread(smallest))
