"""A step of the game on a CPU through the compiled `kernel`: tensors in, new tensors out, environments shared among
threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.envs.trading.compiled.kernel.arrays import Constants, Layout, LedgerArrays, State, Tables, ViewArrays
from marl_pipeline.envs.trading.compiled.kernel.step import Memory, observe, step
from marl_pipeline.envs.trading.compiled.memory import Block, BufferPool, merged, named
from marl_pipeline.envs.trading.core.accounts import DAYS_PER_YEAR, Ledger
from marl_pipeline.envs.trading.core.actions import ACTIONS, DIRECTIVE_FIELDS, Action
from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.game import SLOT_STRIDE, Directive, Game, Outcome, View, look_up
from marl_pipeline.envs.trading.core.limits import ADD_BYTES, BUY_BYTES, HEADROOM, SELL_BYTES
from marl_pipeline.envs.trading.core.observation import (
    MEMORY,
    PORTFOLIO_FIELDS,
    POSITION_FIELDS,
    log_bars,
)

THREAD_SHARE = 4096
"""Symbols that a thread is worth being woken for."""

HEAD_START = 2048
"""Symbols that the calling thread has stepped by the time the others are awake."""

PIECE = 8192
"""Symbols of the smallest run of environments that is handed over at once."""


class CompiledEngine:
    """Implements `game.Engine` on a CPU; `torch.get_num_threads()` threads, which change no bit."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self._constants = _constants(game)
        self._tables = _tables(game)
        self._step_buffers = BufferPool(_step_blocks(game))
        self._view_buffers = BufferPool(_view_blocks(game))
        self._memory: list[Memory] = []
        self._last: tuple[Book, State] | None = None

    def step(self, book: Book, view: View, chosen: Tensor, master: Tensor | None) -> tuple[Outcome, View]:
        """See `game.Engine`.

        Raises:
            ValueError: an action is none of `actions.Action`.
        """
        before, constants, tables = self._state(book), self._constants, self._tables
        buffer = self._step_buffers.take(book.bar.shape[0])
        tensors, arrays = buffer.tensors(), buffer.arrays
        # What this game never changes is the old tensor.
        after, after_arrays = replace(book, **tensors["after"]), before._replace(**arrays["after"])
        outcome, entries = self._outcome(tensors["entries"], arrays["entries"], after, after_arrays)
        seen, written = self._view(after, view)
        directives = after_arrays.directive if master is None else _array(master)
        decided, actions = _seen(view), _array(chosen)

        def work(first: int, last: int, memory: Memory) -> int:
            books = (before, decided, actions, directives, after_arrays, entries, written)
            return step(first, last, constants, tables, *books, memory)

        invalid = self._share_out(book.bar.shape[0], work)
        if invalid:
            raise ValueError(f"actions of 'symbols' must be 0..{len(ACTIONS) - 1}, found {invalid} others")
        self._last = (after, after_arrays)
        return outcome, seen

    def observe(self, book: Book, known: View | None) -> View:
        """See `game.Engine`."""
        seen, written = self._view(book, known)
        state, constants, tables = self._state(book), self._constants, self._tables

        def work(first: int, last: int, memory: Memory) -> int:
            observe(first, last, constants, tables, state, written, memory)
            return 0

        self._share_out(book.bar.shape[0], work)
        return seen

    def _state(self, book: Book) -> State:
        if self._last is not None and self._last[0] is book:
            return self._last[1]
        return State(*(_array(getattr(book, name)) for name in State._fields))

    def _outcome(
        self, tensors: dict[str, Tensor], arrays: dict[str, Any], after: Book, after_arrays: State
    ) -> tuple[Outcome, LedgerArrays]:
        unwritten = {"own": arrays["growth"], "gross": after_arrays.value}
        tensors.setdefault("gross", after.value)  # accounts of one long position: it is their gross exposure
        executed, tripped, reentered, growth = (
            tensors.pop(name) for name in ("executed", "tripped", "reentered", "growth")
        )
        own = tensors.pop("own", growth)
        ledger = Ledger(**tensors, cash=after.cash, equity=after.equity, holding=after.shares, value=after.value)
        return Outcome(after, ledger, executed, tripped, reentered, growth, own), LedgerArrays(**(unwritten | arrays))

    def _view(self, book: Book, known: View | None) -> tuple[View, ViewArrays]:
        """Without a master directives seldom change: they are looked up when they do."""
        buffer = self._view_buffers.take(book.bar.shape[0])
        tensors, arrays = buffer.tensors()["view"], buffer.arrays["view"]
        if self.game.decide_every is not None:
            fields = (tensors[name] for name in ("observed", "risk", "cap_share", "slots"))
            directive = Directive(book.directive, *fields)
        else:
            directive = look_up(self.game, book.directive, None if known is None else known.directive)
        view = View(directive, tensors["caps"], tensors["allowed"], tensors["positions"], tensors.get("portfolio"))
        unwritten = {"portfolio": arrays["positions"], "observed": arrays["positions"]}
        unwritten |= dict.fromkeys(("risk", "cap_share", "slots"), arrays["caps"])
        return view, ViewArrays(**(unwritten | arrays))

    def _share_out(self, envs: int, work: Callable[[int, int, Memory], int]) -> int:
        """Runs `work(first, last, ...)` over all environments, on threads with memory of their own. Returns the sum of
        what it does."""
        size, memory = self.game.market.size, self._memory
        threads = min(torch.get_num_threads(), envs, max(envs * size // THREAD_SHARE, 1))
        while len(memory) < threads:
            memory.append(Memory.empty(size, self.game.accounts, pooled=self.game.rules.pooled))
        if threads == 1:
            return work(0, envs, memory[0])
        pieces = _pieces(envs, size, threads)

        def take_pieces(own: Memory) -> int:
            return sum(work(first, last, own) for first, last in pieces)

        rest = [_threads(threads, os.getpid()).submit(take_pieces, memory[k]) for k in range(1, threads)]
        try:
            own = take_pieces(memory[0])
        finally:
            wait(rest)  # whatever happened here: they write into arrays that would be handed out again
        return own + sum(future.result() for future in rest)


def _pieces(envs: int, size: int, threads: int) -> Iterator[tuple[int, int]]:
    """Runs of environments, to be taken by whichever thread is free: a thread may be woken late, or on a core that
    somebody else's threads wait on."""
    piece = max(PIECE, envs * size // (threads * 3)) // size + 1
    cuts = [0, *range(piece + HEAD_START // size, envs, piece), envs]
    return iter(tuple(pairwise(cuts)))  # of a tuple: two threads may take from it at once


def _step_blocks(game: Game) -> tuple[Block, ...]:
    """Describes memory for the next book and for what the step does to it."""
    symbols, accounts, pooled = (game.market.size,), (game.accounts,), game.rules.pooled
    money = "shares price commission slippage price_pnl paid"
    sums = "borrow interest notional fill_equity" + (" gross" if pooled or game.rules.shorting else "")
    blocks = [
        Block((), torch.int64, named(after="bar steps")),
        Block(symbols, torch.float64, named(after="shares invested mark value", entries=money)),
        Block(symbols, torch.float32, named(after="duration idle", entries="own" if pooled else "")),
        Block(symbols, torch.int64, named(entries="executed")),
        Block(symbols, torch.bool, named(entries="closed")),
        Block(accounts, torch.float64, named(after="cash equity peak", entries=sums)),
        Block(accounts, torch.int64, named(after="halt")),
        Block(accounts, torch.bool, named(after="alive", entries="tripped reentered")),
        Block(accounts, torch.float32, named(entries="growth")),
    ]
    if game.counts:
        blocks += [
            Block(symbols, torch.int32, named(after="trades")),
            Block(accounts, torch.float64, named(after="turnover")),
        ]
    if game.decide_every is not None:
        blocks += [Block(accounts, torch.int64, named(after="directive"))]
    if pooled:
        blocks += [Block(accounts, torch.float32, named(after="mean square last_return last_turnover"))]
    return merged(blocks)


def _view_blocks(game: Game) -> tuple[Block, ...]:
    """Describes memory for a view, apart from the books: rollouts keep views."""
    symbols, accounts = (game.market.size,), (game.accounts,)
    blocks = [
        Block((*symbols, len(POSITION_FIELDS)), torch.float32, named(view="positions")),
        Block(symbols, torch.int64, named(view="allowed")),
        Block(accounts, torch.float64, named(view="caps")),
    ]
    if game.rules.pooled:
        blocks += [Block((*accounts, len(PORTFOLIO_FIELDS)), torch.float32, named(view="portfolio"))]
    if game.decide_every is not None:
        blocks += [
            Block(accounts, torch.float64, named(view="risk cap_share slots")),
            Block((*accounts, len(DIRECTIVE_FIELDS)), torch.float32, named(view="observed")),
        ]
    return merged(blocks)


def _seen(view: View) -> ViewArrays:
    """What a step reads of the view it was decided on; the rest of the fields stand in."""
    directive, caps, allowed = view.directive, _array(view.caps), _array(view.allowed)
    unread = _array(view.positions)
    return ViewArrays(
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
        reward_scale=float(game.reward_scale),
        smallest_order=rules.min_order,
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
    market, partition = game.market, game.rules.partition
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
        "in_universe": game.in_universe,
        "increase": game.increase,
        "reduce": game.reduce,
        "directives": game.directives,
        "log_bars": log_bars(torch.arange(market.bars + 1, dtype=torch.float32)),
        "floor": game.floor,
    }
    layout = Layout(
        pooled=game.rules.pooled,
        segmented=partition.kind == "segments",
        account_of=_array(partition.account_of),
        order=_array(partition.order),
        bounds=_array(partition.bounds),
    )
    return Tables(**{name: _array(table) for name, table in tables.items()}, layout=layout)
