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
def test_recall_and_precision_are_at_least_98_percent_on_symbols_that_the_rule_was_not_made_on() -> None:
    params = load_params()
    data = params.data.model_copy(update={"frequency": "1Day", "timezone": "UTC", "columns": {}})
    found = bench_splits(read_bars(DAILY, data), params.validate_data, calendar="XNYS", seed=2024)
    assert sum(kind.planted for kind in found.kinds) >= 500
    assert found.recall >= 0.98
    assert found.precision >= 0.98
    assert not found.elsewhere


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
