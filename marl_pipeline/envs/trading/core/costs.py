"""What a trade costs: commission and slippage, per side, as a fraction of the traded notional.

Slippage is a base plus the square-root law of market impact (Almgren et al. 2005; Toth et al. 2011): proportional to
the volatility of one bar and to the square root of the share of the bar's usual volume that the order takes. Written
once here.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marl_pipeline.config import MarketParams
from marl_pipeline.errors import UserError

BASIS_POINT = 1e-4

MAX_SLIPPAGE = 0.5
"""Slippage never takes more than half of the notional, however wild the bar: a price does not turn negative."""

Numbers = TypeVar("Numbers", Tensor, NDArray[np.float64], float)


def commission_rate(params: MarketParams) -> float:
    """Commission of one side: half of the round trip's."""
    return 0.5 * params.commission_bps_round_trip * BASIS_POINT


def base_slippage_rate(params: MarketParams) -> float:
    """Slippage of an order too small to move the price."""
    return params.slippage_bps * BASIS_POINT


def slippage_rate(params: MarketParams, volatility: Numbers, participation: Numbers) -> Numbers:
    """Slippage of one side, before the bound `MAX_SLIPPAGE`.

    Args:
        volatility: standard deviation of one bar's return, as a fraction.
        participation: shares of the order / trailing mean volume of a bar; 0 where volume is not known.
    """
    root: Numbers = participation**0.5
    return base_slippage_rate(params) + params.impact * volatility * root


def check_costs(params: MarketParams) -> None:
    """Refuses costs that would eat a sale whole (cash could turn negative by selling).

    Raises:
        UserError: commission per side plus the bound of slippage reach the notional.
    """
    if base_slippage_rate(params) > MAX_SLIPPAGE:
        raise UserError(
            f"params.yaml: market.slippage_bps {params.slippage_bps} is beyond {MAX_SLIPPAGE / BASIS_POINT}"
        )
    if commission_rate(params) + MAX_SLIPPAGE >= 1.0:
        raise UserError(
            f"params.yaml: market.commission_bps_round_trip {params.commission_bps_round_trip} takes more than a sale "
            "brings; lower it"
        )
