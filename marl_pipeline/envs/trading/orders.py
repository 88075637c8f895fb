"""Target weights instead of actions: how a rule, a benchmark or an allocation trades in the simulator.

What is asked at the close of `t` becomes orders in shares at that close's prices. From there on they take the way of
every agent's orders: `execute`, the mark and the kill switch (docs/timeline.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from marl_pipeline.config import LimitsParams, MarketParams
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import Continuous, GroupSpec, Timestep
from marl_pipeline.envs.trading.core.accounts import Orders
from marl_pipeline.envs.trading.core.actions import Action
from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.game import SLOT_STRIDE, Game, Outcome, View
from marl_pipeline.envs.trading.core.limits import HEADROOM, Rules
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.env import Paid, TradingEnv
from marl_pipeline.envs.trading.tensor import TensorEngine

Limits = Literal["none", "market"]
"""Which limits bind: none beyond the account's own cash, or those of `market.limits`, as for agents. Costs, the share
of the volume that an order may take and the cash of the account always bind."""

ROUNDING = 10 * HEADROOM
"""A change of a position by less than this share of it is rounding, not an order."""

NO_LIMIT = 1_000_000_000


def unlevered(params: MarketParams, limits: Limits) -> MarketParams:
    """The market of a long-only account that does not borrow, under the limits chosen."""
    own = params.limits
    if limits == "market":
        bound = own.model_copy(update={"gross_leverage": min(own.gross_leverage, 1.0)})
    else:
        bound = LimitsParams(
            gross_leverage=1.0,
            position=1.0,
            open_positions=NO_LIMIT,
            min_cash=0.0,
            trades_per_day=NO_LIMIT,
            turnover_per_day=float(NO_LIMIT),
            account_drawdown=1.0,
            portfolio_drawdown=1.0,
            cool_down=own.cool_down,
            reentry_scale=1.0,
        )
    changes = {"limits": bound, "allow_short": False, "reward": "net", "master_reward": "net", "cpu_step": "plain"}
    return params.model_copy(update=changes)


class TargetPortfolio(TradingEnv):
    """A portfolio whose symbols each choose their target weight in [0, 1]; E = `num_envs`, plays the whole of `span`.

    An action is [E, N] or [E, N, 1]: shares of equity, long-only, scaled down together where their sum is above 1. NaN
    leaves a position alone. Orders are sized at the close of `t` (weight x equity / price), fill at the next bar, and
    what does not fill is cancelled. A symbol without a tradable bar at `t` can not be ordered.

    Attributes:
        ordered: [E, N] float64 shares ordered in the last step, buys positive (the forced close of a vanished symbol
            and liquidations by the kill switch are not orders).

    Args:
        limits: whether the limits of `params.limits` bind. With `none` orders of any size are executed, too.
    """

    def __init__(
        self, market: Market, params: MarketParams, *, span: Span, num_envs: int = 1, limits: Limits = "none"
    ) -> None:
        super().__init__(market, unlevered(params, limits), mode="portfolio", num_envs=num_envs, span=span)
        if limits == "none":
            self.rules = replace(self.rules, min_order=0.0)
            self.game = replace(self.game, rules=self.rules)
        self._engine = self._tensors = TensorEngine(self.game)
        self.ordered = torch.zeros(num_envs, self.market.size, dtype=torch.float64, device=self.device)

    def _group_specs(self) -> dict[str, GroupSpec]:
        (symbols,) = super()._group_specs().values()
        return {"symbols": replace(symbols, actions=Continuous(1, 0.0, 1.0))}

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        """See the protocol; `actions["symbols"]` are target weights.

        Raises:
            ValueError: they are not [E, N], or a weight is negative or infinite.
        """
        shape = (self.num_envs, self.market.size)
        weights = actions["symbols"]
        if weights.shape not in (shape, (*shape, 1)):
            raise ValueError(f"weights must be {list(shape)}, found {list(weights.shape)}")
        weights = weights.reshape(shape).double()
        if bool((weights < 0.0).any()) or bool(weights.isinf().any()):
            raise ValueError("target weights are shares of equity, not negative; NaN leaves a position alone")
        self.ordered = target_orders(self.game, self.book, weights)
        orders = share_orders(self.game, self.book, self._view, self.ordered)
        return self._timestep_after(orders.action, *self._tensors.carry_out(self.book, self._view, orders, None))

    def _timestep(self, outcome: Outcome | None, paid: Paid) -> Timestep:
        timestep = super()._timestep(outcome, paid)
        symbols = timestep.groups["symbols"]
        return replace(timestep, groups={"symbols": replace(symbols, action_mask=symbols.action_mask[..., :0])})


def target_orders(game: Game, book: Book, weights: Tensor) -> Tensor:
    """Shares to trade [E, N] for `weights` [E, N] of the equity at the close of `book.bar`; 0 where it is NaN."""
    asked = ~weights.isnan()
    weights = torch.where(asked, weights, 0.0)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1.0)
    wanted = weights * book.equity / book.mark
    change = wanted - book.shares
    asked = asked & (change.abs() > ROUNDING * torch.maximum(wanted, book.shares)) & _open_to(game.rules, game, book)
    return torch.where(asked, change, 0.0)


def _open_to(rules: Rules, game: Game, book: Book) -> Tensor:
    """[E, N] bool: the symbol trades at this close, and its account may."""
    free = game.market.tradable.index_select(0, book.bar) & game.in_universe & ~rules.blocked(book.halt)
    if game.counts:
        free = free & (book.trades < rules.trades)
    return free & (book.bar < book.end).unsqueeze(-1)


def share_orders(game: Game, book: Book, view: View, shares: Tensor) -> Orders:
    """Orders for `shares` [E, N], buys positive, no sale larger than the position; a tripped kill switch sells all."""
    forced = (book.halt == game.rules.liquidating) & (book.bar < book.end).unsqueeze(-1)
    reduce = ((-shares).clamp(min=0.0) / book.shares.clamp(min=1e-300)).clamp(max=1.0)
    sale = torch.where(reduce < 1.0, int(Action.SELL_PARTIAL), int(Action.SELL_ALL))
    purchase = torch.where(shares > 0.0, int(Action.BUY_LARGE), int(Action.HOLD))
    return Orders(
        action=torch.where(shares < 0.0, sale, purchase),
        side=torch.ones_like(book.mark[:1, :1]),
        increase=shares.clamp(min=0.0),
        reduce=torch.maximum(reduce, forced.double()),
        forced=forced,
        caps=view.caps,
        slots=view.directive.slots,
        first=(book.bar * SLOT_STRIDE % game.market.size).unsqueeze(-1),
        turnover=book.turnover,
    )
