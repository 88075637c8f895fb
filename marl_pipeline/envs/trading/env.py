"""The trading environment: E environments of the market game on one device.

Which symbols share an account is a table, `account_of`. In mode `accounts` every symbol trades an account of its own.
In mode `portfolio` the symbols of an account share its book and its cash, and a master's directives bound them: there
is one portfolio of all symbols, or one for each sector. docs/timeline.md says what happens when in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from marl_pipeline.config import DirectivesParams, MarketParams
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import Discrete, GroupSpec, GroupStep, Timestep
from marl_pipeline.envs.trading.core.accounts import Ledger
from marl_pipeline.envs.trading.core.actions import ACTIONS, DIRECTIVE_ACTIONS, DIRECTIVE_FIELDS, Action
from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.game import Engine, Game, Outcome, View
from marl_pipeline.envs.trading.core.limits import unpacked
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.observation import PORTFOLIO_FIELDS, POSITION_FIELDS
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.rewards.scheme import RewardScheme
from marl_pipeline.envs.trading.tensor import TensorEngine
from marl_pipeline.errors import UserError

Paid = tuple[Tensor, Tensor]
"""Rewards of the symbols [E, N] and of the books [E, A]."""


class TradingEnv:
    """Implements `envs.protocol.Environment`; E = `num_envs`, N = symbols, A = accounts.

    Groups:
        symbols: N agents, actions of `actions.Action`; observes `bar` and `symbol` (indices into the data set),
            `position` (`POSITION_FIELDS`) and `directive` (`DIRECTIVE_FIELDS`).
        master (portfolio mode with `directives`): one agent per account, 48 joint actions (`actions.decode_directive`);
            observes `bar`, `portfolio` (`PORTFOLIO_FIELDS`) and `directive`. It decides every `directives.decide_every`
            steps; what it says at `t` is shown to the symbols of its account at `t + 1` and binds their orders from
            then on.

    `state` holds the portfolios and directives of the accounts side by side; it is empty in mode accounts.

    Rewards (`reward_scale` times): in `accounts` the change of the log equity of the symbol's account; in `portfolio`
    a symbol gets its price P&L less its own costs over the equity of its account before the step, which sums over the
    account's symbols, with interest and borrow fee, to the account's return, and the account's master gets the change
    of its log equity. The team's reward is the sum of those changes over the accounts. That is `net`; `params.reward`
    and `params.master_reward` choose others (`rewards.shaped`, `rewards.master`).

    Attributes:
        book: the state (`Book`), read-only.
        ledger: what the last step did (`Ledger`: every fill with price and costs), None before the first.
        chosen, executed: [E, N] int64 actions of the last step before and after the mask.
        rewards: what pays whom (`RewardScheme`), with the log of the components; `rewards.net` is the truth.

    Args:
        mode: what an account is; None takes `account_of` with an account per symbol for "accounts", any other for
            "portfolio".
        account_of: [N] the account of each symbol, 0..A-1; by default every symbol has its own in mode accounts, and
            one portfolio holds them all in mode portfolio.
        capital: [A] cash of each account at the start. By default `params.initial_cash` is that of every account in
            mode accounts; in mode portfolio it is shared equally by the accounts.
        span: bars the episodes lie in. The last bar has no next fill: an episode ends at bar `span.stop - 1`.
        episode: steps of an episode, started at random bars; None plays the whole span from its start.
        start_bars: bars at which episodes may start (with `episode`); the whole span by default.
        symbols: [N] bool, the symbols in the universe; the others may only hold nothing.
        random_directives: draws a directive per account at the start of an episode, so that policies trained without
            a master meet all of them.
        gamma: the learner's discount per step, for the potentials of `net_shaped`.
        benchmark: [T] level of the benchmark, for the master's excess; the equal-weight market by default.

    Raises:
        UserError: the span is too short for an episode, or no allowed start leaves room for one.
        ValueError: neither `mode` nor `account_of` is given, the table leaves an account empty or contradicts the
            mode, or `capital` is not positive.
    """

    def __init__(
        self,
        market: Market,
        params: MarketParams,
        directives: DirectivesParams | None = None,
        *,
        mode: Mode | None = None,
        account_of: ArrayLike | Tensor | None = None,
        capital: ArrayLike | Tensor | None = None,
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
        self.game = Game.of(self.market, params, directives, mode, symbols, account_of=account_of, capital=capital)
        self.rules = self.game.rules
        self._whole_universe = bool(self.game.in_universe.all())
        self.span = span
        self._episode = episode
        self._random_directives = random_directives
        self._decide_every = self.game.decide_every
        self._accounts = self.game.accounts
        self.rewards = RewardScheme.of(
            params,
            self.game,
            num_envs=num_envs,
            gamma=gamma,
            benchmark=benchmark,
        )
        self._starts = self._allowed_starts(start_bars)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._engine = _engine(self.game, params.cpu_step)
        self._no_state = torch.zeros(num_envs, 0, device=self.device)
        self._all_directives = torch.ones(
            num_envs, self._accounts, DIRECTIVE_ACTIONS, dtype=torch.bool, device=self.device
        )
        self._symbol = torch.arange(market.size, device=self.device).expand(num_envs, market.size)
        self.groups = self._group_specs()
        seen = len(PORTFOLIO_FIELDS) + len(DIRECTIVE_FIELDS)
        self.state_size = self._accounts * seen if self.rules.pooled else 0
        self.ledger: Ledger | None = None
        self.chosen = self.executed = torch.zeros(num_envs, market.size, dtype=torch.int64, device=self.device)
        self.book = self._fresh_book()
        self._done = (self._no_env(), self._no_env())
        self._view = self._engine.observe(self.book, None)

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

    def _group_specs(self) -> dict[str, GroupSpec]:
        directive = (len(DIRECTIVE_FIELDS),)
        groups = {
            "symbols": GroupSpec(
                self.market.size,
                {"bar": (), "symbol": (), "position": (len(POSITION_FIELDS),), "directive": directive},
                Discrete(len(ACTIONS)),
            )
        }
        if self._decide_every is not None:
            groups["master"] = GroupSpec(
                self._accounts,
                {"bar": (), "portfolio": (len(PORTFOLIO_FIELDS),), "directive": directive},
                Discrete(DIRECTIVE_ACTIONS),
            )
        return groups

    # -- protocol ------------------------------------------------------------------------------------------------

    def reset(self, where: Tensor | None = None) -> Timestep:
        """See the protocol. The draw of starts does not depend on `where`, so a seed fixes it."""
        fresh = self._fresh_book()
        where = torch.ones_like(self._done[0]) if where is None else where
        self.book = self.book.where(where, fresh)
        self._done = (self._done[0] & ~where, self._done[1] & ~where)
        self._view = self._engine.observe(self.book, self._view)
        self.rewards.reset(where)
        return self._timestep(None, self._nothing())

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol. An environment whose episode is over stands still until it is reset."""
        chosen = actions["symbols"]
        if chosen.shape != (self.num_envs, self.market.size):
            raise ValueError(
                f"actions of 'symbols' must be [{self.num_envs}, {self.market.size}], found {tuple(chosen.shape)}"
            )
        master = actions["master"] if self._decide_every is not None else None
        if master is not None and master.shape != (self.num_envs, self._accounts):
            raise ValueError(
                f"actions of 'master' must be [{self.num_envs}, {self._accounts}], found {tuple(master.shape)}"
            )
        return self._timestep_after(chosen, *self._engine.step(self.book, self._view, chosen, master))

    def _timestep_after(self, chosen: Tensor, outcome: Outcome, view: View) -> Timestep:
        """Takes over what a step did, and pays for it."""
        before, allowed, self._view = self.book, self._view.allowed, view
        self.book, self.ledger = outcome.book, outcome.ledger
        self.chosen, self.executed = chosen, outcome.executed
        ruined = ~self.book.alive.amax(-1)
        self._done = (ruined, (self.book.bar >= self.book.end) & ~ruined)
        paid = self.rewards.pay(
            before, self.book, outcome.ledger, outcome.executed, allowed, outcome.own, outcome.growth
        )
        return self._timestep(outcome, paid)

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
        self._view = self._engine.observe(self.book, None)
        self.rewards.load_state_dict(state)

    def _no_env(self) -> Tensor:
        return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

    def _fresh_book(self) -> Book:
        draw = torch.randint(len(self._starts), (self.num_envs,), generator=self._generator, device=self.device)
        start = self._starts[draw]
        steps = self._episode if self._episode is not None else len(self.span) - 1
        shape = (self.num_envs, self._accounts)
        if self._random_directives and len(self.game.directives) > 1:
            directive = torch.randint(DIRECTIVE_ACTIONS, shape, generator=self._generator, device=self.device)
        else:
            directive = torch.full(shape, self.game.first_directive, device=self.device)
        return Book.fresh(start, start + steps, directive, self.market.mark[start], self.game.capital)

    def _master_acts(self, book: Book) -> Tensor:
        """[E, 1] bool."""
        assert self._decide_every is not None
        return (book.steps % self._decide_every == 0).unsqueeze(-1)

    # -- what is reported --------------------------------------------------------------------------------------------

    def _timestep(self, outcome: Outcome | None, paid: Paid) -> Timestep:
        book, view, size = self.book, self._view, self.market.size
        bar = book.bar.unsqueeze(-1)
        observed = view.directive.observed
        own, overall = paid
        each = self.rules.spread
        alive = each(book.alive).expand(-1, size)
        present = alive if self._whole_universe else alive & self.game.in_universe
        discount = book.alive.view(torch.uint8).float()  # bytes convert faster than truth values
        groups = {
            "symbols": GroupStep(
                observation={
                    "bar": bar.expand(-1, size),
                    "symbol": self._symbol,
                    "position": view.positions,
                    "directive": each(observed).expand(-1, size, -1),
                },
                action_mask=unpacked(view.allowed),
                acts=present,
                present=present,
                reward=own,
                discount=each(discount).expand(-1, size),
            )
        }
        state = self._no_state
        if view.portfolio is not None:
            state = torch.cat([view.portfolio, observed], -1).flatten(1)
            if self._decide_every is not None:
                groups["master"] = GroupStep(
                    observation={
                        "bar": bar.expand(-1, self._accounts),
                        "portfolio": view.portfolio,
                        "directive": observed,
                    },
                    action_mask=self._all_directives,
                    acts=self._master_acts(book) & book.alive,
                    present=book.alive,
                    reward=overall,
                    discount=discount,
                )
        terminated, truncated = self._done
        return Timestep(groups, state, overall.sum(-1), terminated, truncated, self._info(outcome))

    def _nothing(self) -> Paid:
        none = torch.zeros(self.num_envs, self.market.size, device=self.device)
        return none, none[:, : self._accounts]

    def _info(self, outcome: Outcome | None) -> Figures:
        """Figures of the step, [E, A]; [E] for one portfolio, and for the counts of orders in mode accounts. Empty
        after a reset."""
        if outcome is None:
            return Figures({}, {})
        book, ledger, partition = outcome.book, outcome.ledger, self.rules.partition
        pool, count, chosen = partition.pool, self._count, self.chosen
        named: dict[str, Callable[[], Tensor]] = {
            "price_pnl": lambda: pool(ledger.price_pnl),
            "commission": lambda: pool(ledger.commission),
            "slippage": lambda: pool(ledger.slippage),
            "borrow": lambda: ledger.borrow,
            "interest": lambda: ledger.interest,
            "equity": lambda: ledger.equity,
            "cash": lambda: ledger.cash,
            "gross": lambda: ledger.gross,
            "turnover": lambda: ledger.notional / ledger.fill_equity,
            "drawdown": lambda: 1.0 - book.equity / book.peak,
            "forced_close": lambda: pool(ledger.closed.float()),
            "kill_switch": lambda: outcome.tripped,
            "reentry": lambda: outcome.reentered,
            "chosen": lambda: count(chosen != int(Action.HOLD)),
            "executed": lambda: count(ledger.shares != 0.0),
        }
        return Figures(named, self.rewards.info(), partition.kind == "one")

    def _count(self, orders: Tensor) -> Tensor:
        """Orders of each portfolio [E, A]; of an environment [E] in mode accounts."""
        return self.rules.partition.count(orders) if self.rules.pooled else orders.sum(-1)


class Figures(Mapping[str, Tensor]):
    """Figures by name. Those in `named` are worked out when they are read (most steps are never asked): with `single`
    each is [E, 1] and given as [E]. Those in `ready` are given as they are."""

    def __init__(
        self, named: Mapping[str, Callable[[], Tensor]], ready: Mapping[str, Tensor], single: bool = False
    ) -> None:
        self._named, self._ready, self._single = named, ready, single

    def __getitem__(self, name: str) -> Tensor:
        if name in self._ready:
            return self._ready[name]
        figure = self._named[name]()
        return figure.squeeze(-1) if self._single else figure

    def __iter__(self) -> Iterator[str]:
        return iter([*self._named, *self._ready])

    def __len__(self) -> int:
        return len(self._named) + len(self._ready)


def _engine(game: Game, choice: Literal["compiled", "plain"]) -> Engine:
    """A GPU steps in tensor operations, whatever is chosen for the CPU."""
    if choice == "plain" or game.market.device.type != "cpu":
        return TensorEngine(game)
    from marl_pipeline.envs.trading.compiled.engine import CompiledEngine

    return CompiledEngine(game)
