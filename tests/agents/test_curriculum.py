from __future__ import annotations

import numpy as np
import pytest

from marl_pipeline.agents.curriculum import episode_starts, stage_universe
from marl_pipeline.config import CurriculumStageParams
from marl_pipeline.data.windows import Span
from marl_pipeline.errors import UserError


def stage(symbols=1.0, calm=1.0):
    return CurriculumStageParams(name="s", symbols=symbols, calm=calm, iterations=1)


def test_the_most_liquid_symbols_play_first():
    liquidity = np.array([3.0, np.nan, 9.0, 1.0])
    assert stage_universe(liquidity, stage(symbols=0.5)).tolist() == [True, False, True, False]
    assert stage_universe(liquidity, stage(symbols=0.01)).tolist() == [False, False, True, False]
    assert stage_universe(liquidity, stage()).all()


def test_episodes_start_in_calm_bars_and_end_inside_the_span():
    volatility = np.arange(100.0)
    volatility[:10] = np.nan
    starts = episode_starts(volatility, Span(0, 80), 20, stage(calm=0.5))
    assert starts.min() == 10
    assert starts.max() == 34  # the calmer half of the known starts 10..59
    assert (episode_starts(volatility, Span(0, 80), 20, stage()) + 20 <= 80).all()


def test_a_span_without_room_for_an_episode_is_refused_with_the_remedy():
    with pytest.raises(UserError, match="episode of 90 bars does not fit the train span of 80"):
        episode_starts(np.arange(100.0), Span(0, 80), 90, stage())
    with pytest.raises(UserError, match="volatility is known at none"):
        episode_starts(np.full(100, np.nan), Span(0, 80), 20, stage())
