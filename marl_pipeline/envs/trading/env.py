"""The trading environment: E copies of the market game on one device, in one of two modes.

`accounts`: every symbol trades an account of its own. `portfolio`: the symbols share one book and its cash, and a
master's directives bound them. docs/timeline.md is the page that says what happens when in a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from marl_pipeline.config import DirectivesParams, MarketParams
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import GroupSpec, GroupStep, Timestep
from marl_pipeline.envs.trading.accounts import Bar, Ledger, Orders, Terms, execute
from marl_pipeline.envs.trading.actions import (
    ACTIONS,
    DIRECTIVE_ACTIONS,
    DIRECTIVE_FIELDS,
    Action,
    directive_table,
    encode_directive,
)
from marl_pipeline.envs.trading.book import Book
from marl_pipeline.envs.trading.costs import base_slippage_rate, commission_rate
from marl_pipeline.envs.trading.limits import Mode, Rules, admitted, judge, permissions, unpacked
from marl_pipeline.envs.trading.market import Market
from marl_pipeline.envs.trading.observation import (
    MEMORY,
    PORTFOLIO_FIELDS,
    POSITION_FIELDS,
    observe_portfolio,
    observe_positions,
)
from marl_pipeline.envs.trading.reward_scheme import RewardScheme
from marl_pipeline.errors import UserError

RUIN = 1e-6
"""An account whose equity falls to this share of its initial cash is out of the game."""

_SLOT_STRIDE = 7919

Paid = tuple[Tensor, Tensor]
"""Rewards of the symbols [E, N] and of the books [E, A]."""


class TradingEnv:
    """Implements `envs.protocol.Environment`; E = `num_envs`, N = symbols, A = N accounts or 1 portfolio.

    Groups:
        symbols: N agents, actions of `actions.Action`; observes `bar` and `symbol` (indices into the data set),
            `position` (`POSITION_FIELDS`) and `directive` (`DIRECTIVE_FIELDS`).
        master (portfolio mode with `directives`): one agent, 48 joint actions (`actions.decode_directive`); observes
            `bar`, `portfolio` (`PORTFOLIO_FIELDS`) and `directive`. It decides every `directives.decide_every` steps;
            what it says at `t` is shown to the symbols at `t + 1` and binds their orders from then on.

    Rewards (`reward_scale` times): in `accounts` the change of the log equity of the symbol's account; in `portfolio`
    a symbol gets its price P&L less its own costs over the equity before the step, which sums over symbols, with
    interest and borrow fee, to the portfolio's return, and the master the change of the log equity. That is `net`;
    `params.reward` and `params.master_reward` choose others (modules `reward`, `master_reward`).

    Attributes:
        book: the state (`Book`), read-only.
        ledger: what the last step did (`Ledger`: every fill with price and costs), None before the first.
        chosen, executed: [E, N] int64 actions of the last step before and after the mask.
        rewards: what pays whom (`RewardScheme`), with the log of the components; `rewards.net` is the truth.

    Args:
        span: bars the episodes lie in. The last bar has no next fill: an episode ends at bar `span.stop - 1`.
        episode: steps of an episode, started at random bars; None plays the whole span from its start.
        start_bars: bars at which episodes may start (with `episode`); the whole span by default.
        symbols: [N] bool, the symbols in play; the others may only hold nothing.
        random_directives: draws a directive per account at the start of an episode, so that policies trained without
            a master meet all of them.
        gamma: the learner's discount per step, for the potentials of `net_shaped`.
        benchmark: [T] level of the benchmark, for the master's excess; the equal-weight market by default.

    Raises:
        UserError: the span is too short for an episode, or no allowed start leaves room for one.
    """

    def __init__(
        self,
        market: Market,
        params: MarketParams,
        directives: DirectivesParams | None = None,
        *,
        mode: Mode,
        num_envs: int,
        span: Span,
        episode: int | None = None,
        start_bars: ArrayLike | Tensor | None = None,
        symbols: ArrayLike | Tensor | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        random_directives: bool = False,
        gamma: float = 1.0,
        benchmark: ArrayLike | None = None,
    ) -> None:
        self.market = market if device is None else market.to(device)
        self.device = self.market.device
        self.num_envs = num_envs
        self.params = params
        self.rules = Rules.of(params, mode)
        self.span = span
        self._episode = episode
        self._random_directives = random_directives
        self._decide_every = directives.decide_every if directives is not None and self.rules.pooled else None
        self._accounts = 1 if self.rules.pooled else market.size
        self._starts = self._allowed_starts(start_bars)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._terms = Terms(commission_rate(params), base_slippage_rate(params), params.borrow_rate, params.cash_rate)
        self._lookup_tables(directives, symbols)
        self.groups = self._group_specs()
        self.state_size = len(PORTFOLIO_FIELDS) + len(DIRECTIVE_FIELDS) if self.rules.pooled else 0
        self.ledger: Ledger | None = None
        self.chosen = self.executed = torch.zeros(num_envs, market.size, dtype=torch.int64, device=self.device)
        self.rewards = RewardScheme.of(
            params,
            self.rules,
            self.market,
            num_envs=num_envs,
            in_play=self._in_play,
            has_master=self._decide_every is not None,
            gamma=gamma,
            benchmark=benchmark,
        )
        self.book = self._fresh_book()
        self._done = (self._no_env(), self._no_env())
        self._look()

    # -- set-up --------------------------------------------------------------------------------------------------

    def _allowed_starts(self, start_bars: ArrayLike | Tensor | None) -> Tensor:
        span, steps = self.span, self._episode if self._episode is not None else len(self.span) - 1
        if span.start < 0 or span.stop > self.market.bars or len(span) < 2:
            raise UserError(
                f"too little history: bars {span.start} to {span.stop} of {self.market.bars} hold no step to trade"
            )
        last = span.stop - 1 - steps
        if last < span.start:
            raise UserError(
                f"too little history: a span of {len(span)} bars cannot hold an episode of {steps} steps; shorten "
                "ppo.episode or bring more bars"
            )
        if self._episode is None:
            return torch.tensor([span.start], device=self.device)
        if start_bars is None:
            return torch.arange(span.start, last + 1, device=self.device)
        starts = np.unique(np.asarray(start_bars, dtype=np.int64))
        starts = starts[(starts >= span.start) & (starts <= last)]
        if not len(starts):
            raise UserError(
                f"none of the allowed starts leaves room for an episode of {steps} steps before bar {span.stop}"
            )
        return torch.from_numpy(starts).to(self.device)

    def _lookup_tables(self, directives: DirectivesParams | None, symbols: ArrayLike | Tensor | None) -> None:
        device, size = self.device, self.market.size
        small, medium, large = self.params.entry_sizes
        buy = [0.0] * len(ACTIONS)
        sell = [0.0] * len(ACTIONS)
        buy[Action.BUY_SMALL], buy[Action.BUY_MEDIUM], buy[Action.BUY_LARGE] = small, medium, large
        buy[Action.ADD_TO_WINNER] = self.params.add_to_winner
        sell[Action.SELL_PARTIAL], sell[Action.SELL_ALL] = self.params.partial_exit, 1.0
        self._buy_size = torch.tensor(buy, dtype=torch.float64, device=device)
        self._sell_size = torch.tensor(sell, dtype=torch.float64, device=device)
        self._directives = directive_table(directives, self.params.limits).to(device)
        full = self._directives.shape[0] - 1
        self._first_directive = full if self._decide_every is None else encode_directive(3, 3, 1)
        in_play = np.ones(size, dtype=bool) if symbols is None else np.asarray(symbols, dtype=bool)
        if in_play.shape != (size,) or not in_play.any():
            raise ValueError(f"symbols must be [{size}] bool with at least one in play, found shape {in_play.shape}")
        self._in_play = torch.from_numpy(in_play.copy()).to(device)
        self._known_directive: Tensor | None = None
        # What an order decided at `t` may trade at `t + 1`, with finite numbers so that 0 times it is 0.
        self._capacity = torch.zeros_like(self.market.capacity)
        known = self.market.capacity[:-1].clamp(max=1e290)
        self._capacity[:-1] = torch.where(self.market.fillable[1:], known, 0.0)
        self._per_share = 1.0 / self._capacity.clamp(min=1e-290)
        self._gone = self.market.gone.double()
        self._symbol = torch.arange(size, device=device).expand(self.num_envs, size)
        # Sessions of one bar start the counters anew at every step, so they are never read.
        self._counts = not bool(self.market.new_session.all())

    def _group_specs(self) -> dict[str, GroupSpec]:
        directive = (len(DIRECTIVE_FIELDS),)
        groups = {
            "symbols": GroupSpec(
                self.market.size,
                {"bar": (), "symbol": (), "position": (len(POSITION_FIELDS),), "directive": directive},
                len(ACTIONS),
            )
        }
        if self._decide_every is not None:
            groups["master"] = GroupSpec(
                1, {"bar": (), "portfolio": (len(PORTFOLIO_FIELDS),), "directive": directive}, DIRECTIVE_ACTIONS
            )
        return groups

    # -- protocol ------------------------------------------------------------------------------------------------

    def reset(self, where: Tensor | None = None) -> Timestep:
        """See the protocol. The draw of starts does not depend on `where`, so a seed fixes it."""
        fresh = self._fresh_book()
        where = torch.ones_like(self._done[0]) if where is None else where
        self.book = self.book.where(where, fresh)
        self._done = (self._done[0] & ~where, self._done[1] & ~where)
        self.rewards.reset(where)
        self._look()
        return self._timestep(None)

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol. A copy whose episode is over stands still until it is reset."""
        book, rules = self.book, self.rules
        chosen = actions["symbols"]
        if chosen.shape != (self.num_envs, self.market.size):
            raise ValueError(
                f"actions of 'symbols' must be [{self.num_envs}, {self.market.size}], found {tuple(chosen.shape)}"
            )
        allowed = self._allowed
        executed = admitted(allowed, chosen)
        active = (book.bar < book.end).unsqueeze(-1)
        following = torch.minimum(book.bar + 1, book.end)
        bar = self._bar(following, active)
        ledger = execute(rules, self._terms, bar, self._orders(executed, active), book.cash, book.shares)
        self.book, events = self._settle(ledger, bar, executed, following, actions)
        self.ledger, self.chosen, self.executed = ledger, chosen, executed
        ruined = ~self.book.alive.any(-1)
        self._done = (ruined, (self.book.bar >= self.book.end) & ~ruined)
        self._look()
        paid = self.rewards.pay(book, self.book, ledger, executed, allowed, *self._net(book, ledger))
        return self._timestep((paid, ledger, events))

    def state_dict(self) -> dict[str, Any]:
        """Episode state and random generator; the market and the parameters are the caller's."""
        return {
            "book": {name: tensor.cpu().clone() for name, tensor in self.book.tensors().items()},
            "terminated": self._done[0].cpu(),
            "truncated": self._done[1].cpu(),
            "generator": self._generator.get_state(),
            **self.rewards.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.book = Book.from_tensors(state["book"], self.device)
        self._done = (state["terminated"].to(self.device), state["truncated"].to(self.device))
        self._generator.set_state(state["generator"].cpu())
        self.rewards.load_state_dict(state)
        self._look()

    # -- one step ------------------------------------------------------------------------------------------------

    def _no_env(self) -> Tensor:
        return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

    def _fresh_book(self) -> Book:
        draw = torch.randint(len(self._starts), (self.num_envs,), generator=self._generator, device=self.device)
        start = self._starts[draw]
        steps = self._episode if self._episode is not None else len(self.span) - 1
        shape = (self.num_envs, self._accounts)
        if self._random_directives and len(self._directives) > 1:
            directive = torch.randint(DIRECTIVE_ACTIONS, shape, generator=self._generator, device=self.device)
        else:
            directive = torch.full(shape, self._first_directive, device=self.device)
        return Book.fresh(start, start + steps, directive, self.market.mark[start], self.params.initial_cash)

    def _bar(self, following: Tensor, active: Tensor) -> Bar:
        market, now = self.market, self.book.bar
        playing = active.double()
        return Bar(
            mark=self.book.mark,
            capacity=self._capacity.index_select(0, now) * playing,
            per_share=self._per_share.index_select(0, now),
            impact=market.impact.index_select(0, now),
            fill=market.fill.index_select(0, following),
            gone=self._gone.index_select(0, following) * playing,
            next_mark=market.mark.index_select(0, following),
            days=market.days.index_select(0, following).unsqueeze(-1) * playing,
        )

    def _orders(self, executed: Tensor, active: Tensor) -> Orders:
        book, rules = self.book, self.rules
        budget = self._risk * self._caps * book.equity
        forced = (book.halt == rules.liquidating) & active
        flat = executed.view(-1)
        buy = self._buy_size.index_select(0, flat).view_as(executed)
        sell = torch.maximum(self._sell_size.index_select(0, flat).view_as(executed), forced.double())
        if rules.leveraged:
            gross = rules.pool(book.value)
            excess = 1.0 - rules.leverage * book.equity.clamp(min=0.0) / gross.clamp(min=1e-300)
            sell = torch.maximum(sell, excess.clamp(min=0.0) * active)
            forced = forced | (active & (excess > 0.0))
        return Orders(
            action=executed,
            buy=buy * budget / book.mark,
            sell=sell,
            forced=forced,
            caps=self._caps,
            slots=self._slots,
            first=(book.bar * _SLOT_STRIDE % self.market.size).unsqueeze(-1),
            turnover=book.turnover,
        )

    def _settle(
        self, ledger: Ledger, bar: Bar, executed: Tensor, following: Tensor, actions: Mapping[str, Tensor]
    ) -> tuple[Book, dict[str, Tensor]]:
        """The books after the mark: kill switch, counters and telemetry."""
        book, rules = self.book, self.rules
        held = ledger.holding > 0.0
        traded = ledger.shares != 0.0
        flat = rules.pool(ledger.holding) == 0.0
        switch = judge(rules, book.halt, book.peak, ledger.equity, flat)
        floor = RUIN * self.params.initial_cash
        alive = book.alive & (ledger.equity > floor)
        turned = ledger.notional / ledger.fill_equity.clamp(min=floor)
        directive = book.directive
        if self._decide_every is not None:
            directive = torch.where(self._master_acts(book), actions["master"], directive)
        trades, turnover = book.trades, book.turnover
        if self._counts:
            opens = self.market.new_session[(following + 1).clamp(max=self.market.bars - 1)].unsqueeze(-1)
            mine = traded & (executed != int(Action.HOLD))
            trades = (trades + mine) * (~opens)
            turnover = (turnover + turned) * (~opens)
        mean, square, last_return, last_turnover = book.mean, book.square, book.last_return, book.last_turnover
        if rules.pooled:
            last_return = (ledger.equity / book.equity.clamp(min=floor) - 1.0).float()
            last_turnover = turned.float()
            mean = mean + MEMORY * (last_return - mean)
            square = square + MEMORY * (last_return**2 - square)
        kept = (ledger.holding / book.shares.clamp(min=1e-200)).clamp(max=1.0)
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
        return after, {"kill_switch": switch.tripped, "reentry": switch.reentered}

    def _master_acts(self, book: Book) -> Tensor:
        """[E, 1] bool."""
        assert self._decide_every is not None
        return (book.steps % self._decide_every == 0).unsqueeze(-1)

    def _look(self) -> None:
        """What follows from the book: the directive's caps and slots, and the mask that the next step enforces."""
        book, rules = self.book, self.rules
        if book.directive is not self._known_directive:  # the same tensor as at the last look: nothing to look up
            level = self._directives[book.directive]
            self._known_directive, self._directive = book.directive, level.float()
            self._risk, self._cap_share, open_share, *_ = (column.contiguous() for column in level.unbind(-1))
            self._slots = rules.slots(open_share) if rules.pooled else None
        self._caps = rules.caps(book.halt, self._cap_share)
        held = book.value > 0.0
        free = self.market.tradable.index_select(0, book.bar) & self._in_play & ~rules.blocked(book.halt)
        if self._counts:
            free = free & (book.trades < rules.trades)
        self._allowed = permissions(
            rules,
            free=free,
            value=book.value,
            invested=book.invested,
            equity=book.equity,
            caps=self._caps,
            gross=rules.pool(book.value),
            turnover=book.turnover,
            open_count=held.sum(-1, keepdim=True) if rules.pooled else None,
            slots=self._slots,
        ).packed()

    # -- what is told --------------------------------------------------------------------------------------------

    def _timestep(self, last: tuple[Paid, Ledger, dict[str, Tensor]] | None) -> Timestep:
        book, size = self.book, self.market.size
        bar = book.bar.unsqueeze(-1)
        directive = self._directive.expand(-1, size, -1) if self.rules.pooled else self._directive
        reward, overall = self._nothing() if last is None else last[0]
        alive = book.alive.expand(-1, size)
        discount = book.alive.float()
        groups = {
            "symbols": GroupStep(
                observation={
                    "bar": bar.expand(-1, size),
                    "symbol": self._symbol,
                    "position": observe_positions(self.rules, book, self._caps),
                    "directive": directive,
                },
                action_mask=unpacked(self._allowed),
                acts=alive & self._in_play,
                reward=reward,
                discount=discount.expand(-1, size),
            )
        }
        state = torch.zeros(self.num_envs, 0, device=self.device)
        if self.rules.pooled:
            portfolio = observe_portfolio(self.rules, book)
            state = torch.cat([portfolio, self._directive], -1).squeeze(1)
        if self._decide_every is not None:
            groups["master"] = GroupStep(
                observation={"bar": bar, "portfolio": portfolio, "directive": self._directive},
                action_mask=torch.ones(self.num_envs, 1, DIRECTIVE_ACTIONS, dtype=torch.bool, device=self.device),
                acts=self._master_acts(book) & book.alive,
                reward=overall,
                discount=discount,
            )
        terminated, truncated = self._done
        return Timestep(groups, state, terminated, truncated, self._info(last))

    def _nothing(self) -> Paid:
        none = torch.zeros(self.num_envs, self.market.size, device=self.device)
        return none, none[:, : self._accounts]

    def _net(self, before: Book, ledger: Ledger) -> Paid:
        """What `net` pays the symbols [E, N] and the books [E, A]."""
        floor = RUIN * self.params.initial_cash
        start = before.equity.clamp(min=floor)
        growth = torch.log1p((ledger.equity.clamp(min=floor) / start - 1.0).float()) * self.params.reward_scale
        growth = growth * before.alive.float()
        if not self.rules.pooled:
            return growth, growth
        own = (ledger.price_pnl - ledger.commission - ledger.slippage) / start * self.params.reward_scale
        return own.float() * before.alive.float(), growth

    def _info(self, last: tuple[Paid, Ledger, dict[str, Tensor]] | None) -> dict[str, Tensor]:
        """Figures of the step: [E] for a portfolio; [E, N] for accounts. Empty after a reset."""
        if last is None:
            return {}
        _, ledger, events = last
        pool = self.rules.pool
        figures = {
            "price_pnl": pool(ledger.price_pnl),
            "commission": pool(ledger.commission),
            "slippage": pool(ledger.slippage),
            "borrow": ledger.borrow,
            "interest": ledger.interest,
            "equity": ledger.equity,
            "cash": ledger.cash,
            "gross": ledger.gross,
            "turnover": ledger.notional / ledger.fill_equity,
            "drawdown": 1.0 - self.book.equity / self.book.peak,
            "forced_close": pool(ledger.closed.float()),
            **events,
        }
        info = {name: figure.squeeze(-1) if self.rules.pooled else figure for name, figure in figures.items()}
        info["chosen"] = (self.chosen != int(Action.HOLD)).sum(-1)
        info["executed"] = (ledger.shares != 0.0).sum(-1)
        return info | self.rewards.info()
