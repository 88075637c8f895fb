"""Bars from Yahoo Finance, fetched by yfinance. What Yahoo serves today may differ tomorrow: DVC keeps what came."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.schema import normalise_bars
from marl_pipeline.errors import UserError

UNREACHABLE = re.compile(
    r"could not resolve host[^,;)'\"]*|name or service not known|temporary failure in name resolution"
    r"|getaddrinfo failed|name ?resolution[a-z]*|DNSError|connection refused|network is unreachable|no route to host"
    r"|(?:failed|unable|could not) to (?:establish|connect)[^,;)'\"]*|max retries exceeded"
    r"|connection (?:timed out|reset|aborted)[^,;)'\"]*|curl: \((?:5|6|7|28|35|56)\)[^;)'\"]*"
    r"|ConnectionError|ConnectTimeout|ProxyError|SSLError|timed out",
    re.IGNORECASE,
)
"""How the errors of a network read, in the words of curl, urllib3 and the system."""

INTERVALS = {"1Day": "1d", "1Hour": "1h"}


def download(symbols: Sequence[str], params: DataParams) -> pd.DataFrame:
    """The canonical bars of `symbols` from `data.start` to `data.end` (both included).

    Yahoo writes share classes with a dash: BRK.B is asked for as BRK-B and comes back as BRK.B. With
    `data.adjustment: total` prices contain dividends too, with `split` only splits.

    Raises:
        UserError: no symbols, unadjusted prices wanted, no answer, or no bars for any symbol.
    """
    if not symbols:
        raise UserError("data.source yfinance needs data.universe: a file that names the symbols to download")
    if params.adjustment == "none":
        raise UserError("data.source yfinance has no unadjusted prices; set data.adjustment to split or total")
    import yfinance  # 1 s, and it needs the network

    theirs = {name.replace(".", "-") if not name.startswith("^") else name: name for name in symbols}
    end = None if params.end is None else str((pd.Timestamp(params.end) + pd.Timedelta(days=1)).date())
    with _said() as said:
        try:
            answer = yfinance.download(
                list(theirs),
                start=params.start,
                end=end,
                interval=INTERVALS[params.frequency],
                auto_adjust=params.adjustment == "total",
                actions=False,
                group_by="ticker",
                multi_level_index=True,
                progress=False,
            )
        except Exception as error:  # whatever the network or Yahoo's answer makes of it
            words = " ".join(str(error).split()) or type(error).__name__
            _refuse_unreachable([words])
            raise UserError(f"Yahoo Finance did not answer: {words}") from error
    if answer is None or answer.empty or not answer.notna().to_numpy().any():
        _refuse_unreachable(said)
        raise UserError(f"Yahoo Finance has no {params.frequency} bars for {', '.join(symbols[:5])} in this span")
    return from_answer(answer, theirs, params)


@contextmanager
def _said() -> Iterator[list[str]]:
    """What yfinance logs meanwhile, kept from the screen: it swallows the errors of the network and logs them."""
    logger = logging.getLogger("yfinance")
    said: list[str] = []
    keeper = logging.Handler()
    keeper.emit = lambda record: said.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    handlers, propagate = list(logger.handlers), logger.propagate
    logger.handlers, logger.propagate = [keeper], False
    try:
        yield said
    finally:
        logger.handlers, logger.propagate = handlers, propagate


def _refuse_unreachable(said: Sequence[str]) -> None:
    """Raises if one of the messages is of the network and not of the tickers."""
    for words in said:
        found = [match[0] for match in UNREACHABLE.finditer(words)]
        if found:
            cause = max(found, key=len).strip(" .")[:120]
            raise UserError(f"Yahoo Finance cannot be reached ({cause}); check the network and run again")


def from_answer(answer: pd.DataFrame, theirs: dict[str, str], params: DataParams) -> pd.DataFrame:
    """Turns yfinance's wide table (columns ticker x field) into canonical bars, symbols in the order asked for."""
    frames = []
    for ticker, symbol in theirs.items():
        if ticker not in answer.columns.get_level_values(0):
            continue
        fields = answer[ticker].dropna(how="all")
        wanted = fields[[name for name in ("Open", "High", "Low", "Close", "Volume") if name in fields]]
        if len(wanted):
            frames.append(wanted.assign(symbol=symbol, timestamp=wanted.index).reset_index(drop=True))
    if not frames:
        raise UserError(f"Yahoo Finance has no bars for any of {', '.join(list(theirs.values())[:5])} in this span")
    naive_days = params.model_copy(update={"timezone": params.timezone or "UTC", "columns": {}})
    return normalise_bars(pd.concat(frames, ignore_index=True), params=naive_days, origin="Yahoo Finance")
