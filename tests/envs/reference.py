"""The market game once more, for one environment, in plain Python floats: written from docs/timeline.md to be read, not
to be fast. Tests hold the batched simulator equal to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import Panel

HOLD, SMALL, MEDIUM, LARGE, PARTIAL, ALL, ADD = range(7)
BUYS, SALES = (SMALL, MEDIUM, LARGE), (PARTIAL, ALL)


class PlainMarket:
    """Prices, volumes and the calendar of one panel, looked up one cell at a time."""

    def __init__(self, panel: Panel, params: MarketParams) -> None:
        self.panel, self.params = panel, params
        self.bars, self.size = panel.close.shape

    def tradable(self, t: int, n: int) -> bool:
        close = self.panel.close[t, n]
        return bool(self.panel.tradable[t, n]) and math.isfinite(close) and close > 0

    def last_tradable(self, t: int, n: int) -> int | None:
        return next((s for s in range(t, -1, -1) if self.tradable(s, n)), None)

    def mark(self, t: int, n: int) -> float:
        last = self.last_tradable(t, n)
        return 1.0 if last is None else float(self.panel.close[last, n])

    def fill(self, t: int, n: int) -> float | None:
        """The price at which orders are filled at bar t; None where they are not."""
        if not self.tradable(t, n):
            return None
        opened = float(self.panel.open[t, n])
        return opened if math.isfinite(opened) and opened > 0 else float(self.panel.close[t, n])

    def outside(self, t: int, n: int) -> bool:
        """The symbol has a price and is not in the index."""
        close = self.panel.close[t, n]
        return bool(math.isfinite(close) and close > 0 and not self.panel.tradable[t, n])

    def price(self, t: int, n: int) -> float:
        """What a share changes hands for at bar t, or is worth there where it does not: the mark before."""
        if self.tradable(t, n) or self.outside(t, n):
            opened = float(self.panel.open[t, n])
            return opened if math.isfinite(opened) and opened > 0 else float(self.panel.close[t, n])
        return self.mark(t - 1, n)

    def gone(self, t: int, n: int) -> bool:
        """What is held is closed at bar t: at its price outside the index, or at the last one after five sessions."""
        if self.outside(t, n):
            return True
        last = self.last_tradable(t, n)
        return last is not None and int(self.panel.session[t] - self.panel.session[last]) >= 5

    def volume(self, t: int, n: int) -> float | None:
        """Mean volume of the trailing window; where the window has none, that of the last window which had."""
        for end in range(t, -1, -1):
            window = [
                float(self.panel.volume[s, n]) for s in range(max(end - self.params.volume_window + 1, 0), end + 1)
            ]
            known = [v for v in window if v >= 0]
            if known:
                return sum(known) / len(known)
        return None

    def volatility(self, t: int, n: int) -> float:
        for end in range(t, -1, -1):
            squares = []
            for s in range(max(end - self.params.volume_window + 1, 1), end + 1):
                previous = self.last_tradable(s - 1, n)
                if self.tradable(s, n) and previous is not None:
                    squares.append((self.mark(s, n) / self.mark(s - 1, n) - 1.0) ** 2)
            if squares:
                return math.sqrt(sum(squares) / len(squares))
        return 0.0

    def date(self, t: int) -> int:
        first = next(s for s in range(t + 1) if self.panel.session[s] == self.panel.session[t])
        return int(self.panel.timestamps[first].astype("datetime64[D]").astype(int))

    def opens_session(self, t: int) -> bool:
        t = min(t, self.bars - 1)  # what follows the last bar of the data is not known
        return t == 0 or bool(self.panel.session[t] != self.panel.session[t - 1])


@dataclass
class Account:
    """One book over the symbols `names`, that began with `capital`.

    Attributes:
        directive: (risk multiplier, cap as a share of the position limit, share of the open positions), as it applies.
    """

    names: list[int]
    cash: float
    capital: float
    directive: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shares: dict[int, float] = field(default_factory=dict)
    invested: dict[int, float] = field(default_factory=dict)
    trades: dict[int, int] = field(default_factory=dict)
    turnover: float = 0.0
    peak: float = 0.0
    halt: str = "normal"  # normal, liquidating, flat, reduced
    left: int = 0
    alive: bool = True
    events: list[str] = field(default_factory=list)


class PlainGame:
    """One environment of the trading game.

    Args:
        pooled: accounts are portfolios: one of all symbols, or those of `account_of` (else there is one per symbol).
        least: share of the position cap below which an order is not worth executing.
    """

    def __init__(
        self,
        market: PlainMarket,
        pooled: bool,
        start: int,
        in_universe: list[bool] | None = None,
        account_of: list[int] | None = None,
        least: float = 0.001,
    ) -> None:
        self.market, self.params, self.pooled, self.t = market, market.params, pooled, start
        self.in_universe = in_universe or [True] * market.size
        table = account_of or ([0] * market.size if pooled else list(range(market.size)))
        groups = [[n for n, account in enumerate(table) if account == a] for a in range(max(table) + 1)]
        cash = self.params.initial_cash / len(groups) if pooled else self.params.initial_cash
        self.accounts = [Account(names, cash, cash, peak=cash) for names in groups]
        self.least = least
        self.ordered: list[float] | None = None  # shares, where they are ordered instead of actions

    # -- rules ---------------------------------------------------------------------------------------------------

    def held(self, account: Account, n: int) -> float:
        return account.shares.get(n, 0.0)

    def equity(self, account: Account) -> float:
        return account.cash + sum(self.held(account, n) * self.market.mark(self.t, n) for n in account.names)

    def gross(self, account: Account) -> float:
        return sum(abs(self.held(account, n)) * self.market.mark(self.t, n) for n in account.names)

    def short(self, account: Account) -> float:
        return sum(max(-self.held(account, n), 0.0) * self.market.mark(self.t, n) for n in account.names)

    def side(self, account: Account, n: int, action: int) -> int:
        """Of the position, or of the one that the action would open."""
        held = self.held(account, n)
        if held == 0:
            return -1 if self.params.allow_short and action in SALES else 1
        return 1 if held > 0 else -1

    def added(self, account: Account, n: int, action: int) -> float:
        """By how much the action enlarges the position, as a share of its cap."""
        sizes = self.params.entry_sizes
        if action == ADD:
            return self.params.add_to_winner
        if self.side(account, n, action) > 0:
            return dict(zip(BUYS, sizes, strict=True)).get(action, 0.0)
        return {PARTIAL: sizes[0], ALL: sizes[2]}.get(action, 0.0)

    def closed(self, account: Account, n: int, action: int) -> float:
        """The share of the position that the action closes."""
        if self.ordered is not None:
            share = -self.ordered[n] / self.held(account, n) if self.ordered[n] < 0 else 0.0
            return 1.0 if share > 1 - 1e-8 else share
        if self.side(account, n, action) > 0:
            return {PARTIAL: self.params.partial_exit, ALL: 1.0}.get(action, 0.0)
        return dict(zip(BUYS, self.params.entry_sizes, strict=True)).get(action, 0.0)

    def cap(self, account: Account) -> float:
        limits = self.params.limits
        cap = (limits.position if self.pooled else 1.0) * account.directive[1]
        return cap * limits.reentry_scale if account.halt == "reduced" else cap

    def exposure_limit(self) -> float:
        limits = self.params.limits
        if limits.gross_leverage > 1:
            return limits.gross_leverage - limits.min_cash
        return min(limits.gross_leverage, 1 - limits.min_cash)

    def slots(self, account: Account) -> int:
        return max(1, math.floor(self.params.limits.open_positions * account.directive[2] + 1e-9))

    def mask(self, account: Account, n: int) -> list[bool]:
        limits, value = self.params.limits, self.held(account, n) * self.market.mark(self.t, n)
        equity, cap = self.equity(account), self.cap(account)
        free = (
            self.market.tradable(self.t, n)
            and self.in_universe[n]
            and account.halt in ("normal", "reduced")
            and account.trades.get(n, 0) < limits.trades_per_day
        )
        turnover_left = account.turnover < limits.turnover_per_day * (1 - 1e-9)
        smallest = self.least * cap * equity
        funded = self.exposure_limit() * equity - self.gross(account) > smallest
        room = cap * equity - abs(value) > smallest
        open_count = sum(self.held(account, m) != 0 for m in account.names)
        slot = not self.pooled or value != 0 or open_count < self.slots(account)
        grow = free and turnover_left and funded and room and slot
        shrink = free and turnover_left and value != 0
        buy = shrink if value < 0 else grow
        sell = shrink if value > 0 else grow and self.params.allow_short
        add = free and turnover_left and funded and room and value != 0 and value > account.invested.get(n, 0.0)
        return [True, buy, buy, buy, sell, sell, add]

    # -- one step ------------------------------------------------------------------------------------------------

    def slippage(self, t: int, n: int, shares: float) -> float:
        """A position that is closed because its symbol is gone pays the full impact."""
        params, volume = self.params, self.market.volume(t, n)
        full = min(
            params.impact * self.market.volatility(t, n) * math.sqrt(params.participation),
            0.5 - params.slippage_bps / 10_000,
        )
        if volume is None or shares == 0:
            return params.slippage_bps / 10_000
        gone = volume == 0 or self.market.gone(t + 1, n)
        taken = 1.0 if gone else min(shares / (params.participation * volume), 1.0)
        return params.slippage_bps / 10_000 + full * math.sqrt(taken)

    def rate(self, n: int, shares: float) -> float:
        return self.params.commission_bps_round_trip / 2 / 10_000 + self.slippage(self.t, n, shares)

    def capacity(self, n: int) -> float:
        if self.market.fill(self.t + 1, n) is None:
            return 0.0
        volume = self.market.volume(self.t, n)
        return math.inf if volume is None else self.params.participation * volume

    def step(self, actions: list[int]) -> None:
        """Plays `actions` (one per symbol) from bar t to t + 1."""
        masks = {n: self.mask(account, n) for account in self.accounts for n in account.names}
        allowed = [a if masks[n][a] else HOLD for n, a in enumerate(actions)]
        self._execute(allowed)

    def order(self, shares: list[float]) -> None:
        """From bar t to t + 1 with orders in shares, buys positive, instead of actions."""
        self.ordered = shares
        self._execute([LARGE if order > 0 else ALL if order < 0 else HOLD for order in shares])
        self.ordered = None

    def orders_for(self, weights: list[float]) -> list[float]:
        """Shares to order at the close of t in one portfolio for `weights`; NaN asks for nothing."""
        (account,) = self.accounts
        equity, limit = self.equity(account), self.params.limits.trades_per_day
        total = max(sum(weight for weight in weights if not math.isnan(weight)), 1.0)
        orders = []
        for n, weight in enumerate(weights):
            free = self.market.tradable(self.t, n) and account.halt in ("normal", "reduced")
            asked = free and not math.isnan(weight) and account.trades.get(n, 0) < limit
            wanted = weight / total * equity / self.market.mark(self.t, n)
            change = wanted - self.held(account, n) if asked else 0.0
            orders.append(change if abs(change) > 1e-8 * max(wanted, self.held(account, n)) else 0.0)
        return orders

    def _execute(self, actions: list[int]) -> None:
        for account in self.accounts:
            self._trade(account, actions)
        self.t += 1
        for account in self.accounts:
            self._kill_switch(account)

    def _trade(self, account: Account, actions: list[int]) -> None:
        params, limits, market, t = self.params, self.params.limits, self.market, self.t
        account.events = []
        equity_before, cap = self.equity(account), self.cap(account)
        days = market.date(t + 1) - market.date(t)
        short = self.short(account)
        own = account.cash - short
        account.cash += max(own, 0) * params.cash_rate * days / 365
        account.cash -= (max(-own, 0) + short) * params.borrow_rate * days / 365
        price = {n: market.price(t + 1, n) for n in account.names}
        equity = account.cash + sum(self.held(account, n) * price[n] for n in account.names)
        value = {n: abs(self.held(account, n)) * price[n] for n in account.names}
        smallest = self.least * cap * equity

        liquidating = account.halt == "liquidating"
        excess = 0.0
        if (limits.gross_leverage > 1 or params.allow_short) and self.gross(account) > 0:
            excess = 1 - max(limits.gross_leverage, 1) * max(equity_before, 0.0) / self.gross(account)
            excess = max(0.0, excess)
        forced = liquidating or excess > 0

        reduced: dict[int, float] = {}
        for n in account.names:
            size = abs(self.held(account, n))
            share = 1.0 if liquidating else max(self.closed(account, n, actions[n]), excess)
            wanted = size * share
            if share > 0 and (1 - share) * value[n] < smallest:
                wanted = size
            reduced[n] = min(wanted, self.capacity(n))
        proceeds = sum(reduced[n] * price[n] for n in account.names)
        room = max(limits.turnover_per_day - account.turnover, 0) * equity
        if not forced and proceeds > max(room, 0.0):
            reduced = {n: q * max(room, 0.0) / proceeds for n, q in reduced.items()}
        for n in account.names:
            if self.held(account, n) != 0 and market.gone(t + 1, n):
                reduced[n] = abs(self.held(account, n))
                account.events.append(f"closed {n}")

        grown = self._increases(account, actions, equity_before, cap, price, value, equity, smallest, reduced)
        turned = 0.0
        for n in account.names:
            quantity = reduced[n] + grown[n]
            if quantity == 0:
                continue
            notional = quantity * price[n]
            cost = notional * self.rate(n, quantity)
            side = self.side(account, n, actions[n])
            before = self.held(account, n)
            traded = side * (grown[n] - reduced[n])
            account.cash -= traded * price[n] + cost
            turned += notional / max(equity, 1e-6 * account.capital)
            account.shares[n] = before + traded
            if grown[n] > 0:
                account.invested[n] = account.invested.get(n, 0.0) + side * notional + cost
            else:
                account.invested[n] = account.invested[n] * account.shares[n] / before
            if actions[n] != HOLD:
                account.trades[n] = account.trades.get(n, 0) + 1
        account.turnover += turned
        if market.opens_session(t + 2):
            account.turnover, account.trades = 0.0, {}

    def _increases(
        self,
        account: Account,
        actions: list[int],
        equity_before: float,
        cap: float,
        price: dict[int, float],
        value: dict[int, float],
        equity: float,
        smallest: float,
        reduced: dict[int, float],
    ) -> dict[int, float]:
        limits = self.params.limits
        amount: dict[int, float] = {}
        for n in account.names:
            if self.ordered is None:
                budget = self.added(account, n, actions[n]) * account.directive[0] * cap * equity_before
                shares = min(budget / self.market.mark(self.t, n), self.capacity(n))
            else:
                shares = min(max(self.ordered[n], 0.0), self.capacity(n))
            amount[n] = min(shares * price[n], max(cap * equity - value[n], 0.0)) if shares > 0 else 0.0
            if shares > 0 and self.held(account, n) == 0 and self.pooled:
                amount[n] = amount[n] if self._gets_slot(account, actions, n) else 0.0
        limit = self.exposure_limit() * (1 - 1e-9)
        freed = sum(reduced[n] * price[n] for n in account.names)
        freed_cost = sum(reduced[n] * price[n] * self.rate(n, reduced[n]) for n in account.names)
        cost = sum(amount[n] * self.rate(n, amount[n] / price[n]) for n in account.names)
        total = sum(amount.values())
        if total == 0:
            return dict.fromkeys(account.names, 0.0)
        fundable = (limit * (equity - freed_cost) - (sum(value.values()) - freed)) / (total + limit * cost)
        room = ((limits.turnover_per_day - account.turnover) * (1 - 1e-9) * equity - freed) / total
        scale = max(0.0, min(1.0, fundable, room))
        lowest = equity - freed_cost - scale * cost
        grown = {}
        for n in account.names:
            final = min(scale * amount[n], max(cap * (1 - 1e-9) * lowest - value[n], 0.0))
            grown[n] = 0.0 if final < smallest else final / price[n]
        return grown

    def _gets_slot(self, account: Account, actions: list[int], n: int) -> bool:
        """Larger orders first, then in turn from a symbol of the account that moves with the bar."""
        free = self.slots(account) - sum(self.held(account, m) != 0 for m in account.names)
        size = len(account.names)
        first = self.t * 7919 % size
        rank = {LARGE: 0, MEDIUM: 1, SMALL: 2}
        if self.params.allow_short:
            rank |= {ALL: 0, PARTIAL: 2}
        opening = [
            m
            for m in account.names
            if actions[m] in rank and self.held(account, m) == 0 and self.capacity(m) > 0 and self._budget(account) > 0
        ]
        queue = sorted(opening, key=lambda m: (rank[actions[m]], (account.names.index(m) - first) % size))
        return queue.index(n) < free

    def _budget(self, account: Account) -> float:
        return account.directive[0] * self.cap(account) * self.equity(account)

    def _kill_switch(self, account: Account) -> None:
        limits, equity = self.params.limits, self.equity(account)
        flat = all(self.held(account, n) == 0 for n in account.names)
        if account.halt == "liquidating":
            if flat:
                account.halt, account.left = "flat", limits.cool_down
        elif account.left > 0:
            account.left -= 1
            if account.left == 0:
                if account.halt == "flat":
                    account.halt, account.left, account.peak = "reduced", limits.cool_down, equity
                else:
                    account.halt = "normal"
        account.peak = max(account.peak, equity)
        account.alive = account.alive and equity > 1e-6 * account.capital
        allowed = limits.portfolio_drawdown if self.pooled else limits.account_drawdown
        if account.halt in ("normal", "reduced") and account.peak > equity <= account.peak * (1 - allowed):
            account.halt = "flat" if flat else "liquidating"
            account.left = limits.cool_down if flat else 0
            account.events.append("kill switch")
        if not account.alive:
            account.halt, account.left = "liquidating", 0
