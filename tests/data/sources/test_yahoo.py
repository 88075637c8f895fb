"""No network: the answers are made by hand in the shape yfinance 1.7 gives (columns ticker x field)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yfinance

from marl_pipeline.data.sources import load_bars, read_source
from marl_pipeline.errors import UserError
from tests.data.bar_tables import data_params


def handmade_answer(tickers: list[str], index: pd.DatetimeIndex) -> pd.DataFrame:
    fields = ["Open", "High", "Low", "Close", "Volume"]
    columns = pd.MultiIndex.from_product([tickers, fields], names=["Ticker", "Price"])
    values = np.arange(1.0, len(index) * len(columns) + 1).reshape(len(index), -1)
    return pd.DataFrame(values, index=index, columns=columns)


DAYS = pd.DatetimeIndex(["2024-01-02", "2024-01-03"], name="Date")


@pytest.fixture
def universe(tmp_path: Path) -> str:
    path = tmp_path / "universe.txt"
    path.write_text("AAPL\nBRK.B\nGONE\n")
    return str(path)


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def download(tickers: list[str], **options: Any) -> Any:
        asked.append({"tickers": tickers, **options})
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(yfinance, "download", download)
    return asked


def test_what_yahoo_answers_becomes_canonical_bars(monkeypatch: pytest.MonkeyPatch, universe: str) -> None:
    answer = handmade_answer(["AAPL", "BRK-B", "GONE"], DAYS)
    answer["GONE"] = np.nan
    asked = answering(monkeypatch, answer)
    params = data_params(source="yfinance", universe=universe, start="2024-01-01", end="2024-01-03")
    bars = load_bars(params)
    assert asked[0]["tickers"] == ["AAPL", "BRK-B", "GONE"]
    assert (asked[0]["interval"], asked[0]["end"], asked[0]["auto_adjust"]) == ("1d", "2024-01-04", True)
    assert bars["symbol"].tolist() == ["AAPL", "AAPL", "BRK.B", "BRK.B"]
    assert bars["timestamp"].dt.day.tolist() == [2, 3, 2, 3]
    assert bars["close"].tolist() == [4.0, 19.0, 9.0, 24.0]


def test_hourly_answers_keep_their_zone(monkeypatch: pytest.MonkeyPatch, universe: str) -> None:
    index = pd.DatetimeIndex(["2024-01-02 09:30", "2024-01-02 10:30"], name="Datetime").tz_localize("America/New_York")
    answering(monkeypatch, handmade_answer(["AAPL", "BRK-B"], index))
    bars = load_bars(data_params(source="yfinance", universe=universe, frequency="1Hour"))
    assert bars["timestamp"].iloc[0] == pd.Timestamp("2024-01-02T14:30", tz="UTC")


def test_a_benchmark_symbol_is_downloaded_beside_the_universe(
    monkeypatch: pytest.MonkeyPatch, universe: str, tmp_path: Path
) -> None:
    (tmp_path / "benchmark.txt").write_text("SPY\n")
    asked = answering(monkeypatch, handmade_answer(["AAPL", "BRK-B", "SPY"], DAYS))
    read_source(data_params(source="yfinance", universe=universe, benchmark=str(tmp_path / "benchmark.txt")))
    assert asked[0]["tickers"][-1] == "SPY"


@pytest.mark.parametrize("answer", [None, pd.DataFrame(), ValueError("no such\nthing")])
def test_no_answer_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, universe: str, answer: Any) -> None:
    answering(monkeypatch, answer)
    with pytest.raises(UserError, match=r"Yahoo Finance (did not answer: no such thing|has no 1Day bars)"):
        load_bars(data_params(source="yfinance", universe=universe))


@pytest.mark.parametrize(
    "words",
    [
        "['AAPL', 'BRK-B']: DNSError('Failed to perform, curl: (6) Could not resolve host: query2.finance.yahoo.com.')",
        "['AAPL']: ConnectionError('Failed to perform, curl: (7) Failed to connect to query1.finance.yahoo.com')",
        "['AAPL']: Timeout('Failed to perform, curl: (28) Operation timed out after 10 seconds')",
    ],
)
def test_an_unreachable_yahoo_is_named_and_not_the_tickers(
    monkeypatch: pytest.MonkeyPatch, universe: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(tickers: list[str], **options: Any) -> pd.DataFrame:
        logging.getLogger("yfinance").error(words)
        logging.getLogger("yfinance").error("AAPL: possibly delisted; no price data found")
        return pd.DataFrame()

    monkeypatch.setattr(yfinance, "download", download)
    with pytest.raises(UserError, match="Yahoo Finance cannot be reached") as error:
        load_bars(data_params(source="yfinance", universe=universe))
    assert "\n" not in str(error.value)
    assert "delisted" not in capsys.readouterr().err


def test_a_network_that_fails_loudly_is_named_too(monkeypatch: pytest.MonkeyPatch, universe: str) -> None:
    answering(monkeypatch, ConnectionError("no route to host"))
    with pytest.raises(UserError, match=r"cannot be reached \(no route to host\)"):
        load_bars(data_params(source="yfinance", universe=universe))


def test_it_needs_a_universe_and_has_no_unadjusted_prices(universe: str) -> None:
    with pytest.raises(UserError, match=r"needs data\.universe"):
        load_bars(data_params(source="yfinance"))
    with pytest.raises(UserError, match="no unadjusted prices"):
        load_bars(data_params(source="yfinance", universe=universe, adjustment="none"))
