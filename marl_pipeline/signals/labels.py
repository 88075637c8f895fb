"""What the supervised models learn to foresee: down, flat or up over the next bars, against the symbol's own
volatility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marl_pipeline.data import trailing
from marl_pipeline.data.dataset import FloatArray, IntArray, Panel

CLASSES = ("down", "flat", "up")
UNKNOWN = -1

VOLATILITY_BARS = 60
"""Trailing bars of the volatility that the return is measured in; half of them must be there."""


@dataclass(frozen=True)
class Labels:
    """Looks ahead by design: for fitting and scoring, never an input.

    Attributes:
        classes: [T, N] index into `CLASSES`, `UNKNOWN` where there is no label.
        forward: [T, N] the return behind it, in trailing standard deviations over the holding time; NaN where
            unknown.
        reach: the label of bar t reads bars up to t + reach.
    """

    classes: IntArray
    forward: FloatArray
    reach: int


def label(panel: Panel, horizon: int, threshold: float) -> Labels:
    """Labels bar t by the log return from the fill after t to the close of bar t + 1 + horizon.

    The fill is the open of bar t + 1, or its close where the source gives no open, as in the simulator, so what is
    foreseen can be earned. A symbol without a bar at t + 1 has no label; one without a bar at the end is valued at
    its last close. The class is up (down) when the return, divided by the standard deviation of the symbol's log
    returns over the `VOLATILITY_BARS` bars to t times sqrt(horizon), is above `threshold` (below -`threshold`).
    """
    reach = horizon + 1
    volatility = trailing.deviation(trailing.log_returns(panel.close), VOLATILITY_BARS, VOLATILITY_BARS // 2)
    entry = np.where(np.isfinite(panel.open), panel.open, panel.close)
    forward = np.full(panel.close.shape, np.nan)
    if len(forward) > reach:
        end = trailing.carried(panel.close)[reach:]
        scale = volatility[:-reach] * np.sqrt(horizon)
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.log(end / entry[1 : 1 - reach]) / scale
        forward[:-reach] = np.where(np.isfinite(ahead) & (scale > 0.0), ahead, np.nan)
    known = np.isfinite(forward)
    value = np.where(known, forward, 0.0)
    classes = 1 + (value > threshold).astype(np.int64) - (value < -threshold).astype(np.int64)
    return Labels(np.where(known, classes, UNKNOWN), forward, reach)
