"""The money: what a book holds, how orders fill at the next bar, and what the books say afterwards.

One code for both modes: `[E, N]` per symbol, `[E, A]` per account, `Rules.pool` between them. Money is float64 and
every step satisfies: equity change = price P&L - commission - slippage - borrow + interest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from marl_pipeline.envs.trading.limits import HEADROOM, MIN_ORDER, Rules, grant_slots

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
        buy: [E, N] shares to buy; 0 where `sell` is not.
        sell: [E, N] share of the position to sell.
        forced: [E, A] the account is being liquidated or deleveraged: its sales know no turnover limit.
        caps: [E, A] the most value / equity of one position.
        slots: [E, 1] the most open positions, or None for accounts.
        first: [E, 1] the symbol served first when slots run short.
        turnover: [E, A] of the session so far, as a multiple of equity.
    """

    action: Tensor
    buy: Tensor
    sell: Tensor
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
        paid: [E, N] money spent on buys, costs included.
        borrow, interest: [E, A] carried on the cash held over the bars.
        notional: [E, A] traded.
        fill_equity: [E, A] equity at the fill prices, before trading.
        cash, gross, equity: [E, A] after the mark.
        holding, value: [E, N] shares, and money in the position, after the mark.
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

    In order: interest or borrow fee for the days since the last mark; sales (at most the capacity, scaled down by what
    is left of the session's turnover); buys (capacity, free slots, position cap at the fill price, then pro rata to
    exposure, cash and turnover); costs on every share traded; the mark. Where the capacity is 0 orders are cancelled.
    """
    interest = cash.clamp(min=0.0) * (bar.days * (terms.cash / DAYS_PER_YEAR))
    borrow = (-cash).clamp(min=0.0) * (bar.days * (terms.borrow / DAYS_PER_YEAR))
    carried = cash + interest - borrow
    value = shares * bar.fill
    gross = rules.pool(value)
    equity = carried + gross
    smallest = MIN_ORDER * orders.caps * equity

    leaving = bar.gone * shares
    sold = _sales(rules, bar, orders, shares, value, equity, smallest) + leaving
    wanted = torch.minimum(orders.buy, bar.capacity)
    if orders.slots is not None:
        held = shares > 0.0
        free_slots = orders.slots - held.sum(-1, keepdim=True)
        opening = (wanted > 0.0) & ~held
        denied = opening & ~grant_slots(opening, orders.action, orders.first, free_slots)
        wanted = wanted * (~denied)
    sale = sold * bar.fill
    amount = _buys(rules, terms, bar, orders, wanted, sold, sale, value, gross, equity, smallest)
    bought = amount / bar.fill

    traded = bought - sold
    notional = amount + sale
    rate = _cost_rate(terms, bar, bought + sold)
    commission = notional * terms.commission
    slippage = notional * (rate - terms.commission)
    holding = shares + traded
    after = carried - rules.pool(amount - sale + notional * rate)
    price_pnl = torch.addcmul(shares * (bar.next_mark - bar.mark), traded, bar.next_mark - bar.fill)
    next_value = holding * bar.next_mark
    next_gross = rules.pool(next_value)
    return Ledger(
        shares=traded,
        price=bar.fill,
        commission=commission,
        slippage=slippage,
        price_pnl=price_pnl,
        closed=leaving > 0.0,
        paid=torch.addcmul(amount, amount, rate),
        borrow=borrow,
        interest=interest,
        notional=rules.pool(notional),
        fill_equity=equity,
        cash=after,
        gross=next_gross,
        equity=after + next_gross,
        holding=holding,
        value=next_value,
    )


def _sales(
    rules: Rules, bar: Bar, orders: Orders, shares: Tensor, value: Tensor, equity: Tensor, smallest: Tensor
) -> Tensor:
    """Shares to sell of the symbols that are still there."""
    leaves_dust = (1.0 - orders.sell) * value < smallest
    part = torch.maximum(orders.sell, orders.sell.ceil() * leaves_dust)
    sold = torch.minimum(part * shares, bar.capacity)
    room = (rules.turnover - orders.turnover).clamp(min=0.0) * equity
    scale = (room / rules.pool(sold * bar.fill).clamp(min=1e-300)).clamp(min=0.0, max=1.0)
    return sold * torch.maximum(scale, orders.forced.double())


def _buys(
    rules: Rules,
    terms: Terms,
    bar: Bar,
    orders: Orders,
    wanted: Tensor,
    sold: Tensor,
    sale: Tensor,
    value: Tensor,
    gross: Tensor,
    equity: Tensor,
    smallest: Tensor,
) -> Tensor:
    """Money to buy for, such that no limit is exceeded at the fill price after all costs.

    Costs of the unscaled orders bound those of the scaled ones from above (the rate of slippage falls with size), so
    exposure <= limit x equity and value <= cap x equity hold for equity net of the costs of this very trade.
    """
    limit = rules.exposure * (1.0 - HEADROOM)
    amount = torch.minimum(wanted * bar.fill, (orders.caps * equity - value).clamp(min=0.0))
    rate = _cost_rate(terms, bar, amount / bar.fill + sold)  # no symbol buys and sells at once
    remaining = equity - rules.pool(sale * rate)
    cost = rules.pool(amount * rate)
    total = rules.pool(amount)
    sales = rules.pool(sale)
    fundable = (limit * remaining - (gross - sales)) / (total + limit * cost).clamp(min=1e-300)
    room = (rules.turnover - orders.turnover) * (1.0 - HEADROOM) * equity - sales
    scale = torch.minimum(fundable, room / total.clamp(min=1e-300)).clamp(min=0.0, max=1.0)
    lowest = remaining - scale * cost
    amount = torch.minimum(scale * amount, (orders.caps * (1.0 - HEADROOM) * lowest - value).clamp(min=0.0))
    return amount * (amount >= smallest)
