from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.config import load_params, restrict
from marl_pipeline.data.companions import Companions
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.harness import StageContext
from marl_pipeline.stages.build_features import COMPANIONS, HISTORICAL, QUARANTINE, run
from marl_pipeline.store.bars import save_bars, save_companions
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET
from tests.data.test_assemble import DAYS, bars_of, companions_of

DECLARED = ["data.frequency", "data.calendar", "data.adjustment", "data.availability", "build_features"]


def context_of(root: Path) -> StageContext:
    return StageContext(params=restrict(load_params(), DECLARED), root=root)


def write_inputs(root: Path, bars: pd.DataFrame, quarantine: pd.DataFrame, companions: Companions) -> None:
    save_bars(root / HISTORICAL, bars.drop(columns="quarantined"), "1Day")
    save_companions(root / COMPANIONS, companions, {"source": "test"})
    quarantine.to_parquet(root / QUARANTINE)


def quarantine_of(*rows: tuple[str, pd.Timestamp]) -> pd.DataFrame:
    table = pd.DataFrame({"symbol": [row[0] for row in rows], "timestamp": [row[1] for row in rows]})
    table = table.astype({"symbol": "str", "timestamp": "datetime64[us, UTC]"})
    return table.assign(until=table["timestamp"], reason="jump")


def test_the_stage_writes_a_dataset_with_quarantined_bars_hidden(tmp_path: Path) -> None:
    bars = bars_of()
    hidden = bars[bars["symbol"] == "S01"].iloc[100]
    write_inputs(tmp_path, bars, quarantine_of(("S01", hidden["timestamp"])), companions_of())
    run(context_of(tmp_path))
    dataset = load_dataset(tmp_path / DATASET)
    row = int(np.searchsorted(dataset.panel.timestamps, hidden["timestamp"].tz_localize(None).to_datetime64()))
    assert dataset.bars == len(DAYS)
    assert np.isnan(dataset.panel.close[row, 1])
    assert not dataset.panel.tradable[row, 1]
    assert dataset.panel.tradable[row + 1 :, 1].mean() > 0.9
    assert dataset.benchmark_name == "SPY"


def test_the_stage_writes_the_same_bytes_twice_and_nothing_when_it_fails(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_inputs(tmp_path / name, bars_of(), quarantine_of(), companions_of())
        run(context_of(tmp_path / name))
    for path in (tmp_path / "a" / DATASET).iterdir():
        assert path.read_bytes() == (tmp_path / "b" / DATASET / path.name).read_bytes()
    short = bars_of()
    write_inputs(tmp_path / "c", short[short["timestamp"] < DAYS[50]], quarantine_of(), companions_of())
    with pytest.raises(UserError, match="too little history: 50 bars"):
        run(context_of(tmp_path / "c"))
    assert not (tmp_path / "c" / DATASET).exists()
