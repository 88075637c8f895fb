from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marl_pipeline.data.companions import TABLES, Companions
from marl_pipeline.data.schema import normalise_bars
from marl_pipeline.errors import UserError
from marl_pipeline.store.bars import (
    folder_name,
    load_bars,
    load_companions,
    load_info,
    save_bars,
    save_companions,
    symbol_name,
)
from tests.data.bar_tables import daily, data_params


def bars_of(*names: str) -> pd.DataFrame:
    table = daily(symbol=[names[0], names[1], names[0], names[0]], timestamp=["2024-01-03", "2024-01-02"] * 2)
    return normalise_bars(table, params=data_params(timezone="UTC"), origin="bars")


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@given(st.text(min_size=1, max_size=12).filter(lambda text: "\x00" not in text and text.isprintable()))
def test_any_symbol_is_one_safe_folder_and_comes_back(symbol: str) -> None:
    folder = folder_name(symbol)
    assert symbol_name(folder) == symbol
    assert len(Path(folder).parts) == 1
    assert folder not in (".", "..")
    assert not set(folder) & set('/\\:*?"<>| ')


@pytest.mark.parametrize(
    ("symbol", "folder"),
    [
        ("BRK.B", "BRK.B"),
        ("^GSPC", "^GSPC"),
        ("EUR/USD", "EUR%2FUSD"),
        ("..", "%2E%2E"),
        ("CON", "%43ON"),
        ("A%", "A%25"),
    ],
)
def test_usual_symbols_keep_their_name(symbol: str, folder: str) -> None:
    assert folder_name(symbol) == folder


def test_bars_come_back_with_each_symbols_rows_in_their_order(tmp_path: Path) -> None:
    bars = bars_of("Z/1", "BRK.B")
    save_bars(tmp_path, bars, "1Day")
    loaded = load_bars(tmp_path, "1Day")
    expected = bars.sort_values("symbol", kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(loaded, expected)
    assert (tmp_path / "BRK.B" / "1Day" / "data.parquet").exists()


def test_the_same_bars_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_bars(tmp_path / name, bars_of("A", "B"), "1Day")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_no_bars_and_symbols_that_differ_by_case_only_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no bars of frequency 1Hour here; run the stage ingest"):
        load_bars(tmp_path, "1Hour")
    with pytest.raises(UserError, match="symbols A and a differ by case only"):
        save_bars(tmp_path, bars_of("a", "A"), "1Day")


def test_companions_come_back_and_unset_ones_are_not_written(tmp_path: Path) -> None:
    days = pd.Series([pd.Timestamp("2024-01-02", tz="UTC"), pd.NaT]).astype("datetime64[us, UTC]")
    table = pd.DataFrame({"symbol": ["A"], "start": days.iloc[:1].array, "end": days.iloc[1:].array})
    table = table.astype({"symbol": "str"})
    save_companions(tmp_path, Companions(membership=table, benchmark_name="SPY"), {"source": "csv"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["info.json", "membership.parquet"]
    loaded = load_companions(tmp_path)
    assert loaded.membership is not None
    pd.testing.assert_frame_equal(loaded.membership, table)
    assert all(getattr(loaded, name) is None for name in TABLES if name != "membership")
    assert loaded.benchmark_name == "SPY"
    assert load_info(tmp_path)["source"] == "csv"
