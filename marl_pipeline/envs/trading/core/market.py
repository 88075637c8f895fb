"""The market as the simulator reads it: one table per quantity, a row per bar, gathered by bar index.

Row `t` holds what the step from bar `t` to bar `t + 1` needs. Decisions use the columns known at the close of `t`
(`tradable`, `mark`, `capacity`, `impact`); the fill uses bar `t + 1`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import BoolArray, Dataset, FloatArray, IntArray, Panel, TimeArray
from marl_pipeline.envs.trading.core.costs import MAX_SLIPPAGE, base_slippage_rate, check_costs

GONE_SESSIONS = 5
"""A held symbol without a price for this many sessions is closed at its last one."""


@dataclass(frozen=True)
class Market:
    """Price and volume tables on one device. All are [T, N] float64 unless they say otherwise.

    Attributes:
        symbols: N names.
        mark: last known close of a tradable bar at or before `t` (1 before the first: nothing can be held then).
        tradable: bool, a decision may be taken at the close of `t`.
        fill: price of a fill at bar `t`: its open, or its close where the source gives no open; the previous mark
            where the symbol has no price.
        fillable: bool, orders are filled at bar `t`.
        gone: bool, what is held is closed at `fill`: the symbol has a price and is out of the index, or it has had no
            price for `GONE_SESSIONS` sessions (delisted or masked). Decided from the past and that bar alone; should it
            return, it can be bought anew.
        capacity: the most shares that one order decided at `t` may trade (participation x trailing mean volume);
            inf where no volume is known.
        impact: slippage beyond the base when an order takes the whole of `capacity`, as a fraction of notional;
            0 where no volume is known.
        days: [T] float64, calendar days between the session of bar `t - 1` and that of bar `t`; 0 within a session.
        new_session: [T] bool, bar `t` opens a session.
    """

    symbols: tuple[str, ...]
    mark: Tensor
    tradable: Tensor
    fill: Tensor
    fillable: Tensor
    gone: Tensor
    capacity: Tensor
    impact: Tensor
    days: Tensor
    new_session: Tensor

    @property
    def bars(self) -> int:
        return int(self.mark.shape[0])

    @property
    def size(self) -> int:
        """N."""
        return int(self.mark.shape[1])

    @property
    def device(self) -> torch.device:
        return self.mark.device

    def to(self, device: torch.device | str) -> Market:
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            moved[field.name] = value.to(device) if isinstance(value, Tensor) else value
        return Market(**moved)

    @classmethod
    def from_dataset(cls, dataset: Dataset, params: MarketParams, device: torch.device | str = "cpu") -> Market:
        return cls.from_panel(dataset.panel, params, device)

    @classmethod
    def from_panel(cls, panel: Panel, params: MarketParams, device: torch.device | str = "cpu") -> Market:
        """Builds the tables; row `t` of each depends on bars up to `t` only.

        Raises:
            UserError: the costs in `params` would eat a sale whole.
        """
        check_costs(params)
        priced = np.isfinite(panel.close) & (panel.close > 0)
        tradable = panel.tradable & priced
        close = np.where(tradable, panel.close, np.nan)
        mark = _forward_filled(close)
        outside = priced & ~panel.tradable  # the only priced bars that are not tradable: those outside the index
        opened = np.where(np.isfinite(panel.open) & (panel.open > 0), panel.open, panel.close)
        previous = np.vstack([mark[:1], mark[:-1]])
        volume = _forward_filled(
            _trailing_mean(np.where(panel.volume >= 0, panel.volume, np.nan), params.volume_window)
        )
        volatility = _trailing_volatility(mark, tradable, params.volume_window)
        impact = np.where(np.isfinite(volume), params.impact * volatility * np.sqrt(params.participation), 0.0)
        tables = {
            "mark": np.nan_to_num(mark, nan=1.0),
            "tradable": tradable,
            "fill": np.nan_to_num(np.where(priced, opened, previous), nan=1.0),
            "fillable": tradable,
            "gone": _gone(tradable, panel.session) | outside,
            "capacity": np.where(np.isfinite(volume), params.participation * volume, np.inf),
            "impact": np.minimum(impact, MAX_SLIPPAGE - base_slippage_rate(params)),
            "days": _days(panel.timestamps, panel.session),
            "new_session": np.diff(panel.session, prepend=panel.session[:1] - 1) != 0,
        }
        return cls(
            panel.symbols, **{name: torch.from_numpy(np.ascontiguousarray(table)) for name, table in tables.items()}
        ).to(device)


def _forward_filled(values: FloatArray) -> FloatArray:
    filled: FloatArray = pd.DataFrame(values).ffill().to_numpy()
    return filled


def _trailing_mean(values: FloatArray, window: int) -> FloatArray:
    mean: FloatArray = pd.DataFrame(values).rolling(window, min_periods=1).mean().to_numpy()
    return np.maximum(mean, 0.0)


def _trailing_volatility(mark: FloatArray, tradable: BoolArray, window: int) -> FloatArray:
    """Root mean square of the symbol's own bar-to-bar returns; 0 before the first return."""
    returns = np.full_like(mark, np.nan)
    returns[1:] = mark[1:] / mark[:-1] - 1.0
    returns[~tradable] = np.nan
    return np.nan_to_num(np.sqrt(_forward_filled(_trailing_mean(returns**2, window))), nan=0.0)


def _gone(tradable: BoolArray, session: IntArray) -> BoolArray:
    rows = np.where(tradable, np.arange(len(session))[:, None], -1)
    last = np.maximum.accumulate(rows, axis=0)
    absent: IntArray = session[:, None] - session[np.maximum(last, 0)]
    return (last >= 0) & (absent >= GONE_SESSIONS)


def _days(timestamps: TimeArray, session: IntArray) -> FloatArray:
    """A session's date is that of its first bar, so a session that crosses midnight in UTC counts as one day."""
    first = np.searchsorted(session, session, side="left")
    date: NDArray[np.int64] = timestamps.astype("datetime64[D]").astype(np.int64)[first]
    return np.diff(date, prepend=date[:1]).astype(np.float64)
