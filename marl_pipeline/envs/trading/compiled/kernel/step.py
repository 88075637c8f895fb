"""The entry points of the kernel: `step` and `observe` for a run of environments. Each is one call: to hand over so
many arrays takes time, and holds Python's lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from marl_pipeline.envs.trading.compiled.kernel import observe as observing
from marl_pipeline.envs.trading.compiled.kernel.arrays import (
    Constants,
    Ints,
    LedgerArrays,
    State,
    Tables,
    ViewArrays,
    cached,
)
from marl_pipeline.envs.trading.compiled.kernel.mark import Sums, mark
from marl_pipeline.envs.trading.compiled.kernel.observe import AccountLimits, Scratch
from marl_pipeline.envs.trading.compiled.kernel.trade import Rows, trade


class Memory(NamedTuple):
    """Working memory of one thread."""

    rows: Rows
    sums: Sums
    scratch: Scratch
    books: AccountLimits
    symbol_limits: AccountLimits

    @classmethod
    def empty(cls, size: int, accounts: int, *, pooled: bool) -> Memory:
        symbol_limits = AccountLimits.empty(size)
        books = AccountLimits.empty(accounts) if pooled else symbol_limits
        scratch = Scratch.empty(size, accounts)
        return cls(Rows.empty(size, accounts), Sums.empty(size, accounts), scratch, books, symbol_limits)


def _entry_points(sources: int) -> tuple[Callable[..., int], Callable[..., None]]:
    """The phases live in other files: numba's cache does not watch those, but it does what a function closes over."""

    @cached
    def step(
        first: int,
        last: int,
        c: Constants,
        m: Tables,
        s: State,
        seen: ViewArrays,
        chosen: Ints,
        master: Ints,
        after: State,
        entries: LedgerArrays,
        view: ViewArrays,
        memory: Memory,
    ) -> int:
        """Steps environments `first` .. `last` - 1. Returns what `trade` does."""
        assert sources  # part of the closure, and so of the key of the cache
        invalid = trade(first, last, c, m, s, seen, chosen, after, entries, memory.rows)
        mark(first, last, c, m, s, master, after, entries, memory.sums)
        observing.observe(first, last, c, m, after, view, memory.scratch, memory.books, memory.symbol_limits)
        return invalid

    @cached
    def observe(first: int, last: int, c: Constants, m: Tables, s: State, view: ViewArrays, memory: Memory) -> None:
        """See `kernel.observe.observe`."""
        assert sources
        observing.observe(first, last, c, m, s, view, memory.scratch, memory.books, memory.symbol_limits)

    return step, observe


def _fingerprint() -> int:
    """Of the sources of the kernel, with the highest bit set: never 0."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()
    return int.from_bytes(digest[:6], "big") | 1 << 48


step, observe = _entry_points(_fingerprint())
