from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.records import EQUITY_COLUMNS, TABLES, TRADE_COLUMNS, Curve, Record
from marl_pipeline.pipeline.records import load_record, record_folder, save_record


def make_record(window: int = 0, seed: int = 1, bars: int = 5, start: int = 100) -> Record:
    times = pd.date_range("2020-01-01", periods=bars, freq="D", unit="us")
    equity = pd.DataFrame({name: np.zeros(bars) for name in EQUITY_COLUMNS})
    equity["bar"] = np.arange(start, start + bars)
    equity["timestamp"] = times
    equity["equity"] = 1000.0 * 1.01 ** np.arange(bars)
    equity["cash"] = equity["equity"]
    positions = pd.DataFrame({"bar": [start + 1], "timestamp": times[1], "symbol": ["A"], "weight": [0.5]})
    trades = pd.DataFrame({name: [] for name in TRADE_COLUMNS})
    decisions = pd.DataFrame(
        {"bar": [start, start + 1], "timestamp": times[:2], "symbol": ["A", "A"], "chosen": [1, 0], "executed": [1, 0],
         "directive": [46, 12], "ordered": [12, -1]}
    )  # fmt: skip
    curve = Curve("reward", (1.0, 2.0), (0.5, float("nan")))
    return Record(window, seed, 1000.0, equity, positions, trades, decisions, (curve,))


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    record = make_record()
    save_record(tmp_path / "r", record)
    back = load_record(tmp_path / "r")
    for name, columns in TABLES.items():
        pd.testing.assert_frame_equal(getattr(back, name), getattr(record, name))
        assert {c: str(t) for c, t in getattr(back, name).dtypes.items()} == dict(columns)
    assert back.tuning[0].x == (1.0, 2.0)
    assert np.isnan(back.tuning[0].y[1])
    assert (back.window, back.seed, back.initial_cash) == (0, 1, 1000.0)


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_record(tmp_path / name, make_record())
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_aware_timestamps_become_utc_without_zone() -> None:
    record = make_record()
    aware = record.equity.assign(timestamp=record.equity["timestamp"].dt.tz_localize("America/New_York"))
    back = dataclasses.replace(record, equity=aware)
    assert back.equity["timestamp"].iloc[0] == pd.Timestamp("2020-01-01 05:00")


def test_gaps_missing_columns_and_a_false_start_are_refused() -> None:
    record = make_record()
    with pytest.raises(ValueError, match="without gaps"):
        dataclasses.replace(record, equity=record.equity.drop(index=2))
    with pytest.raises(ValueError, match="missing columns"):
        dataclasses.replace(record, trades=pd.DataFrame({"bar": [1]}))
    with pytest.raises(ValueError, match="start at the initial cash"):
        dataclasses.replace(record, initial_cash=999.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_single_figure_that_is_not_finite_is_refused(bad: float) -> None:
    record = make_record()
    equity = record.equity.copy()
    equity.loc[3, "equity"] = bad
    with pytest.raises(ValueError, match="must be finite"):
        dataclasses.replace(record, equity=equity)
    near = dataclasses.replace(record, initial_cash=1000.0 * (1 + 5e-7))
    assert near.equity["equity"].iloc[0] == 1000.0
    with pytest.raises(ValueError, match="start at the initial cash"):
        dataclasses.replace(record, initial_cash=1000.0 * (1 - 2e-6))


def test_a_missing_record_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no walk-forward record"):
        load_record(record_folder("hierarchy", 3, 1, tmp_path))
