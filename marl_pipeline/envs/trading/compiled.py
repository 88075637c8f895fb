"""A step of the game on a CPU through the compiled `kernel`: tensors in, new tensors out, environments shared among
threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.trading.accounts import DAYS_PER_YEAR, Ledger
from marl_pipeline.envs.trading.actions import ACTIONS, DIRECTIVE_FIELDS, Action
from marl_pipeline.envs.trading.book import Book
from marl_pipeline.envs.trading.game import SLOT_STRIDE, Directive, Game, Outcome, View, look_up
from marl_pipeline.envs.trading.kernel.arrays import Constants, Entries, Sight, State, Tables
from marl_pipeline.envs.trading.kernel.look import Standing, look
from marl_pipeline.envs.trading.kernel.step import Rows, step
from marl_pipeline.envs.trading.limits import ADD_BYTES, BUY_BYTES, HEADROOM, MIN_ORDER, SELL_BYTES
from marl_pipeline.envs.trading.observation import (
    MEMORY,
    PORTFOLIO_FIELDS,
    POSITION_FIELDS,
    log_bars,
)

THREAD_SHARE = 4096
"""Symbols that a thread is worth being woken for."""


class CompiledEngine:
    """Implements `game.Engine` on a CPU; `torch.get_num_threads()` threads, which change no bit."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self._constants = _constants(game)
        self._tables = _tables(game)
        self._last: tuple[Book, State] | None = None

    def step(self, book: Book, view: View, chosen: Tensor, master: Tensor | None) -> tuple[Outcome, View]:
        """See `game.Engine`.

        Raises:
            ValueError: an action is none of `actions.Action`.
        """
        before = self._state(book)
        after, after_arrays = self._next(book)
        outcome, entries = self._outcome(after, after_arrays)
        seen, sight = self._sight(after, view)
        directives = after_arrays.directive if master is None else _array(master)
        room = (self.game.market.size, self.game.accounts)
        played = (before, _seen(view), _array(chosen), directives, after_arrays, entries)

        def work(first: int, last: int) -> int:
            invalid = step(first, last, self._constants, self._tables, *played, Rows.empty(*room))
            look(first, last, self._constants, self._tables, after_arrays, sight, Standing.empty(room[0]))
            return invalid

        invalid = sum(self._share_out(book.bar.shape[0], work))
        if invalid:
            raise ValueError(f"actions of 'symbols' must be 0..{len(ACTIONS) - 1}, found {invalid} others")
        self._last = (after, after_arrays)
        return outcome, seen

    def look(self, book: Book, known: View | None) -> View:
        """See `game.Engine`."""
        seen, sight = self._sight(book, known)
        state = self._state(book)

        def work(first: int, last: int) -> int:
            look(first, last, self._constants, self._tables, state, sight, Standing.empty(self.game.market.size))
            return 0

        self._share_out(book.bar.shape[0], work)
        return seen

    def _state(self, book: Book) -> State:
        if self._last is not None and self._last[0] is book:
            return self._last[1]
        return State(*(_array(getattr(book, name)) for name in State._fields))

    def _next(self, book: Book) -> tuple[Book, State]:
        """Room for the book after the step; what this game never changes is the old tensor."""
        game, old, symbols, accounts = self.game, self._state(book), book.shares.shape, book.cash.shape
        money, money_arrays = _room(4, symbols, torch.float64)
        means, mean_arrays = _room(4, accounts, torch.float64)
        bars, bar_arrays = _room(2, symbols, torch.float32)
        clock, clock_arrays = _room(2, book.bar.shape, torch.int64)
        marks, mark_arrays = _room(2, accounts, torch.int64)
        (alive,), (alive_array,) = _room(1, accounts, torch.bool)
        names = ["bar", "steps", "cash", "equity", "peak", "halt", "alive", "shares", "invested", "mark", "value"]
        names += ["duration", "idle"]
        tensors = [*clock, *means[:3], marks[0], alive, *money, *bars]
        arrays = [*clock_arrays, *mean_arrays[:3], mark_arrays[0], alive_array, *money_arrays, *bar_arrays]
        if game.counts:
            (trades,), (trade_array,) = _room(1, symbols, torch.int32)
            names += ["turnover", "trades"]
            tensors, arrays = [*tensors, means[3], trades], [*arrays, mean_arrays[3], trade_array]
        if game.decide_every is not None:
            names += ["directive"]
            tensors, arrays = [*tensors, marks[1]], [*arrays, mark_arrays[1]]
        if game.rules.pooled:
            moments, moment_arrays = _room(4, accounts, torch.float32)
            names += ["mean", "square", "last_return", "last_turnover"]
            tensors, arrays = [*tensors, *moments], [*arrays, *moment_arrays]
        after = replace(book, **dict(zip(names, tensors, strict=True)))
        return after, old._replace(**dict(zip(names, arrays, strict=True)))

    def _outcome(self, after: Book, arrays: State) -> tuple[Outcome, Entries]:
        """Room for what a step does to the books."""
        pooled, symbols, accounts = self.game.rules.pooled, after.shares.shape, after.cash.shape
        money, money_arrays = _room(6, symbols, torch.float64)
        own_gross = pooled or self.game.rules.shorting
        books, book_arrays = _room(5 if own_gross else 4, accounts, torch.float64)
        flags, flag_arrays = _room(2, accounts, torch.bool)
        (closed,), (closed_array,) = _room(1, symbols, torch.bool)
        (executed,), (executed_array,) = _room(1, symbols, torch.int64)
        (growth,), (growth_array,) = _room(1, accounts, torch.float32)
        (own,), (own_array,) = _room(1, symbols, torch.float32) if pooled else ((growth,), (growth_array,))
        gross, gross_array = (books[4], book_arrays[4]) if own_gross else (after.value, arrays.value)
        ledger = Ledger(
            shares=money[0],
            price=money[1],
            commission=money[2],
            slippage=money[3],
            price_pnl=money[4],
            closed=closed,
            paid=money[5],
            borrow=books[0],
            interest=books[1],
            notional=books[2],
            fill_equity=books[3],
            cash=after.cash,
            gross=gross,
            equity=after.equity,
            holding=after.shares,
            value=after.value,
        )
        entries = Entries(
            shares=money_arrays[0],
            price=money_arrays[1],
            commission=money_arrays[2],
            slippage=money_arrays[3],
            price_pnl=money_arrays[4],
            closed=closed_array,
            paid=money_arrays[5],
            borrow=book_arrays[0],
            interest=book_arrays[1],
            notional=book_arrays[2],
            fill_equity=book_arrays[3],
            gross=gross_array,
            executed=executed_array,
            tripped=flag_arrays[0],
            reentered=flag_arrays[1],
            growth=growth_array,
            own=own_array,
        )
        return Outcome(after, ledger, executed, flags[0], flags[1], growth, own), entries

    def _sight(self, book: Book, known: View | None) -> tuple[View, Sight]:
        """Room for a view. Without a master directives seldom change: they are looked up when they do."""
        accounts, symbols = book.cash.shape, book.shares.shape
        (allowed,), (allowed_array,) = _room(1, symbols, torch.int64)
        (positions,), (positions_array,) = _room(1, (*symbols, len(POSITION_FIELDS)), torch.float32)
        levels, level_arrays = _room(4, accounts, torch.float64)
        portfolio, portfolio_array = None, positions_array
        if self.game.rules.pooled:
            (portfolio,), (portfolio_array,) = _room(1, (*accounts, len(PORTFOLIO_FIELDS)), torch.float32)
        if self.game.decide_every is not None:
            (observed,), (observed_array,) = _room(1, (*accounts, len(DIRECTIVE_FIELDS)), torch.float32)
            directive = Directive(book.directive, observed, levels[1], levels[2], levels[3])
        else:
            observed_array = positions_array
            directive = look_up(self.game, book.directive, None if known is None else known.directive)
        view = View(directive, levels[0], allowed, positions, portfolio)
        sight = Sight(
            caps=level_arrays[0],
            allowed=allowed_array,
            positions=positions_array,
            portfolio=portfolio_array,
            risk=level_arrays[1],
            cap_share=level_arrays[2],
            slots=level_arrays[3],
            observed=observed_array,
        )
        return view, sight

    def _share_out(self, envs: int, work: Callable[[int, int], int]) -> list[int]:
        """Runs `work(first, last)` over all environments, each in one piece."""
        threads = min(torch.get_num_threads(), envs, max(envs * self.game.market.size // THREAD_SHARE, 1))
        if threads == 1:
            return [work(0, envs)]
        cuts = [envs * part // threads for part in range(threads + 1)]
        rest = [_threads(threads, os.getpid()).submit(work, *cut) for cut in pairwise(cuts[1:])]
        return [work(0, cuts[1])] + [future.result() for future in rest]


def _seen(view: View) -> Sight:
    """What a step reads of the view it was decided on; the rest of the fields stand in."""
    directive, caps, allowed = view.directive, _array(view.caps), _array(view.allowed)
    unread = _array(view.positions)
    return Sight(
        caps=caps,
        allowed=allowed,
        positions=unread,
        portfolio=unread,
        risk=_array(directive.risk),
        cap_share=caps,
        slots=caps if directive.slots is None else _array(directive.slots),
        observed=unread,
    )


@lru_cache(maxsize=1)
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process: a fork has none of its parent's."""
    return ThreadPoolExecutor(count - 1, thread_name_prefix=f"market-{process}")


def _array(tensor: Tensor) -> Any:
    return tensor.contiguous().numpy()


def _room(count: int, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[tuple[Tensor, ...], list[Any]]:
    """`count` new tensors of one shape, and the arrays over the same memory."""
    whole = torch.empty((count, *shape), dtype=dtype)
    return whole.unbind(0), list(whole.numpy())


def _constants(game: Game) -> Constants:
    rules, terms = game.rules, game.terms
    return Constants(
        pooled=rules.pooled,
        shorting=rules.shorting,
        leveraged=rules.leveraged,
        counts=game.counts,
        decide_every=game.decide_every or 0,
        exposure=float(rules.exposure),
        leverage=float(rules.leverage),
        cap=float(rules.cap),
        open_positions=float(rules.open_positions),
        trades=rules.trades,
        turnover=float(rules.turnover),
        drawdown=float(rules.drawdown),
        drawdown_scale=1.0 / max(rules.drawdown, 1e-9),
        cool_down=rules.cool_down,
        liquidating=rules.liquidating,
        reentry_scale=float(rules.reentry_scale),
        commission=float(terms.commission),
        base=float(terms.commission + terms.slippage),
        borrow_per_day=float(terms.borrow / DAYS_PER_YEAR),
        cash_per_day=float(terms.cash / DAYS_PER_YEAR),
        floor=float(game.floor),
        reward_scale=float(game.reward_scale),
        smallest_order=MIN_ORDER,
        headroom=HEADROOM,
        slot_stride=SLOT_STRIDE,
        actions=len(ACTIONS),
        sell_partial=int(Action.SELL_PARTIAL),
        sell_all=int(Action.SELL_ALL),
        buys=BUY_BYTES,
        sells=SELL_BYTES,
        add=ADD_BYTES,
        memory=MEMORY,
    )


def _tables(game: Game) -> Tables:
    market = game.market
    tables = {
        "mark": market.mark,
        "fill": market.fill,
        "capacity": game.capacity,
        "per_share": game.per_share,
        "impact": market.impact,
        "gone": market.gone,
        "tradable": market.tradable,
        "days": market.days,
        "new_session": market.new_session,
        "in_play": game.in_play,
        "increase": game.increase,
        "reduce": game.reduce,
        "directives": game.directives,
        "log_bars": log_bars(torch.arange(market.bars + 1, dtype=torch.float32)),
    }
    return Tables(**{name: _array(table) for name, table in tables.items()})
