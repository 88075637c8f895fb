"""Bars from Yahoo Finance, fetched by yfinance. What Yahoo serves today may differ tomorrow: DVC keeps what came."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.schema import normalise_bars
from marl_pipeline.errors import UserError

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
        raise UserError(
            f"Yahoo Finance did not answer: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    if answer is None or answer.empty:
        raise UserError(f"Yahoo Finance has no {params.frequency} bars for {', '.join(symbols[:5])} in this span")
    return from_answer(answer, theirs, params)


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
