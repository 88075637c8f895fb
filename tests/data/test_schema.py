from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.config import DataParams
from marl_pipeline.data.schema import COLUMNS, TIMESTAMP_DTYPE, normalise_bars
from marl_pipeline.errors import UserError
from tests.data.bar_tables import daily, data_params

NEW_YORK = "America/New_York"


def normalised(frame: pd.DataFrame, symbol: str | None = None, **changes: Any) -> pd.DataFrame:
    params: DataParams = data_params(**{"timezone": NEW_YORK, **changes})
    return normalise_bars(frame, params=params, origin="bars.csv", default_symbol=symbol)


def test_the_canonical_table_has_the_promised_columns_and_types() -> None:
    table = normalised(daily())
    assert tuple(table.columns) == COLUMNS
    assert table["symbol"].dtype == "str"
    assert table["timestamp"].dtype == TIMESTAMP_DTYPE
    assert (table.dtypes[list(COLUMNS[2:])] == np.float64).all()


def test_order_duplicates_and_bad_values_pass_through_untouched() -> None:
    frame = daily(close=[-1.0, np.nan, np.inf, 0.0], timestamp=["2024-01-03", "2024-01-02", "2024-01-02", "2024-01-02"])
    table = normalised(frame)
    assert table["timestamp"].dt.day.tolist() == [3, 2, 2, 2]
    np.testing.assert_array_equal(table["close"], frame["close"])


@pytest.mark.parametrize(
    "names",
    [
        ["Ticker", "Date", "Open", "High", "Low", "Close", "Volume"],
        ["TICKER", "DateTime", "OPEN", "HIGH", "LOW", "CLOSE", "VOL"],
        ["<TICKER>", "<DATE>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<VOL>"],
        ["\ufeffsymbol", " timestamp ", "open", "high", "low", "close", "volume"],
    ],
)
def test_usual_spellings_are_understood(names: list[str]) -> None:
    pd.testing.assert_frame_equal(normalised(daily().set_axis(pd.Index(names), axis=1)), normalised(daily()))


def test_data_columns_wins_over_usual_names() -> None:
    frame = daily().assign(**{"Adj Close": [9.0, 8.0, 7.0, 6.0]})
    assert normalised(frame, columns={"Adj Close": "close"})["close"].tolist() == [9.0, 8.0, 7.0, 6.0]


def test_close_only_bars_have_nan_elsewhere_and_a_lone_table_takes_its_name() -> None:
    table = normalised(daily()[["timestamp", "close"]], symbol="AAPL")
    assert set(table["symbol"]) == {"AAPL"}
    assert table[["open", "high", "low", "volume"]].isna().all().all()


@pytest.mark.parametrize(
    ("stamp", "frequency", "zone", "expected"),
    [
        ("2024-07-02", "1Day", NEW_YORK, "2024-07-02"),
        ("2024-07-02", "1Day", "Asia/Tokyo", "2024-07-02"),
        ("2024-07-02T00:00:00Z", "1Day", None, "2024-07-02"),
        ("2024-07-02T00:00:00-04:00", "1Day", None, "2024-07-02"),
        ("2024-07-02T20:00:00Z", "1Day", None, "2024-07-02"),
        ("2024-07-03T01:00:00Z", "1Day", None, "2024-07-02"),
        ("2024-07-02 16:00", "1Day", NEW_YORK, "2024-07-02"),
        ("2024-07-02 22:00", "1Day", "UTC", "2024-07-02"),
        ("2024-07-02 09:30", "1Hour", NEW_YORK, "2024-07-02T13:30"),
        ("2024-07-02 09:30", "1Hour", "UTC", "2024-07-02T09:30"),
        ("2024-07-02T09:30:00-04:00", "1Hour", None, "2024-07-02T13:30"),
    ],
)
def test_bars_get_their_start_in_utc_or_their_session_date(
    stamp: str, frequency: str, zone: str | None, expected: str
) -> None:
    table = normalised(daily(timestamp=stamp), frequency=frequency, timezone=zone)
    assert (table["timestamp"] == pd.Timestamp(expected, tz="UTC")).all()


def test_thousands_may_be_grouped_and_blanks_are_missing() -> None:
    table = normalised(daily(volume=["1,234,567", "12.5", "", "n/a"]))
    np.testing.assert_array_equal(table["volume"], [1234567.0, 12.5, np.nan, np.nan])


@pytest.mark.parametrize(
    ("frame", "changes", "words"),
    [
        (daily(), {"timezone": None}, "no time zone (the first is 2024-01-02 00:00:00); set data.timezone"),
        (daily().drop(columns="close"), {}, "column 'close' is missing (found: symbol, timestamp, open"),
        (daily().drop(columns="timestamp"), {}, "column 'timestamp' is missing"),
        (daily().drop(columns="symbol"), {}, "column 'symbol' is missing"),
        (daily().iloc[:0], {}, "no rows"),
        (daily(close=["1", "2", "x", "4"]), {}, "column 'close': 'x' in row 3 is not a number"),
        (daily(symbol=["A", None, "B", "B"]), {}, "column 'symbol': row 2 has no symbol"),
        (daily(timestamp=["2024-01-02", "soon", "a", "b"]), {}, "'soon' in row 2 is not a timestamp"),
        (daily(), {"columns": {"Last": "close"}}, "data.columns names 'Last', which is not there (found: symbol"),
        (daily(), {"columns": {"close": "price"}}, "data.columns: 'price' is none of symbol"),
        (daily().rename(columns={"timestamp": "Date"}).assign(Datetime="2024-01-02"), {}, "may both be the timestamp"),
        (pd.concat([daily(), daily()[["close"]]], axis=1), {}, "column 'close' stands there twice"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(frame: pd.DataFrame, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as error:
        normalised(frame, **changes)
    assert "\n" not in str(error.value)
