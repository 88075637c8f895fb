"""A step of the game on a CPU through the compiled `kernel`: tensors in, new tensors out, environments shared among
threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.trading import kernel
from marl_pipeline.envs.trading.accounts import DAYS_PER_YEAR, Ledger
from marl_pipeline.envs.trading.actions import ACTIONS
from marl_pipeline.envs.trading.book import Book
from marl_pipeline.envs.trading.game import SLOT_STRIDE, Game, Outcome, View, look_up
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

    def step(self, book: Book, view: View, chosen: Tensor, master: Tensor | None) -> tuple[Outcome, View]:
        """See `game.Engine`.

        Raises:
            ValueError: an action is none of `actions.Action`.
        """
        pooled, symbols, accounts = self.game.rules.pooled, book.shares.shape, book.cash.shape
        after = self._next(book, master)
        money, shared = torch.empty(6, *symbols, dtype=torch.float64), torch.empty(4, *accounts, dtype=torch.float64)
        flags = torch.empty(2, *accounts, dtype=torch.bool)
        growth = torch.empty(accounts)
        own = torch.empty(symbols) if pooled else growth
        traded, price, commission, slippage, price_pnl, paid = money.unbind(0)
        borrow, interest, notional, fill_equity = shared.unbind(0)
        ledger = Ledger(
            shares=traded,
            price=price,
            commission=commission,
            slippage=slippage,
            price_pnl=price_pnl,
            closed=torch.empty(symbols, dtype=torch.bool),
            paid=paid,
            borrow=borrow,
            interest=interest,
            notional=notional,
            fill_equity=fill_equity,
            cash=after.cash,
            gross=torch.empty(accounts, dtype=torch.float64) if pooled else after.value,
            equity=after.equity,
            holding=after.shares,
            value=after.value,
        )
        outcome = Outcome(after, ledger, torch.empty(symbols, dtype=torch.int64), flags[0], flags[1], growth, own)
        seen = self._sight(after, view)
        said = after.directive if master is None else master
        arguments = (
            self._constants,
            self._tables,
            _state(book),
            _array(view.allowed),
            _array(chosen),
            _array(said),
            _state(after),
            _entries(outcome),
            _sight(seen),
        )
        invalid = sum(self._share_out(book.bar.shape[0], partial(_apply, kernel.step, arguments)))
        if invalid:
            raise ValueError(f"actions of 'symbols' must be 0..{len(ACTIONS) - 1}, found {invalid} others")
        return outcome, seen._replace(directive=look_up(self.game, after.directive, view.directive))

    def look(self, book: Book, known: View | None) -> View:
        """See `game.Engine`."""
        seen = self._sight(book, known)
        arguments = (self._constants, self._tables, _state(book), _sight(seen))
        self._share_out(book.bar.shape[0], partial(_apply, kernel.look, arguments))
        return seen._replace(directive=look_up(self.game, book.directive, seen.directive))

    def _next(self, book: Book, master: Tensor | None) -> Book:
        """Room for the book after the step; what this game never changes is the old tensor."""
        game, symbols, accounts = self.game, book.shares.shape, book.cash.shape
        shares, invested, mark, value = torch.empty(4, *symbols, dtype=torch.float64).unbind(0)
        cash, equity, peak = torch.empty(3, *accounts, dtype=torch.float64).unbind(0)
        duration, idle = torch.empty(2, *symbols).unbind(0)
        bar, steps = torch.empty(2, *book.bar.shape, dtype=torch.int64).unbind(0)
        moments = (book.mean, book.square, book.last_return, book.last_turnover)
        if game.rules.pooled:
            moments = torch.empty(4, *accounts).unbind(0)  # type: ignore[assignment]
        mean, square, last_return, last_turnover = moments
        return Book(
            bar=bar,
            end=book.end,
            steps=steps,
            cash=cash,
            equity=equity,
            peak=peak,
            halt=torch.empty(accounts, dtype=torch.int64),
            alive=torch.empty(accounts, dtype=torch.bool),
            turnover=torch.empty(accounts, dtype=torch.float64) if game.counts else book.turnover,
            directive=book.directive if master is None else torch.empty(accounts, dtype=torch.int64),
            mean=mean,
            square=square,
            last_return=last_return,
            last_turnover=last_turnover,
            shares=shares,
            invested=invested,
            mark=mark,
            value=value,
            duration=duration,
            idle=idle,
            trades=torch.empty(symbols, dtype=torch.int32) if game.counts else book.trades,
        )

    def _sight(self, book: Book, known: View | None) -> View:
        """Room for a view; its directive is that of `known` until the book's is looked up."""
        accounts, symbols = book.cash.shape, book.shares.shape
        return View(
            directive=look_up(self.game, book.directive, None) if known is None else known.directive,
            caps=torch.empty(accounts, dtype=torch.float64),
            allowed=torch.empty(symbols, dtype=torch.int64),
            positions=torch.empty(*symbols, len(POSITION_FIELDS)),
            portfolio=torch.empty(*accounts, len(PORTFOLIO_FIELDS)) if self.game.rules.pooled else None,
        )

    def _share_out(self, envs: int, work: Callable[[int, int], int | None]) -> list[int]:
        """Runs `work(first, last)` over all environments, each in one piece."""
        threads = min(torch.get_num_threads(), envs, max(envs * self.game.market.size // THREAD_SHARE, 1))
        if threads == 1:
            return [work(0, envs) or 0]
        cuts = [envs * part // threads for part in range(threads + 1)]
        rest = [_threads(threads, os.getpid()).submit(work, *cut) for cut in zip(cuts[1:-1], cuts[2:], strict=True)]
        return [work(0, cuts[1]) or 0] + [future.result() or 0 for future in rest]


def _apply(function: Callable[..., int | None], arguments: tuple[Any, ...], first: int, last: int) -> int | None:
    return function(first, last, *arguments)


@lru_cache(maxsize=1)
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process: a fork has none of its parent's."""
    return ThreadPoolExecutor(count - 1, thread_name_prefix=f"market-{process}")


def _array(tensor: Tensor) -> Any:
    return tensor.contiguous().numpy()


def _constants(game: Game) -> kernel.Constants:
    rules, terms = game.rules, game.terms
    return kernel.Constants(
        pooled=rules.pooled,
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
        buys=BUY_BYTES,
        sells=SELL_BYTES,
        add=ADD_BYTES,
        memory=MEMORY,
    )


def _tables(game: Game) -> kernel.Tables:
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
        "buy_size": game.buy_size,
        "sell_size": game.sell_size,
        "directives": game.directives,
        "log_bars": log_bars(torch.arange(market.bars + 1, dtype=torch.float32)),
    }
    return kernel.Tables(**{name: _array(table) for name, table in tables.items()})


def _state(book: Book) -> kernel.State:
    return kernel.State(**{name: _array(tensor) for name, tensor in book.tensors().items()})


def _entries(outcome: Outcome) -> kernel.Entries:
    ledger = outcome.ledger
    own = {name: getattr(outcome, name) for name in ("executed", "tripped", "reentered", "growth", "own")}
    tensors = {name: getattr(ledger, name) for name in kernel.Entries._fields if name not in own} | own
    return kernel.Entries(**{name: _array(tensor) for name, tensor in tensors.items()})


def _sight(view: View) -> kernel.Sight:
    portfolio = view.positions if view.portfolio is None else view.portfolio  # accounts have none, and none is written
    return kernel.Sight(_array(view.caps), _array(view.allowed), _array(view.positions), _array(portfolio))
