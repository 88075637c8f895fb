"""The hard limits: one set of rules that masks what an agent may choose and bounds what is executed.

Everything is per account, `[E, A]`: `partition.Partition` says which of the `[E, N]` symbols an account holds. No agent
and no directive can loosen a rule here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from marl_pipeline.config import MarketParams
from marl_pipeline.envs.trading.core.actions import ACTIONS, Action
from marl_pipeline.envs.trading.core.partition import Mode, Partition

MIN_ORDER = 1e-3
"""An increase below this share of the position cap is not executed; a reduction that would leave less closes all."""

HEADROOM = 1e-9
"""Relative distance kept to limits on money, so that rounding never carries a sum across one."""

_SLOT_BITS = 20
_SLOT_MASK = (1 << _SLOT_BITS) - 1


@dataclass(frozen=True, eq=False)
class Rules:
    """The limits as one mode applies them.

    Attributes:
        partition: which symbols share an account.
        pooled: accounts are portfolios, of all symbols or of some (else every symbol has one of its own).
        exposure: the most gross exposure / equity after a trade: the leverage limit, less the cash to be kept.
        leverage: gross leverage beyond which the next fill deleverages; only `leveraged` books can get there.
        shorting: positions may be short.
        cap: the most value / equity of one position under the full directive.
        drawdown: of equity from its reference that trips the kill switch.
        min_order: share of the position cap below which an order is not worth executing (see `MIN_ORDER`).
    """

    partition: Partition
    pooled: bool
    shorting: bool
    exposure: float
    leverage: float
    cap: float
    open_positions: int
    trades: int
    turnover: float
    drawdown: float
    cool_down: int
    reentry_scale: float
    min_order: float = MIN_ORDER

    @property
    def leveraged(self) -> bool:
        """Prices alone can carry exposure beyond `leverage`, and cash below zero."""
        return self.leverage > 1.0 or self.shorting

    @classmethod
    def of(cls, params: MarketParams, mode: Mode, partition: Partition) -> Rules:
        limits = params.limits
        pooled = mode == "portfolio"
        return cls(
            partition=partition,
            pooled=pooled,
            shorting=params.allow_short,
            exposure=max(min(limits.gross_leverage, max(limits.gross_leverage, 1.0) - limits.min_cash), 0.0),
            leverage=max(limits.gross_leverage, 1.0),
            cap=limits.position if pooled else 1.0,
            open_positions=limits.open_positions,
            trades=limits.trades_per_day,
            turnover=limits.turnover_per_day,
            drawdown=limits.portfolio_drawdown if pooled else limits.account_drawdown,
            cool_down=limits.cool_down,
            reentry_scale=limits.reentry_scale,
        )

    def pool(self, values: Tensor) -> Tensor:
        """Sums [E, N] over an account's symbols: [E, A]."""
        return self.partition.pool(values)

    def spread(self, values: Tensor) -> Tensor:
        """Gives every symbol what its account has: [E, A] to [E, N], or to [E, 1] where one holds them all."""
        return self.partition.spread(values)

    def size(self, values: Tensor) -> Tensor:
        """How large positions are, in shares or money, whatever their side."""
        return values.abs() if self.shorting else values

    # The kill switch is one counter per account. With C = cool_down: 0 normal; 2C + 1 liquidating, until flat;
    # 2C .. C + 1 flat and cooling; C .. 1 re-entered with reduced sizes.

    @property
    def liquidating(self) -> int:
        return 2 * self.cool_down + 1

    def blocked(self, halt: Tensor) -> Tensor:
        """Accounts whose agents may not trade."""
        return halt > self.cool_down

    def caps(self, halt: Tensor, cap_share: Tensor) -> Tensor:
        """The most value / equity of one position under the directive's `cap_share` and the state of the switch."""
        reduced = (halt > 0) & (halt <= self.cool_down)
        return self.cap * cap_share * (1.0 - (1.0 - self.reentry_scale) * reduced)

    def slots(self, open_share: Tensor) -> Tensor:
        """The most open positions under a directive: at least one."""
        return (self.open_positions * open_share + 1e-9).floor().clamp(min=1.0)


class Switch(NamedTuple):
    """The kill switch after a mark: new `halt` and `peak`, and where it tripped or let the account back in."""

    halt: Tensor
    peak: Tensor
    tripped: Tensor
    reentered: Tensor


def kill_switch(rules: Rules, halt: Tensor, peak: Tensor, equity: Tensor, flat: Tensor) -> Switch:
    """Moves the kill switch by one bar. All arguments are [E, A]; `flat` says that nothing is held.

    Drawdown is measured from the highest mark since the start or the last re-entry. A tripped account is liquidated at
    the next fills, stays flat for `cool_down` decisions, then re-enters: the reference starts anew at its equity, and
    sizes and caps are multiplied by `reentry_scale` for `cool_down` decisions.
    """
    top, cool = rules.liquidating, rules.cool_down
    still_selling = (halt == top) & ~flat
    moved = (halt - 1 + still_selling.long()).clamp(min=0)
    reentered = (moved == cool) & (halt == cool + 1)
    peak = torch.maximum(peak * (~reentered), equity)
    tripped = (moved <= cool) & (equity <= peak * (1.0 - rules.drawdown)) & (peak > equity)
    waiting = top - flat.long()
    return Switch(moved + (waiting - moved) * tripped, peak, tripped, reentered)


