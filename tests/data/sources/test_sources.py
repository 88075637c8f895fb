from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.config import NOT_SET
from marl_pipeline.data.schema import COLUMNS, TIMESTAMP_DTYPE
from marl_pipeline.data.sources import absent, load_bars, read_source, select
from marl_pipeline.data.sources.names import benchmark_symbol, read_universe
from marl_pipeline.errors import UserError
from tests.data.bar_tables import SHARED, daily, data_params

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"the real data is not at {SHARED}")


def test_the_sample_is_close_only_and_needs_no_network() -> None:
    bars = load_bars(data_params(source="sp500_sample", start="2010-01-01"))
    assert bars["symbol"].nunique() == 20
    assert bars["timestamp"].min() == pd.Timestamp("2010-01-04", tz="UTC")
    assert bars["close"].gt(0).all()
    assert bars[["open", "high", "low", "volume"]].isna().all().all()
    assert tuple(bars.columns) == COLUMNS
    assert bars["timestamp"].dtype == TIMESTAMP_DTYPE


def test_the_sample_has_no_hourly_bars() -> None:
    with pytest.raises(UserError, match="daily bars only"):
        read_source(data_params(source="sp500_sample", frequency="1Hour"))


def test_a_file_a_folder_of_files_and_the_stored_layout_give_the_same_bars(tmp_path: Path) -> None:
    one, many, stored = tmp_path / "bars.csv", tmp_path / "many", tmp_path / "stored"
    many.mkdir()
    (many / ".DS_Store").write_text("x")
    (many / "README.md").write_text("x")
    daily().to_csv(one, index=False)
    for name, rows in daily().groupby("symbol"):
        alone = rows.drop(columns="symbol")
        alone.to_csv(many / f"{name}.csv", index=False)
        folder = stored / str(name) / "1Day"
        folder.mkdir(parents=True)
        alone.to_parquet(folder / "data.parquet")
    loaded = [load_bars(data_params(source="csv", path=str(path), timezone="UTC")) for path in (one, many, stored)]
    pd.testing.assert_frame_equal(loaded[0], loaded[1])
    pd.testing.assert_frame_equal(loaded[0], loaded[2])


def test_bars_of_another_frequency_only_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "A" / "1Hour").mkdir(parents=True)
    daily().to_parquet(tmp_path / "A" / "1Hour" / "data.parquet")
    with pytest.raises(UserError, match=r"holds bars of 1Hour only; set data\.frequency"):
        load_bars(data_params(source="parquet", path=str(tmp_path), timezone="UTC"))


def test_an_empty_folder_an_unset_path_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.csv or \.parquet files here"):
        load_bars(data_params(source="csv", path=str(tmp_path)))
    with pytest.raises(UserError, match=r"data\.path is not set"):
        load_bars(data_params(source="csv", path=NOT_SET))
    with pytest.raises(UserError, match="no such file"):
        load_bars(data_params(source="parquet", path=str(tmp_path / "bars.parquet")))


def canonical() -> pd.DataFrame:
    table = daily(timestamp=pd.to_datetime(["2024-01-02", "2024-01-03"] * 2).tz_localize("UTC"))
    return table.astype({"timestamp": TIMESTAMP_DTYPE})


def test_start_and_end_are_both_included() -> None:
    assert select(canonical(), start="2024-01-03")["close"].tolist() == [2.2, 4.2]
    assert select(canonical(), end="2024-01-02")["close"].tolist() == [1.2, 3.2]
    hourly = canonical().assign(timestamp=pd.Timestamp("2024-01-02T20:30", tz="UTC"))
    assert len(select(hourly, start="2024-01-02", end="2024-01-02")) == 4


def test_a_universe_selects_and_names_what_is_absent() -> None:
    bars = select(canonical(), universe=["B", "A", "ZZZ"])
    assert set(bars["symbol"]) == {"A", "B"}
    assert absent(bars, ["B", "A", "ZZZ"]) == ["ZZZ"]


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"universe": ["X", "Y"]}, r"none of its 2 symbols \(X, Y\) is among the bars"),
        ({"universe": ["A", "X"]}, r"one symbol only \(A\)"),
        ({"start": "2030-01-01"}, "no bars between data.start 2030-01-01 .* runs from 2024-01-02 to 2024-01-03"),
        ({"end": "sometime"}, "data.end: 'sometime' is not a date"),
    ],
)
def test_a_choice_that_leaves_nothing_is_explained(choice: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        select(canonical(), **choice)  # type: ignore[arg-type]


def test_universe_files_may_be_tables_or_lists(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("Ticker,weight\nNA,1\nBRK.B,2\nNA,3\n")
    (tmp_path / "u.txt").write_text("# mine\nNA\n\nBRK.B  # class B\n")
    assert read_universe(str(tmp_path / "u.csv")) == read_universe(str(tmp_path / "u.txt")) == ("NA", "BRK.B")
    assert read_universe(NOT_SET) is None
    (tmp_path / "bad.csv").write_text("name\nA\n")
    with pytest.raises(UserError, match=r"column 'symbol' is missing \(found: name\)"):
        read_universe(str(tmp_path / "bad.csv"))


def test_a_benchmark_text_file_names_one_symbol(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("SPY\n")
    assert benchmark_symbol(str(tmp_path / "b.txt")) == "SPY"
    assert benchmark_symbol(NOT_SET) is None
    assert benchmark_symbol("bars.parquet") is None
    (tmp_path / "b.txt").write_text("SPY\nQQQ\n")
    with pytest.raises(UserError, match="expected one line"):
        benchmark_symbol(str(tmp_path / "b.txt"))


@needs_shared
def test_the_143_real_symbols_load_within_seconds() -> None:
    folder = SHARED / "us_daily"
    params = data_params(
        source="parquet", path=str(folder / "bars.parquet"), universe=str(folder / "universe143.csv"), timezone="UTC"
    )
    began = time.perf_counter()
    bars = load_bars(params)
    assert time.perf_counter() - began < 20.0
    assert bars["symbol"].nunique() == 143
    assert bars["timestamp"].max() == pd.Timestamp("2023-06-29", tz="UTC")


@needs_shared
def test_unclean_hourly_bars_keep_every_row_in_its_order() -> None:
    path = SHARED / "us_hourly" / "bars_as_downloaded.parquet"
    bars = load_bars(data_params(source="parquet", path=str(path), frequency="1Hour"))
    raw = pd.read_parquet(path)
    assert bars["symbol"].tolist() == raw["symbol"].tolist()
    assert (bars["timestamp"].to_numpy() == raw["timestamp"].to_numpy()).all()
    np.testing.assert_array_equal(bars["close"], raw["close"].astype(np.float64))
