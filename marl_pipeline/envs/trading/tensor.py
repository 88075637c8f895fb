"""A step of the game in tensor operations: on any device, and the plain wording of the rules that the compiled step is
held equal to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from marl_pipeline.envs.trading.core.accounts import Bar, Ledger, Orders, execute
from marl_pipeline.envs.trading.core.actions import ACTIONS, Action
from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.game import SLOT_STRIDE, Game, Outcome, View, look_up
from marl_pipeline.envs.trading.core.limits import Switch, admitted, kill_switch, permissions
from marl_pipeline.envs.trading.core.observation import MEMORY, observe_portfolio, observe_positions


@dataclass(frozen=True)
class TensorEngine:
    """Implements `game.Engine`."""

    game: Game

    def step(self, book: Book, view: View, chosen: Tensor, master: Tensor | None) -> tuple[Outcome, View]:
        executed = admitted(view.allowed, chosen)
        active = (book.bar < book.end).unsqueeze(-1)
        return self.carry_out(book, view, _orders(self.game, book, view, executed, active), master)

    def carry_out(self, book: Book, view: View, orders: Orders, master: Tensor | None) -> tuple[Outcome, View]:
        """Fills `orders`, whoever gave them, at the next bar, marks them and applies the kill switch."""
        game, executed = self.game, orders.action
        active = (book.bar < book.end).unsqueeze(-1)
        following = torch.minimum(book.bar + 1, book.end)
        bar = _bar(game, book, following, active)
        ledger = execute(game.rules, game.terms, bar, orders, book.cash, book.shares)
        after, switch = _settle(game, book, ledger, bar, executed, following, master)
        growth, own = _net(game, book, ledger)
        outcome = Outcome(after, ledger, executed, switch.tripped, switch.reentered, growth, own)
        return outcome, self.observe(after, view)

    def observe(self, book: Book, known: View | None) -> View:
        game, rules = self.game, self.game.rules
        directive = look_up(game, book.directive, None if known is None else known.directive)
        caps = rules.caps(book.halt, directive.cap_share)
        free = (
            game.market.tradable.index_select(0, book.bar) & game.in_universe & rules.spread(~rules.blocked(book.halt))
        )
        if game.counts:
            free = free & (book.trades < rules.trades)
        allowed = permissions(
            rules,
            free=free,
            value=book.value,
            invested=book.invested,
            equity=book.equity,
            caps=caps,
            gross=rules.pool(rules.size(book.value)),
            turnover=book.turnover,
            open_count=rules.partition.count(book.value != 0.0) if rules.pooled else None,
            slots=directive.slots,
        ).packed()
        portfolio = observe_portfolio(rules, book) if rules.pooled else None
        return View(directive, caps, allowed, observe_positions(rules, book, caps), portfolio)


def _bar(game: Game, book: Book, following: Tensor, active: Tensor) -> Bar:
    market, now = game.market, book.bar
    share = active.double()
    return Bar(
        mark=book.mark,
        capacity=game.capacity.index_select(0, now) * share,
        per_share=game.per_share.index_select(0, now),
        impact=market.impact.index_select(0, now),
        fill=market.fill.index_select(0, following),
        gone=market.gone.index_select(0, following) * share,
        next_mark=market.mark.index_select(0, following),
        days=market.days.index_select(0, following).unsqueeze(-1) * share,
    )


def _orders(game: Game, book: Book, view: View, executed: Tensor, active: Tensor) -> Orders:
    rules = game.rules
    budget = view.directive.risk * view.caps * book.equity
    forced = (book.halt == rules.liquidating) & active
    side, row = _sides(game, book, executed)
    increase = game.increase.index_select(0, row.view(-1)).view_as(executed)
    reduce = game.reduce.index_select(0, row.view(-1)).view_as(executed)
    reduce = torch.maximum(reduce, rules.spread(forced.double()))
    if rules.leveraged:
        gross = rules.pool(rules.size(book.value))
        excess = 1.0 - rules.leverage * book.equity.clamp(min=0.0) / gross.clamp(min=1e-300)
        reduce = torch.maximum(reduce, rules.spread(excess.clamp(min=0.0) * active))
        forced = forced | (active & (excess > 0.0))
    return Orders(
        action=executed,
        side=side,
        increase=increase * rules.spread(budget) / book.mark,
        reduce=reduce,
        forced=forced,
        caps=view.caps,
        slots=view.directive.slots,
        first=(book.bar * SLOT_STRIDE).unsqueeze(-1) % rules.partition.sizes
        if rules.pooled
        else book.bar.unsqueeze(-1),
        turnover=book.turnover,
    )


def _sides(game: Game, book: Book, executed: Tensor) -> tuple[Tensor, Tensor]:
    """The side of each position, or of the one an order would open (see `Orders.side`), and the action's row in the
    tables of sizes."""
    if not game.rules.shorting:
        return torch.ones_like(book.mark[:1, :1]), executed
    selling = (executed == int(Action.SELL_PARTIAL)) | (executed == int(Action.SELL_ALL))
    short = (book.shares < 0.0) | (selling & (book.shares == 0.0))
    return 1.0 - 2.0 * short.double(), executed + len(ACTIONS) * short


def _settle(
    game: Game, book: Book, ledger: Ledger, bar: Bar, executed: Tensor, following: Tensor, master: Tensor | None
) -> tuple[Book, Switch]:
    """The books after the mark: kill switch, counters and telemetry."""
    rules = game.rules
    held = ledger.holding != 0.0
    traded = ledger.shares != 0.0
    size = rules.size(ledger.holding)
    flat = rules.pool(size) == 0.0
    switch = kill_switch(rules, book.halt, book.peak, ledger.equity, flat)
    alive = book.alive & (ledger.equity > game.floor)
    turned = ledger.notional / ledger.fill_equity.clamp(min=game.floor)
    directive = book.directive
    if master is not None and game.decide_every is not None:
        directive = torch.where((book.steps % game.decide_every == 0).unsqueeze(-1), master, directive)
    trades, turnover = book.trades, book.turnover
    if game.counts:
        opens = game.market.new_session[(following + 1).clamp(max=game.market.bars - 1)].unsqueeze(-1)
        mine = traded & (executed != int(Action.HOLD))
        trades = (trades + mine) * (~opens)
        turnover = (turnover + turned) * (~opens)
    mean, square, last_return, last_turnover = book.mean, book.square, book.last_return, book.last_turnover
    if rules.pooled:
        last_return = (ledger.equity / book.equity.clamp(min=game.floor) - 1.0).float()
        last_turnover = turned.float()
        mean = mean + MEMORY * (last_return - mean)
        square = square + MEMORY * (last_return**2 - square)
    kept = (size / rules.size(book.shares).clamp(min=1e-200)).clamp(max=1.0)
    after = replace(
        book,
        bar=following,
        steps=book.steps + 1,
        cash=ledger.cash,
        equity=ledger.equity,
        peak=switch.peak,
        halt=switch.halt + (rules.liquidating - switch.halt) * (~alive),
        alive=alive,
        turnover=turnover,
        directive=directive,
        mean=mean,
        square=square,
        last_return=last_return,
        last_turnover=last_turnover,
        shares=ledger.holding,
        invested=torch.addcmul(ledger.paid, book.invested, kept),
        mark=bar.next_mark,
        value=ledger.value,
        duration=(book.duration + 1.0) * held,
        idle=(book.idle + 1.0) * (~traded),
        trades=trades,
    )
    return after, switch


def _net(game: Game, before: Book, ledger: Ledger) -> tuple[Tensor, Tensor]:
    """Rewards `net` of the books [E, A] and of the symbols [E, N]."""
    start = before.equity.clamp(min=game.floor)
    ratio = ledger.equity.clamp(min=game.floor) / start
    growth = torch.log1p((ratio - 1.0).float())
    if game.rules.leveraged:  # ruin: ratio - 1 is too coarse in float32
        growth = torch.where(ratio < 1e-3, ratio.float().log(), growth)
    growth = growth * game.reward_scale * before.alive.float()
    if not game.rules.pooled:
        return growth, growth
    each = game.rules.spread
    own = (ledger.price_pnl - ledger.commission - ledger.slippage) / each(start) * game.reward_scale
    return growth, own.float() * each(before.alive.float())