class Permissions(NamedTuple):
    """Which kinds of order the rules admit: [E, N] bool each."""

    buy: Tensor
    sell: Tensor
    add: Tensor

    def packed(self) -> Tensor:
        """[E, N] int64 with byte `a` set to 1 where action `a` is allowed (see `unpacked`); HOLD always is."""
        return (self.buy.long() * BUY_BYTES) | (self.sell.long() * SELL_BYTES) | (self.add.long() * ADD_BYTES) | 1


def unpacked(packed: Tensor) -> Tensor:
    """[E, N, 7] bool over `actions.Action`: a view of the bytes of `packed`, no copy."""
    return packed.view(torch.bool).view(*packed.shape, 8)[..., : len(ACTIONS)]


def admitted(packed: Tensor, action: Tensor) -> Tensor:
    """[E, N] int64: the chosen action where it is allowed, HOLD elsewhere."""
    return action * ((packed >> (action * 8)) & 1)


def _bytes(*actions: Action) -> int:
    return sum(1 << (8 * action) for action in actions)


BUY_BYTES = _bytes(Action.BUY_SMALL, Action.BUY_MEDIUM, Action.BUY_LARGE)
SELL_BYTES = _bytes(Action.SELL_PARTIAL, Action.SELL_ALL)
ADD_BYTES = _bytes(Action.ADD_TO_WINNER)


def permissions(
    rules: Rules,
    *,
    free: Tensor,
    value: Tensor,
    invested: Tensor,
    equity: Tensor,
    caps: Tensor,
    gross: Tensor,
    turnover: Tensor,
    open_count: Tensor | None,
    slots: Tensor | None,
) -> Permissions:
    """What may be chosen at a mark.

    Args:
        free: [E, N] the symbol is in the universe and tradable, the account may trade and has trades left today.
        value, invested: [E, N] money in the position at the mark, and paid for it with costs; negative when short.
        equity, caps, gross, turnover: [E, A]; `turnover` is the session's so far, as a multiple of equity.
        open_count, slots: [E, A] in portfolios, None for accounts of one symbol.
    """
    size = rules.size(value)
    held = size > 0.0
    smallest = rules.min_order * caps * equity
    active = turnover < rules.turnover * (1.0 - HEADROOM)
    can_fund = active & (rules.exposure * equity - gross > smallest)
    within_cap = rules.spread(caps * equity) - size > rules.spread(smallest)
    increase = free & rules.spread(can_fund) & within_cap
    reduce = free & held & rules.spread(active)
    add = increase & held & (value > invested)
    if open_count is not None and slots is not None:
        increase = increase & (held | rules.spread(open_count < slots))
    if not rules.shorting:
        return Permissions(buy=increase, sell=reduce, add=add)
    buy = torch.where(value < 0.0, reduce, increase)
    return Permissions(buy=buy, sell=torch.where(value > 0.0, reduce, increase), add=add)


def grant_slots(opening: Tensor, action: Tensor, first: Tensor, free_slots: Tensor) -> Tensor:
    """Which of the positions about to be opened get one of the free slots: [..., M] bool, for portfolios of M symbols.

    Larger orders go first; among equals, symbols in order from `first` on, round. The caller moves `first` with the
    bar, so that no symbol is favoured by its name.

    Args:
        opening: [..., M] bool, would open a position.
        action: [..., M] int64.
        first: [..., 1] int64 index of the symbol that is served first.
        free_slots: [..., 1].
    """
    # BUY_LARGE 0, BUY_MEDIUM 1, BUY_SMALL 2; of the sales that open, SELL_ALL 0 and SELL_PARTIAL 2
    tier = (3 - action).clamp(min=0, max=2) + 2 * (action == int(Action.SELL_PARTIAL))
    shift = tier * _SLOT_BITS
    packed = opening.long() << shift  # one count per tier, 20 bits each, so that one cumulative sum serves all
    count = packed.cumsum(-1)
    total = count[..., -1:]
    before = count.gather(-1, (first - 1).clamp(min=0)) * (first > 0)
    symbol = torch.arange(opening.shape[-1], device=opening.device)
    count = count - before + (symbol < first).long() * total
    large, medium = total & _SLOT_MASK, (total >> _SLOT_BITS) & _SLOT_MASK
    ahead = tier.clamp(max=1) * large + (tier >> 1) * medium
    return opening & (((count >> shift) & _SLOT_MASK) + ahead <= free_slots)
