"""One game: a market, its rules, and the tables that a step looks numbers up in. Fixed when an environment is built;
the tensor code (`tensor`) and the compiled one (`compiled`) step it by the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from marl_pipeline.config import DirectivesParams, MarketParams
from marl_pipeline.envs.trading.core.accounts import Ledger, Terms
from marl_pipeline.envs.trading.core.actions import ACTIONS, Action, directive_table, encode_directive
from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.costs import base_slippage_rate, commission_rate
from marl_pipeline.envs.trading.core.limits import Rules
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode, partition_of

RUIN = 1e-6
"""An account whose equity falls to this share of its initial cash is out of the game."""

SLOT_STRIDE = 7919
"""By how many symbols the one that is served first moves with every bar."""


@dataclass(frozen=True)
class Game:
    """Attributes:
    capacity: [T, N] shares that an order decided at `t` may trade at `t + 1`; finite, 0 where nothing fills.
    per_share: [T, N] 1 / capacity, huge where that is 0.
    increase, reduce: [14] share of the position cap by which an action adds, share of the position that it closes:
        seven for a long position or none, and seven for a short one (or one to be opened).
    directives: [rows, 6] float64, what each directive means; `first_directive` is the active row at the start.
    in_universe: [N] bool.
    counts: a session has more than one bar, so that its counters of trades and turnover are read.
    decide_every: clock of the master, None without one.
    capital, floor: [A] float64 cash at the start, and equity at which an account is out of the game.
    """

    market: Market
    rules: Rules
    terms: Terms
    capacity: Tensor
    per_share: Tensor
    increase: Tensor
    reduce: Tensor
    directives: Tensor
    first_directive: int
    in_universe: Tensor
    counts: bool
    decide_every: int | None
    capital: Tensor
    floor: Tensor
    reward_scale: float

    @property
    def accounts(self) -> int:
        """A."""
        return self.rules.partition.accounts

    @classmethod
    def of(
        cls,
        market: Market,
        params: MarketParams,
        directives: DirectivesParams | None,
        mode: Mode | None,
        symbols: ArrayLike | Tensor | None,
        *,
        account_of: ArrayLike | Tensor | None = None,
        capital: ArrayLike | Tensor | None = None,
    ) -> Game:
        """Looks up tables on the market's device.

        Raises:
            ValueError: `symbols` is not [N] with at least one of the universe, `account_of` no partition of the N
                symbols, `capital` not [A] positive amounts of money.
        """
        partition, mode = partition_of(market.size, mode, account_of, market.device)
        rules = Rules.of(params, mode, partition)
        money = _capital(params.initial_cash, rules, capital).to(market.device)
        decide_every = directives.decide_every if directives is not None and rules.pooled else None
        table = directive_table(directives, params.limits).to(market.device)
        in_universe = np.ones(market.size, dtype=bool) if symbols is None else np.array(symbols, dtype=bool)
        if in_universe.shape != (market.size,) or not in_universe.any():
            raise ValueError(
                f"symbols must be [{market.size}] bool with at least one True, found shape {in_universe.shape}"
            )
        increase, reduce = _sizes(params)
        # What an order decided at `t` may trade at `t + 1`, with finite numbers so that 0 times it is 0.
        capacity = torch.zeros_like(market.capacity)
        capacity[:-1] = torch.where(market.fillable[1:], market.capacity[:-1].clamp(max=1e290), 0.0)
        return cls(
            market=market,
            rules=rules,
            terms=Terms(commission_rate(params), base_slippage_rate(params), params.borrow_rate, params.cash_rate),
            capacity=capacity,
            per_share=1.0 / capacity.clamp(min=1e-290),
            increase=increase.to(market.device),
            reduce=reduce.to(market.device),
            directives=table,
            first_directive=table.shape[0] - 1 if decide_every is None else encode_directive(3, 3, 1),
            in_universe=torch.from_numpy(in_universe).to(market.device),
            counts=not bool(market.new_session.all()),
            decide_every=decide_every,
            capital=money,
            floor=RUIN * money,
            reward_scale=params.reward_scale,
        )


def _capital(initial_cash: float, rules: Rules, given: ArrayLike | Tensor | None) -> Tensor:
    """[A] float64. `initial_cash` is that of every account of one symbol, and of all portfolios together."""
    accounts = rules.partition.accounts
    if given is None:
        each = initial_cash / accounts if rules.pooled else initial_cash
        return torch.full((accounts,), each, dtype=torch.float64)
    money = torch.as_tensor(given).to("cpu", torch.float64)
    if money.shape != (accounts,) or not bool(((money > 0.0) & money.isfinite()).all()):
        raise ValueError(f"capital must be [{accounts}] positive amounts, one per account, found {money.tolist()}")
    return money


def _sizes(params: MarketParams) -> tuple[Tensor, Tensor]:
    long, short = 0, 1
    increase = torch.zeros(2, len(ACTIONS), dtype=torch.float64)
    reduce = torch.zeros(2, len(ACTIONS), dtype=torch.float64)
    for action, size in zip((Action.BUY_SMALL, Action.BUY_MEDIUM, Action.BUY_LARGE), params.entry_sizes, strict=True):
        increase[long, action] = reduce[short, action] = size
    increase[:, Action.ADD_TO_WINNER] = params.add_to_winner
    reduce[long, Action.SELL_PARTIAL], reduce[long, Action.SELL_ALL] = params.partial_exit, 1.0
    increase[short, Action.SELL_PARTIAL], increase[short, Action.SELL_ALL] = (
        params.entry_sizes[0],
        params.entry_sizes[2],
    )
    return increase.flatten(), reduce.flatten()


class Directive(NamedTuple):
    """The active directives, looked up.

    Attributes:
        row: [E, A] the very tensor of the book they were looked up for.
        observed: [E, A, 6] float32.
        risk, cap_share: [E, A] float64.
        slots: [E, A] the most open positions; None for accounts of one symbol.
    """

    row: Tensor
    observed: Tensor
    risk: Tensor
    cap_share: Tensor
    slots: Tensor | None


def look_up(game: Game, row: Tensor, known: Directive | None) -> Directive:
    """What the directives `row` [E, A] say; `known` again where it was looked up for this very tensor."""
    if known is not None and known.row is row:
        return known
    level = game.directives[row]
    risk, cap_share, open_share, *_ = (column.contiguous() for column in level.unbind(-1))
    slots = game.rules.slots(open_share) if game.rules.pooled else None
    return Directive(row, level.float(), risk, cap_share, slots)


class View(NamedTuple):
    """What follows from a book: what the agents see of it, and the mask that the next step enforces.

    Attributes:
        caps: [E, A] the most value / equity of one position.
        allowed: [E, N] int64, packed (see `limits.unpacked`).
        positions: [E, N, P] float32, `observation.POSITION_FIELDS`.
        portfolio: [E, A, K] float32, `observation.PORTFOLIO_FIELDS`; None for accounts of one symbol.
    """

    directive: Directive
    caps: Tensor
    allowed: Tensor
    positions: Tensor
    portfolio: Tensor | None


class Outcome(NamedTuple):
    """What a step did.

    Attributes:
        executed: [E, N] int64, the chosen action where the mask allows it, HOLD elsewhere.
        tripped, reentered: [E, A] bool, kill switch.
        growth: [E, A] float32 change of the log equity, times `reward_scale`.
        own: [E, N] float32 price P&L less own costs over the account's equity before the step, times `reward_scale`;
            for an account of one symbol `growth`.
    """

    book: Book
    ledger: Ledger
    executed: Tensor
    tripped: Tensor
    reentered: Tensor
    growth: Tensor
    own: Tensor


class Engine(Protocol):
    """Who steps the game. Two engines agree to rounding; each is deterministic bit for bit, whatever the threads."""

    def step(self, book: Book, view: View, chosen: Tensor, master: Tensor | None) -> tuple[Outcome, View]:
        """Executes `chosen` [E, N] and the master's directives [E, A] from `book`, of which `view` is the view."""
        ...

    def observe(self, book: Book, known: View | None) -> View:
        """The view of a book."""
        ...
