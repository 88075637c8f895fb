"""What the policy has to beat, on the same bars, in the same simulator and at the same costs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from marl_pipeline.agents.rules import rule
from marl_pipeline.config import MarketParams
from marl_pipeline.data.dataset import Dataset, Signals
from marl_pipeline.data.windows import Span, Window
from marl_pipeline.evaluation.rules import rule_accounts

BASELINES = ("equal_weight", "equal_weight_monthly", "benchmark", "sl_thresholds", "cash")
"""The rules that every report shows."""


def baselines(
    dataset: Dataset, signals: Signals, windows: Sequence[Window], market: MarketParams
) -> dict[str, pd.DataFrame]:
    """Every baseline over the whole test span, as accounts with ACCOUNT_COLUMNS.

    Limits of `market.limits` bind agents, not the baselines: a benchmark may hold all of its equity in one asset.
    Costs, the participation limit and cash bind everyone.

    Raises:
        UserError: the benchmark has no value inside the span.
    """
    span = Span(windows[0].test.start, windows[-1].test.stop)
    starts = [window.test.start for window in windows]
    return rule_accounts({name: rule(name) for name in BASELINES}, dataset, signals, market, span, starts)
