"""The split rule on planted events, in the shared daily set where it is there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.bench.splits import KINDS, bench_splits, plant
from marl_pipeline.config import load_params
from marl_pipeline.data.sources.files import read_bars

ROOT = Path(__file__).parents[2]
DAILY = Path(os.environ.get("MARL_SHARED_DATA", ROOT.parent / "shared" / "data")) / "us_daily/bars.parquet"


@pytest.mark.slow
@pytest.mark.skipif(not DAILY.is_file(), reason=f"no market data at {DAILY}")
def test_median_recall_and_precision_are_at_least_98_percent_on_symbols_that_the_rule_was_not_made_on() -> None:
    params = load_params()
    data = params.data.model_copy(update={"frequency": "1Day", "timezone": "UTC", "columns": {}})
    bars, rules = read_bars(DAILY, data), params.validate_data
    found = [bench_splits(bars, rules, calendar="XNYS", seed=seed) for seed in (2024, 7, 11)]
    for one in found:
        assert sum(kind.planted for kind in one.kinds) >= 500
        assert min(one.recall, one.precision) >= 0.97
        assert not one.elsewhere
    assert np.median([one.recall for one in found]) >= 0.98
    assert np.median([one.precision for one in found]) >= 0.98


def test_one_seed_plants_the_same_events() -> None:
    days = pd.bdate_range("2015-01-01", periods=900, tz="UTC")
    bars = pd.concat(
        pd.DataFrame({"symbol": name, "timestamp": days, **dict.fromkeys(("open", "high", "low", "close"), 10.0)})
        for name in ("A", "B", "C")
    ).assign(volume=1000.0)
    (one, events), (two, again) = (plant(bars, np.random.default_rng(3)) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    pd.testing.assert_frame_equal(events, again)
    assert len(events)
    assert set(events["kind"]) <= set(KINDS)
