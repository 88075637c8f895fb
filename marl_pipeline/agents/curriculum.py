"""From the easy part of the market to all of it: which symbols, and which bars an episode may start at."""

from __future__ import annotations

import numpy as np

from marl_pipeline.config import CurriculumStageParams
from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray
from marl_pipeline.data.windows import Span
from marl_pipeline.errors import UserError


def stage_universe(liquidity: FloatArray, stage: CurriculumStageParams) -> BoolArray:
    """The most liquid `stage.symbols` share of all symbols, at least one (ties: by position).

    Args:
        liquidity: [N], higher is more liquid; NaN ranks last.
    """
    count = max(1, round(len(liquidity) * stage.symbols))
    order = np.argsort(-np.nan_to_num(liquidity, nan=-np.inf), kind="stable")
    chosen = np.zeros(len(liquidity), dtype=np.bool_)
    chosen[order[:count]] = True
    return chosen


def episode_starts(volatility: FloatArray, span: Span, episode: int, stage: CurriculumStageParams) -> IntArray:
    """Bars of `span` from which an episode fits, where realised volatility is in the calmest `stage.calm` share.

    Args:
        volatility: [T] trailing market volatility; NaN where the look-back is not full.

    Raises:
        UserError: the span is shorter than an episode, or volatility is known nowhere in it.
    """
    last = span.stop - episode
    if last <= span.start:
        raise UserError(
            f"too little history: an episode of {episode} bars does not fit the train span of {len(span)}; "
            "lower the stage's ppo.episode or bring more bars"
        )
    starts = np.arange(span.start, last, dtype=np.int64)
    known = starts[np.isfinite(volatility[starts])]
    if not len(known):
        raise UserError(
            f"too little history: market volatility is known at none of the {len(starts)} possible episode starts; "
            "bring more bars or lower build_features.regime_window"
        )
    calmest = np.quantile(volatility[known], stage.calm)
    return known[volatility[known] <= calmest]
