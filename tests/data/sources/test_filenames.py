from __future__ import annotations

import pytest

from marl_pipeline.data.sources.filenames import symbol_of
from marl_pipeline.errors import UserError


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("AAA.csv", "AAA"),
        ("BRK.A.csv", "BRK.A"),
        ("VOD.L.csv.gz", "VOD.L"),
        ("BF.B.parquet", "BF.B"),
        ("000001.csv", "000001"),
        ("600519.SS.csv", "600519.SS"),
        ("ES=F.csv", "ES=F"),
        ("^GSPC.csv", "^GSPC"),
        ("BTC-USD.csv", "BTC-USD"),
        ("BTC%2FUSDT.csv", "BTC/USDT"),
        ("BRK_B.csv", "BRK_B"),
        ("TRUE.csv", "TRUE"),
        ("NA.csv", "NA"),
        ("NASDAQ_AAA, 1D.csv", "AAA"),
        ("NYSE_BRK.B, 60.csv", "BRK.B"),
        ("BATS_AAA, 1D_3f2a1.csv", "AAA"),
        ("AAA Historical Data.csv", "AAA"),
        ("AAA Historical Data (2).csv", "AAA"),
        ("AAA Stock Price History.csv", "AAA"),
        ("daily_adjusted_AAA.csv", "AAA"),
        ("intraday_5min_AAA.csv", "AAA"),
        ("EURUSD_H1.csv", "EURUSD"),
        ("EURUSD_H1_202301020000_202312292300.csv", "EURUSD"),
        ("EURUSD60.csv", "EURUSD"),
        ("EURUSD1440.csv", "EURUSD"),
        ("BTCUSDT-1h-2023-01.zip", "BTCUSDT"),
        ("BTCUSDT-1d-2023-01-05.csv", "BTCUSDT"),
        ("DAT_ASCII_EURUSD_M1_2023.csv", "EURUSD"),
        ("EURUSD_Candlestick_1_Hour_BID_01.01.2024-31.01.2024.csv", "EURUSD"),
        ("aapl_us_d.csv", "AAPL.US"),
        ("tiingo_AAA.csv", "AAA"),
        ("GOOG_tz.parquet", "GOOG"),
        ("AAA_daily.csv", "AAA"),
        ("AAA_2021.csv", "AAA"),
        ("AAA-1d.csv", "AAA"),
        ("BRK.B_60min.csv", "BRK.B"),
        ("AAA-2021.csv", "AAA"),
    ],
)
def test_the_symbol_of_a_file_is_its_name_without_what_vendors_add(name: str, symbol: str) -> None:
    assert symbol_of(name, name)[0] == symbol


@pytest.mark.parametrize(
    "name",
    [
        "2021.csv",
        "2021-01.csv",
        "20210104.csv",
        "2021-01-04.csv",
        "D1.csv",
        "1Day.csv",
        "HistoricalPrices.csv",
        "bars.csv",
        "data.csv",
        "my_bars.csv",
        "Historical Data.csv",
        "S&P 500 Historical Data.csv",
        "download (3).csv",
        "AAA, BBB.csv",
        "HistoricalData_1662050000000.csv",
        "AAA_BBB_CCC.csv",
    ],
)
def test_a_name_that_is_no_symbol_for_certain_is_refused_with_the_parameter(name: str) -> None:
    with pytest.raises(UserError, match=r"data\.file_name") as error:
        symbol_of(name, name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "pattern", "symbol"),
    [
        ("2021.csv", "{symbol}", "2021"),
        ("px AAA eod.csv", "px {symbol} eod", "AAA"),
        ("px AAA eod.csv", "px {symbol} eod.csv", "AAA"),
        ("x_AAA, 1D.csv", "*_{symbol}, *", "AAA"),
        ("AAA/2021.csv", "{symbol}/*", "AAA"),
        ("us/AAA/2021.csv", "*/{symbol}/*", "AAA"),
        ("BRK.B_x.csv", "{symbol}_x", "BRK.B"),
    ],
)
def test_data_file_name_says_where_the_symbol_stands(name: str, pattern: str, symbol: str) -> None:
    assert symbol_of(name, name, pattern)[0] == symbol


@pytest.mark.parametrize(("pattern", "words"), [("AAA", "must hold {symbol} once"), ("{symbol}_H1", "does not fit")])
def test_a_pattern_that_fits_not_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        symbol_of("AAA.csv", "AAA.csv", pattern)
