from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.config import load_params
from marl_pipeline.data.features import bars_needed, compute_features
from marl_pipeline.data.panel import build_panel
from marl_pipeline.data.regime import compute_regime

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MARL_SHARED_DATA", ROOT.parent / "shared" / "data"))
PARAMS = load_params(ROOT / "params.yaml").build_features

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason=f"the real bars are not at {SHARED}")


def bars_of(name: str) -> pd.DataFrame:
    bars = pd.read_parquet(SHARED / name)
    return bars.drop_duplicates(["symbol", "timestamp"]).assign(quarantined=False)


def test_the_daily_universe_of_143_gives_features_of_unit_size_in_seconds() -> None:
    bars = bars_of("us_daily/bars.parquet")
    universe = pd.read_csv(SHARED / "us_daily" / "universe143.csv")["symbol"]
    started = time.monotonic()
    panel = build_panel(bars[bars["symbol"].isin(universe)], frequency="1Day", calendar="XNYS", adjustment="split")
    names, features, ready, valid = compute_features(panel, PARAMS)
    regime_names, regime = compute_regime(panel, PARAMS)
    assert time.monotonic() - started < 15
    assert len(panel.symbols) == 143
    assert len(names) == 23
    assert valid[bars_needed(PARAMS) - 1 :].mean() > 0.99
    rows = features[ready]
    assert (np.abs(rows.mean(axis=0)) < 0.15).all()
    assert ((rows.std(axis=0) > 0.9) & (rows.std(axis=0) < 1.4)).all()
    assert np.isfinite(regime).all()
    crash = (panel.timestamps > np.datetime64("2020-03-10")) & (panel.timestamps < np.datetime64("2020-03-25"))
    figures = dict(zip(regime_names, regime[crash].mean(axis=0), strict=True))
    assert figures["volatility"] > 3
    assert figures["correlation"] > 2
    assert figures["drawdown"] < -2
    assert figures["trend"] < -2


def test_two_interleaved_hourly_grids_become_one() -> None:
    bars = bars_of("us_hourly/bars_as_downloaded.parquet")
    panel = build_panel(bars, frequency="1Hour", calendar="XNYS", adjustment="split")
    held = np.isfinite(panel.close).mean(axis=0)
    minute = panel.timestamps.astype("datetime64[m]").astype(int) % 60
    opens = np.append(True, panel.session[1:] != panel.session[:-1])
    assert (set(minute[opens][2:]), set(minute[~opens][10:])) == ({30}, {0})  # the half hour at the open is a bar
    # Twelve symbols of the other grid share the bar at the open and no other.
    assert ((held > 0.99).sum(), (held < 0.08).sum()) == (22, 12)
    assert compute_features(panel, PARAMS)[3][:, held > 0.99].mean() > 0.9
