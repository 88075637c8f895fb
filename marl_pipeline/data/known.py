"""What each bar would know of its companions, as columns beside the bars (`marl data bars --companions`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from marl_pipeline.data.availability import as_of
from marl_pipeline.data.calendar import known_at
from marl_pipeline.data.companions import Companions
from marl_pipeline.data.series import figures_of

SCORES = ("sentiment", "score", "sentimentscore")
"""Names under which a sentiment file with several figures holds the one that is called `sentiment`."""


def beside_the_bars(bars: pd.DataFrame, companions: Companions, frequency: str, calendar: str) -> pd.DataFrame:
    """The canonical bars with what was known at the completion of each: `vix`, `macro_<series>`, `sentiment` and
    `sector`, each only where the companion is given; unknown figures are NaN, an unknown sector is empty.

    Of a sentiment file with several figures the one named sentiment or score becomes `sentiment`, and every other one
    `sentiment_<figure>`.
    """
    table = bars.reset_index(drop=True)
    moments = known_at(table["timestamp"], frequency, calendar)
    columns: dict[str, Any] = {}
    if companions.vix is not None:
        columns["vix"] = as_of(companions.vix.drop(columns="timestamp"), moments)[:, 0]
    if companions.macro is not None:
        names = figures_of(companions.macro)
        known = as_of(companions.macro.drop(columns="timestamp"), moments)
        columns |= {f"macro_{name}": known[:, place] for place, name in enumerate(names)}
    if companions.sentiment is not None:
        columns |= _sentiment(table["symbol"], companions.sentiment, moments)
    if companions.sectors is not None:
        named = companions.sectors.drop_duplicates("symbol").set_index("symbol")["sector"]
        columns["sector"] = table["symbol"].map(named).astype("str").where(table["symbol"].isin(named.index), None)
    return table.assign(**columns)


def _sentiment(symbols: pd.Series, sentiment: pd.DataFrame, moments: np.ndarray) -> dict[str, np.ndarray]:
    names = figures_of(sentiment)
    score = next((name for name in names if name.replace("_", "").lower() in SCORES), names[0])
    known = np.full((len(symbols), len(names)), np.nan)
    rows_of = sentiment.groupby("symbol", sort=False).indices
    for symbol, places in symbols.groupby(symbols, sort=False).indices.items():
        if symbol in rows_of:
            rows = sentiment.iloc[rows_of[symbol]].drop(columns=["symbol", "timestamp"])
            known[places] = as_of(rows, moments[places])
    return {"sentiment" if name == score else f"sentiment_{name}": known[:, place] for place, name in enumerate(names)}
