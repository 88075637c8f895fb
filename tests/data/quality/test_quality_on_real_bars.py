"""What the rules find in real bars: the defects that were seen by hand, and few false alarms."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from marl_pipeline.config import load_params
from marl_pipeline.data.quality import QualityResult, check, clean
from marl_pipeline.data.quality.report import build_report
from marl_pipeline.data.sources.sample import sp500_sample

REPOSITORY = Path(__file__).parents[3]
SHARED = Path(os.environ.get("MARL_SHARED_DATA", REPOSITORY.parent / "shared/data"))
PARAMS = load_params(REPOSITORY / "params.yaml").validate_data
real = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no market data at {SHARED}")


def run(name: str, frequency: str) -> tuple[pd.DataFrame, QualityResult]:
    bars = pd.read_parquet(SHARED / name)
    if bars["timestamp"].dt.tz is None:
        bars["timestamp"] = bars["timestamp"].dt.tz_localize("UTC")
    return bars, check(bars, calendar="XNYS", frequency=frequency, adjustment="split", params=PARAMS)


def hits(result: QualityResult, rule: str) -> pd.DataFrame:
    return result.findings[result.findings["rule"] == rule]


@real
def test_the_downloaded_hourly_set_has_two_grids_indices_and_gaps() -> None:
    bars, result = run("us_hourly/bars_as_downloaded.parquet", "1Hour")
    off = set(hits(result, "off_grid")["symbol"])
    assert off == {"ABBV", "AMD", "AVGO", "AZN", "COST", "HD", "INTC", "ISRG", "JNJ", "PEP", "PG", "WMT"}
    gaps = hits(result, "calendar_gap")
    assert set(gaps["symbol"]) == off | {"RUT"}
    missing_opens = {"2021-11-11", "2022-01-11", "2023-05-24", "2024-07-19"}
    assert set(gaps["timestamp"][gaps["symbol"] == "RUT"].dt.strftime("%Y-%m-%d")) == missing_opens
    spikes = hits(result, "range_spike")
    opening_glitch = spikes["timestamp"].dt.strftime("%Y-%m-%d") == "2023-01-24"
    assert {"LLY", "UNH"} <= set(spikes["symbol"][opening_glitch])
    report = build_report(result, PARAMS, calendar="XNYS", frequency="1Hour", adjustment="split")
    assert "zero_volume: IXIC, RUT, SOX, SPX never trade: an index cannot be bought." in report["summary"]
    shown = clean(bars, result.quarantine).query("not quarantined").groupby("symbol").size()
    assert (shown.drop(list(off), errors="ignore") == bars.groupby("symbol").size().drop(list(off))).all()
    kept = clean(bars, result.quarantine).query("not quarantined")
    assert not set(kept["symbol"][kept["timestamp"] > pd.Timestamp("2023-10-01", tz="UTC")]) & off
    assert set(result.findings["rule"]) == {"zero_volume", "off_grid", "calendar_gap", "range_spike", "low_coverage"}


@real
def test_the_hourly_set_loses_no_bar() -> None:
    _, result = run("us_hourly/bars.parquet", "1Hour")
    assert result.quarantine.empty
    assert set(result.findings["rule"]) == {"zero_volume", "calendar_gap"}, "half-day bars at 12:30 are missing"


@real
def test_the_daily_set_has_holiday_copies_and_a_stock_before_its_listing_and_no_splits() -> None:
    _, result = run("us_daily/bars.parquet", "1Day")
    assert set(hits(result, "off_calendar")["timestamp"].dt.strftime("%Y-%m-%d")) == {"2022-06-20", "2023-06-19"}
    assert set(hits(result, "stale")["symbol"]) == {"AMCR"}
    assert hits(result, "split_like").empty
    jumps = hits(result, "jump")
    assert "KDP" in set(jumps["symbol"]), "a special dividend of 80% of the price"
    assert len(jumps) <= 5
    assert not set(jumps["timestamp"].dt.strftime("%Y-%m-%d")) & {"2020-03-12", "2020-03-16", "2020-03-18"}
    assert len(result.quarantine) < 0.003 * 690_356


@real
def test_rows_of_nothing_but_blanks_are_found() -> None:
    _, result = run("sentiment/stocknet_daily_2012_2017.parquet", "1Day")
    assert len(hits(result, "missing_value")) == 3
    assert hits(result, "split_like").empty
    assert hits(result, "jump").empty


def test_the_sample_keeps_its_symbols() -> None:
    bars = sp500_sample("1Day")
    bars = bars[bars["timestamp"] >= "2010-01-01"].reset_index(drop=True)
    result = check(bars, calendar="XNYS", frequency="1Day", adjustment="total", params=PARAMS)
    assert hits(result, "split_like").empty
    assert len(result.quarantine) <= 3
