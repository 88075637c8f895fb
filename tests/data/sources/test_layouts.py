"""Every sample of docs/data.md is read as it stands there, to the values that it shows."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from marl_pipeline.data.sources.files import understand_bars
from marl_pipeline.errors import UserError
from tests.data.bar_tables import ROOT, data_params

AAA = [(39.94, 40.2, 39.48, 39.55, 621795.0), (39.54, 39.82, 39.49, 39.68, 571838.0)]
EURUSD = [(1.09996, 1.10113, 1.09904, 1.10033, 1124.0), (1.10057, 1.10139, 1.10024, 1.10099, 884.0)]
BTC = [(42511.1, 42570.5, 42401.2, 42499.9, 812.25), (42499.9, 42610.0, 42480.0, 42590.1, 640.5)]
NAN = float("nan")

DAYS = ("2024-01-16", "2024-01-17")
EXPECTED: dict[str, tuple[str, tuple[str, str], list[tuple[float, ...]]]] = {
    "Rows": ("AAA", DAYS, AAA),
    "One column a symbol": ("AAA", DAYS, [(NAN, NAN, NAN, 39.55, NAN), (NAN, NAN, NAN, 39.68, NAN)]),
    "yfinance": ("AAA", DAYS, AAA),
    "Yahoo Finance": ("AAA", DAYS, AAA),
    "MetaTrader 5": ("EURUSD", ("2024-01-15T22:00", "2024-01-15T23:00"), EURUSD),
    "MetaTrader 4": ("EURUSD", ("2024-01-15T22:00", "2024-01-15T23:00"), EURUSD),
    "HistData": (
        "EURUSD",
        ("2024-01-16T22:00", "2024-01-16T23:00"),
        [(1.10012, 1.10134, 1.10009, 1.10071, 0.0), (1.10095, 1.10196, 1.10095, 1.10195, 0.0)],
    ),
    "Dukascopy": (
        "EURUSD",
        ("2024-01-15T23:00", "2024-01-16T00:00"),
        [(1.10053, 1.10185, 1.10016, 1.10154, 436.763), (1.10144, 1.10242, 1.10141, 1.10225, 677.122)],
    ),
    "Stooq": ("AAA.US", DAYS, AAA),
    "TradingView": ("AAA", DAYS, AAA),
    "Tiingo": ("AAA", DAYS, AAA),
    "Alpha Vantage": ("AAA", DAYS, AAA),
    "Binance": ("BTCUSDT", ("2024-01-16T00:00", "2024-01-16T01:00"), BTC),
    "CryptoDataDownload": ("BTC/USDT", ("2024-01-16T00:00", "2024-01-16T01:00"), BTC),
    "investing.com": (
        "AAA",
        DAYS,
        [(1039.94, 1040.2, 1039.48, 1039.55, 620000.0), (1039.54, 1039.82, 1039.49, 1039.68, 570000.0)],
    ),
    "Nasdaq": ("AAA", DAYS, AAA),
    "LEAN": ("AAA", DAYS, AAA),
    "LEAN 2": ("AAA", ("2024-01-16T14:30", "2024-01-16T15:30"), AAA),
}


def samples() -> dict[str, tuple[dict[str, str], str]]:
    """Title -> options of the block and its text; a second block below a title bears its number."""
    page = (ROOT / "docs" / "data.md").read_text()
    found: dict[str, tuple[dict[str, str], str]] = {}
    title = ""
    for match in re.finditer(r"^### (.+)$|^```text (name=.+)\n((?:(?!^```).*\n)*)```$", page, re.MULTILINE):
        if match[1]:
            title = match[1].strip()
            continue
        options = dict(option.split("=", 1) for option in shlex.split(match[2]))
        found[title if title not in found else f"{title} 2"] = (options, match[3])
    return found


def written(folder: Path, options: dict[str, str], text: str) -> Path:
    path = folder / options["name"]
    if "member" in options:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(options["member"], text)
    else:
        path.write_text(text)
    return path


def read(path: Path, options: dict[str, str]) -> pd.DataFrame:
    changes: dict[str, Any] = {"timezone": options.get("timezone", "America/New_York"), "source": "csv"}
    changes |= {name: options[name] for name in ("frequency", "calendar") if name in options}
    return understand_bars(path, data_params(**changes)).bars


def test_every_layout_of_the_page_has_an_expectation() -> None:
    assert samples().keys() == EXPECTED.keys()
    assert all(len(text.strip().splitlines()) <= 6 for _, text in samples().values())


@pytest.mark.parametrize("title", EXPECTED)
def test_the_sample_of_a_layout_is_read_to_its_values(tmp_path: Path, title: str) -> None:
    options, text = samples()[title]
    bars = read(written(tmp_path, options, text), options)
    symbol, moments, values = EXPECTED[title]
    rows = bars[bars["symbol"] == symbol].sort_values("timestamp")
    assert rows["timestamp"].tolist() == [pd.Timestamp(moment, tz="UTC") for moment in moments]
    expected = pd.DataFrame(values, columns=["open", "high", "low", "close", "volume"])
    pd.testing.assert_frame_equal(rows[expected.columns].reset_index(drop=True), expected, check_exact=True)


def test_capital_letters_are_fields_only_where_all_four_prices_are_there(tmp_path: Path) -> None:
    path = tmp_path / "AAA.csv"
    path.write_text("date,O,H,L,C,V\n2024-01-16,39.94,40.2,39.48,39.55,621795\n")
    assert read(path, {})["close"].tolist() == [39.55]
    path.write_text("date,C,V,O,MSFT\n2024-01-16,39.55,56.57,74.49,92.04\n")
    bars = read(path, {})
    assert dict(zip(bars["symbol"], bars["close"], strict=True)) == {"C": 39.55, "V": 56.57, "O": 74.49, "MSFT": 92.04}
    path.write_text("date,C,V\n2024-01-16,39.55,56.57\n")
    with pytest.raises(UserError, match=r"columns C, V may be fields of bars or symbols; say which .* data\.columns"):
        read(path, {})


@pytest.mark.parametrize(
    "header", ["date,AAA_close,BBB_close,AAA_open,BBB_open", "date,Close AAA,Close BBB,Open AAA,Open BBB"]
)
def test_fields_in_the_names_of_wide_columns_are_read(tmp_path: Path, header: str) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(f"{header}\n2024-01-16,39.55,56.57,39.94,57.21\n")
    bars = read(path, {}).set_index("symbol")
    assert bars["close"].to_dict() == {"AAA": 39.55, "BBB": 56.57}
    assert bars["open"].to_dict() == {"AAA": 39.94, "BBB": 57.21}


@pytest.mark.parametrize(
    "header",
    [
        "date,Price Open,Price High,Price Low,Price Close",
        "date,PX_OPEN,PX_HIGH,PX_LOW,PX_LAST",
        "date,bid_open,bid_high,bid_low,bid_close",
        "date,OPEN_PRC,HIGH_PRC,LOW_PRC,LAST_PRC",
    ],
)
def test_what_stands_beside_the_fields_of_one_symbol_is_no_symbol(tmp_path: Path, header: str) -> None:
    path = written(tmp_path, {"name": "AAA.csv"}, f"{header}\n2024-01-16,2,4,1,3\n2024-01-17,2,4,1,3\n")
    with pytest.raises(UserError, match=r"column 'close' is missing .* name it in data\.columns"):
        understand_bars(path, data_params(timezone="UTC"))


def test_numbered_names_are_fields(tmp_path: Path) -> None:
    text = ",1. open,2. high,3. low,4. close,5. volume\n2024-01-16,2,4,1,3,9\n2024-01-17,2,4,1,3,9\n"
    bars = understand_bars(written(tmp_path, {"name": "AAA.csv"}, text), data_params(timezone="UTC")).bars
    assert bars["symbol"].tolist() == ["AAA", "AAA"]
    assert bars[["open", "high", "low", "close", "volume"]].iloc[0].tolist() == [2, 4, 1, 3, 9]


def test_codes_of_digits_head_wide_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("date,000001,600519\n2024-01-16,9.55,1656.57\n2024-01-17,9.56,1655.45\n")
    bars = read(path, {})
    assert bars["symbol"].tolist() == ["000001", "000001", "600519", "600519"]


def test_the_frames_of_yfinance_are_read_from_parquet(tmp_path: Path) -> None:
    columns = pd.MultiIndex.from_product([["Close", "Open"], ["AAA", "BBB"]], names=["Price", "Ticker"])
    index = pd.DatetimeIndex(["2024-01-16", "2024-01-17"], name="Date")
    frame = pd.DataFrame([[1.0, 2.0, 3.0, 4.0], [5.0, float("nan"), 7.0, float("nan")]], index=index, columns=columns)
    frame.to_parquet(tmp_path / "download.parquet")
    bars = read(tmp_path / "download.parquet", {})
    assert bars["symbol"].tolist() == ["AAA", "AAA", "BBB"]
    assert bars["close"].tolist() == [1.0, 5.0, 2.0]
    flat = frame.reset_index()
    flat.columns = pd.Index([str(name) if name[1] else name[0] for name in flat.columns])
    flat.to_csv(tmp_path / "flat.csv", index=False)
    pd.testing.assert_frame_equal(read(tmp_path / "flat.csv", {}), bars)


def test_a_table_without_a_header_of_no_known_vendor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "AAA.csv"
    path.write_text("2024-01-16,39.94,40.2,39.48,39.55,621795\n2024-01-17,39.54,39.82,39.49,39.68,571838\n")
    with pytest.raises(UserError, match="has no header: line 1 is a row"):
        read(path, {})


def test_lean_scales_equities_and_not_crypto(tmp_path: Path) -> None:
    for folder, close in (("equity", 39.55), ("crypto", 395500.0)):
        (tmp_path / folder).mkdir()
        options = {"name": f"{folder}/aaa.zip", "member": "aaa.csv"}
        path = written(tmp_path, options, "20240116 00:00,399400,402000,394800,395500,621795\n")
        assert read(path, {})["close"].tolist() == [close]


def test_an_adjusted_close_adjusts_the_other_prices_by_the_same_ratio(tmp_path: Path) -> None:
    path = tmp_path / "AAA.csv"
    path.write_text("Date,Open,High,Low,Close,Adj Close,Volume\n2024-01-16,8,12,6,10,5,100\n2024-01-17,8,12,6,8,4,50\n")
    columns = {"Date": "timestamp", "Adj Close": "close"}
    bars = understand_bars(path, data_params(timezone="UTC", columns=columns)).bars
    assert bars[["open", "high", "low", "close", "volume"]].to_numpy().tolist() == [[4, 6, 3, 5, 100], [4, 6, 3, 4, 50]]
    options, text = samples()["Tiingo"]
    tiingo = written(tmp_path, options, text)
    bars = understand_bars(tiingo, data_params(columns={"adjClose": "close"})).bars
    assert bars.iloc[0][["open", "high", "low", "close", "volume"]].tolist() == [9.985, 10.05, 9.87, 9.8875, 2487180.0]
    path.write_text("Date,Open,High,Low,Adj Close\n2024-01-16,8,12,6,5\n")
    with pytest.raises(UserError, match="'Adj Close' is adjusted and 'Open' is not"):
        understand_bars(path, data_params(timezone="UTC", columns=columns))


def test_what_was_taken_as_the_volume_is_said(tmp_path: Path) -> None:
    read_notes = lambda text: understand_bars(written(tmp_path, {"name": "AAA.csv"}, text), data_params(timezone="UTC"))  # noqa: E731
    none = read_notes("date,close\n2024-01-16,1.5\n")
    assert any("no column is the volume" in note for note in none.notes)
    ticks = read_notes("<DATE>\t<CLOSE>\t<TICKVOL>\t<VOL>\n2024.01.16\t1.5\t7\t0\n")
    assert ticks.bars["volume"].tolist() == [7.0]
    assert any("zero throughout" in note for note in ticks.notes)
    traded = read_notes("<DATE>\t<CLOSE>\t<TICKVOL>\t<VOL>\n2024.01.16\t1.5\t7\t9\n")
    assert traded.bars["volume"].tolist() == [9.0]
