from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marl_pipeline.config import load_params, restrict
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.harness import StageContext
from marl_pipeline.stages.ingest import run
from marl_pipeline.store.bars import load_bars, load_companions, load_info
from tests.data.bar_tables import ROOT, daily, data_params
from tests.store.test_store_bars import digest


def ingested(root: Path, **changes: Any) -> Path:
    params = load_params(ROOT / "profiles" / "quickstart.yaml").model_copy(update={"data": data_params(**changes)})
    run(StageContext(params=restrict(params, ["data"]), root=root))
    return root / "data"


def test_a_csv_becomes_bars_per_symbol_and_what_is_known_about_them(tmp_path: Path) -> None:
    daily().to_csv(tmp_path / "bars.csv", index=False)
    (tmp_path / "benchmark.txt").write_text("B\n")
    (tmp_path / "universe.txt").write_text("A\nB\nC\n")
    data = ingested(
        tmp_path,
        source="csv",
        path=str(tmp_path / "bars.csv"),
        timezone="UTC",
        benchmark=str(tmp_path / "benchmark.txt"),
        universe=str(tmp_path / "universe.txt"),
    )
    assert load_bars(data / "historical", "1Day")["close"].tolist() == [1.2, 2.2, 3.2, 4.2]
    info = load_info(data / "companions")
    assert info["symbols"] == {"A": 2, "B": 2}
    assert info["universe_absent"] == ["C"]
    assert info["benchmark"] == "B"
    assert info["adjustment"] == "total"


def test_a_benchmark_outside_the_universe_is_kept_beside_the_bars_only(tmp_path: Path) -> None:
    table = daily(symbol=["A", "B", "SPY", "SPY"], timestamp=["2024-01-02", "2024-01-02", "2024-01-02", "2024-01-03"])
    table.to_csv(tmp_path / "bars.csv", index=False)
    (tmp_path / "benchmark.txt").write_text("SPY\n")
    (tmp_path / "universe.txt").write_text("A\nB\n")
    files = {name: str(tmp_path / f"{name}.txt") for name in ("benchmark", "universe")}
    data = ingested(tmp_path, source="csv", path=str(tmp_path / "bars.csv"), timezone="UTC", **files)
    assert set(load_bars(data / "historical", "1Day")["symbol"]) == {"A", "B"}
    benchmark = load_companions(data / "companions").benchmark
    assert benchmark is not None
    assert benchmark["close"].tolist() == [3.2, 4.2]


def test_the_synthetic_market_brings_its_sectors_and_starts_where_asked(tmp_path: Path) -> None:
    data = ingested(tmp_path, source="synthetic", start="2010-01-01")
    sectors = load_companions(data / "companions").sectors
    bars = load_bars(data / "historical", "1Day")
    assert sectors is not None
    assert set(sectors["symbol"]) == set(bars["symbol"])
    assert bars["timestamp"].min().year == 2010
    assert len(bars) == 16 * 1600


def test_one_input_gives_one_set_of_bytes(tmp_path: Path) -> None:
    first, second = (digest(ingested(tmp_path / name, source="sp500_sample", start="2020-01-01")) for name in "ab")
    assert first == second
    assert len(first) == 21


def test_a_bad_input_writes_nothing(tmp_path: Path) -> None:
    daily(symbol="A").to_csv(tmp_path / "bars.csv", index=False)
    with pytest.raises(UserError, match="one symbol only"):
        ingested(tmp_path, source="csv", path=str(tmp_path / "bars.csv"), timezone="UTC")
    assert [path.name for path in tmp_path.iterdir()] == ["bars.csv"]
    daily().to_csv(tmp_path / "bars.csv", index=False)
    with pytest.raises(UserError, match="no such file"):
        ingested(tmp_path, source="csv", path=str(tmp_path / "bars.csv"), timezone="UTC", vix="nowhere.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["bars.csv"]
