"""What the agents see of the books, in float32, bounded or on a log scale. What they see of the market they look up
themselves by bar and symbol index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.limits import Rules

POSITION_FIELDS: tuple[str, ...] = (
    "held",  # value / cap of the position, -2..2, negative when short
    "weight",  # value / equity, -2..2
    "unrealised",  # gain / money paid, times 10, -5..5
    "duration",  # log(1 + bars held) / 5
    "idle",  # log(1 + bars since the last trade) / 5
    "drawdown",  # of the account, as a share of the limit, 0..1.5
    "cash",  # cash / equity of the account, -1..2 (proceeds of shorts included)
    "halt",  # kill switch: 0 normal, 0.5 re-entered with reduced sizes, 1 liquidating or flat
)

PORTFOLIO_FIELDS: tuple[str, ...] = (
    "cash",  # cash / equity, -1..2 (proceeds of shorts included)
    "gross",  # gross exposure / equity, 0..5
    "drawdown",  # as a share of the limit, 0..1.5
    "sharpe",  # mean / standard deviation of the return per bar, exponential window of 32 bars, -3..3
    "volatility",  # standard deviation of the return per bar, times 50, 0..5
    "open",  # open positions / limits.open_positions
    "turnover",  # of the last step, as a multiple of equity, 0..2
    "herfindahl",  # sum of squared shares of the gross exposure; 0 when flat
    "largest",  # largest weight, long or short, / limits.position, 0..2
    "unrealised",  # gain of the positions / money paid, times 10, -5..5
    "return",  # of the last step, times 50, -5..5
    "halt",  # as above
)

MEMORY = 1.0 / 32.0
"""Weight of the newest return in the running Sharpe ratio."""


def log_bars(bars: Tensor) -> Tensor:
    """A number of bars on a log scale."""
    return torch.log1p(bars) * 0.2


def _drawdown(rules: Rules, book: Book) -> Tensor:
    """[E, A] share of the allowed drawdown that is used up."""
    scale = 1.0 / max(rules.drawdown, 1e-9)
    return ((1.0 - book.equity / book.peak) * scale).clamp(0.0, 1.5).float()


def _halted(rules: Rules, halt: Tensor) -> Tensor:
    return 0.5 * (halt > 0).float() + 0.5 * rules.blocked(halt).float()


def observe_positions(rules: Rules, book: Book, caps: Tensor) -> Tensor:
    """[E, N, P] float32 with the columns of `POSITION_FIELDS`; `caps` is [E, A]."""
    equity, each = book.equity.clamp(min=1e-9), rules.spread
    unrealised = (book.value - book.invested) / rules.size(book.invested).clamp(min=1e-12)
    columns = (
        (book.value / each((equity * caps).clamp(min=1e-9))).clamp(-2.0, 2.0),
        (book.value / each(equity)).clamp(-2.0, 2.0),
        (unrealised * 10.0).clamp(-5.0, 5.0),
        log_bars(book.duration),
        log_bars(book.idle),
        each(_drawdown(rules, book)),
        each((book.cash / equity).clamp(-1.0, 2.0)),
        each(_halted(rules, book.halt)),
    )
    seen = torch.empty(len(columns), *book.value.shape, dtype=torch.float32, device=book.value.device)
    for row, column in zip(seen, columns, strict=True):
        row.copy_(column)
    return seen.permute(1, 2, 0).contiguous()


def observe_portfolio(rules: Rules, book: Book) -> Tensor:
    """[E, A, K] float32 with the columns of `PORTFOLIO_FIELDS`."""
    equity, pool = book.equity.clamp(min=1e-9), rules.pool
    size = rules.size(book.value)
    gross = pool(size)
    gain = pool(book.value) - pool(book.invested)
    paid = pool(rules.size(book.invested))
    deviation = (book.square - book.mean**2).clamp(min=0.0).sqrt()
    held = rules.partition.count(size > 0.0)
    columns = [
        (book.cash / equity).clamp(-1.0, 2.0),
        (gross / equity).clamp(0.0, 5.0),
        _drawdown(rules, book),
        (book.mean / (deviation + 1e-4)).clamp(-3.0, 3.0),
        (deviation * 50.0).clamp(max=5.0),
        held / rules.open_positions,
        book.last_turnover.clamp(max=2.0),
        pool(book.value**2) / (gross**2).clamp(min=1e-18),
        (rules.partition.largest(size) / equity / rules.cap).clamp(max=2.0),
        (gain / paid.clamp(min=1e-9) * 10.0).clamp(-5.0, 5.0),
        (book.last_return * 50.0).clamp(-5.0, 5.0),
        _halted(rules, book.halt),
    ]
    return torch.stack([column.float() for column in columns], -1)
