"""Hourly bars of exchanges with lunch breaks, with nights and without end, on any grid: what is clean stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.config import load_params
from marl_pipeline.data.calendar import exchange_zone, expected_grid, schedule
from marl_pipeline.data.panel import build_panel
from marl_pipeline.data.quality import QualityResult, check, clean
from marl_pipeline.data.quality.report import build_report
from marl_pipeline.data.timestamps import name_ends
from marl_pipeline.errors import UserError

PARAMS = load_params().validate_data
PRICES = ["open", "high", "low", "close"]


def bars_at(stamps: np.ndarray, symbols: int = 3, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(symbols):
        close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.004, len(stamps))))
        opening = np.concatenate([close[:1], close[:-1]])
        frames.append(
            pd.DataFrame(
                {
                    "symbol": f"S{number}",
                    "timestamp": pd.DatetimeIndex(stamps).tz_localize("UTC"),
                    "open": opening,
                    "high": np.maximum(opening, close) * 1.001,
                    "low": np.minimum(opening, close) * 0.999,
                    "close": close,
                    "volume": rng.lognormal(12.0, 0.3, len(stamps)),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def by_the_clock(calendar: str, first: str, last: str, before_open: bool = False) -> np.ndarray:
    """Every full hour of the session, and the open (or the full hour before it)."""
    days = schedule(calendar)
    chosen = (days.session >= np.datetime64(first)) & (days.session <= np.datetime64(last))
    out = []
    for opens, closes in zip(days.open[chosen], days.close[chosen], strict=True):
        hour = opens.astype("datetime64[h]").astype("datetime64[us]")
        hours = hour + np.arange(0 if before_open else 1, 24) * np.timedelta64(1, "h")
        out.append(np.concatenate([hours[:0] if before_open else [opens], hours[hours < closes]]))
    return np.unique(np.concatenate(out))


def run(bars: pd.DataFrame, calendar: str = "XNYS", frequency: str = "1Hour") -> QualityResult:
    return check(bars, calendar=calendar, frequency=frequency, adjustment="total", params=PARAMS)


def hidden(bars: pd.DataFrame, result: QualityResult) -> int:
    return int(clean(bars, result.quarantine)["quarantined"].sum())


@pytest.mark.parametrize("calendar", ["XSHG", "XHKG", "XTKS", "XLON", "CMES", "24/7", "24/5", "XNYS", "XBOM"])
def test_clean_hourly_bars_of_any_exchange_are_all_there(calendar: str) -> None:
    bars = bars_at(expected_grid("2022-11-01", "2023-04-28", "1Hour", calendar))
    result = run(bars, calendar)
    assert result.findings.empty, result.findings.head()
    assert hidden(bars, result) == 0
    panel = build_panel(clean(bars, result.quarantine), frequency="1Hour", calendar=calendar, adjustment="total")
    assert np.isfinite(panel.close).sum() == len(bars)
    assert (panel.known_at[:-1] <= panel.timestamps[1:]).all()


@pytest.mark.parametrize("before_open", [True, False])
@pytest.mark.parametrize("calendar", ["XNYS", "XHKG"])
def test_hours_by_the_clock_keep_the_half_hour_at_the_open(calendar: str, before_open: bool) -> None:
    stamps = by_the_clock(calendar, "2022-11-01", "2023-03-31", before_open)
    if calendar == "XHKG":  # 12:00 to 13:00 is the break
        stamps = stamps[(stamps - stamps.astype("datetime64[D]")) != np.timedelta64(4, "h")]
    bars = bars_at(stamps)
    result = run(bars, calendar)
    assert result.findings.empty, result.findings.head()
    panel = build_panel(clean(bars, result.quarantine), frequency="1Hour", calendar=calendar, adjustment="total")
    assert np.isfinite(panel.close).sum() == len(bars)


def test_a_change_of_the_vendors_grid_hides_nothing() -> None:
    old = expected_grid("2022-11-01", "2023-03-03", "1Hour", "XNYS")
    bars = bars_at(np.concatenate([old, by_the_clock("XNYS", "2023-03-06", "2023-03-31")]))
    result = run(bars)
    assert result.findings.empty, result.findings.head()
    panel = build_panel(clean(bars, result.quarantine), frequency="1Hour", calendar="XNYS", adjustment="total")
    assert np.isfinite(panel.close).sum() == len(bars)
    assert panel.session[-1] + 1 == len(np.unique(bars["timestamp"].dt.date))


def test_a_symbol_that_stays_on_the_old_grid_is_off_it() -> None:
    old = expected_grid("2022-11-01", "2023-03-31", "1Hour", "XNYS")
    new = np.concatenate([old[old < np.datetime64("2023-03-06")], by_the_clock("XNYS", "2023-03-06", "2023-03-31")])
    left = bars_at(old, symbols=1).assign(symbol="LEFT")
    result = run(pd.concat([bars_at(new), left], ignore_index=True))
    off = result.findings[result.findings["rule"] == "off_grid"]
    assert set(off["symbol"]) == {"LEFT"}
    assert off["timestamp"].min() == pd.Timestamp("2023-03-06 15:30", tz="UTC")


@pytest.mark.parametrize("calendar", ["XNYS", "XSHG", "XTKS", "XLON", "XHKG"])
@pytest.mark.parametrize("cut", [True, False])
def test_stamps_that_name_the_end_of_bars_are_recognised(calendar: str, cut: bool) -> None:
    starts = expected_grid("2023-01-03", "2023-02-28", "1Hour", calendar)
    days = schedule(calendar, starts)
    part = np.searchsorted(days.part_open, starts, side="right") - 1
    ends = starts + np.timedelta64(1, "h")
    ends = np.minimum(ends, days.part_close[part]) if cut else ends
    assert name_ends(np.unique(ends), "1Hour", calendar)
    assert not name_ends(starts, "1Hour", calendar)


def test_a_closing_print_beside_whole_sessions_is_not_an_end_stamp() -> None:
    starts = expected_grid("2023-01-03", "2023-02-28", "1Hour", "XNYS")
    closes = schedule("XNYS").close
    closes = closes[(closes > starts[0]) & (closes < starts[-1] + np.timedelta64(1, "h"))]
    result = run(bars_at(np.union1d(starts, closes)))
    assert set(result.findings["rule"]) == {"off_calendar"}
    assert len(result.findings) == 3 * len(closes)


@pytest.mark.parametrize(("truth", "given"), [("XLON", "XNYS"), ("XSHG", "XNYS"), ("24/7", "XNYS"), ("XNYS", "XLON")])
def test_hours_of_another_exchange_name_it(truth: str, given: str) -> None:
    bars = bars_at(expected_grid("2023-01-03", "2023-03-31", "1Hour", truth))
    with pytest.raises(UserError, match=rf"data\.calendar {given}.*set data\.calendar to {truth}"):
        run(bars, given)


def test_daily_bars_of_another_exchange_name_it() -> None:
    bars = bars_at(expected_grid("2021-01-04", "2022-12-30", "1Day", "24/7"))
    with pytest.raises(UserError, match=r"set data\.calendar to 24/7"):
        run(bars, "XNYS", "1Day")
    bars = bars_at(expected_grid("2021-01-04", "2022-12-30", "1Day", "XLON"))
    result = run(bars, "XNYS", "1Day")
    report = build_report(result, PARAMS, calendar="XNYS", frequency="1Day", adjustment="total")
    assert "is XLON their exchange?" in report["summary"][0]
    assert not run(bars, "XLON", "1Day").notes


def test_extended_hours_are_off_calendar_and_nothing_more() -> None:
    zone = exchange_zone("XNYS")
    regular = expected_grid("2023-01-03", "2023-03-10", "1Hour", "XNYS")
    days = pd.DatetimeIndex(regular).tz_localize("UTC").tz_convert(zone).normalize().unique()
    hours = np.arange(4, 20)
    stamps = np.sort(
        np.concatenate([(days + pd.Timedelta(hours=int(h))).tz_convert("UTC").tz_localize(None) for h in hours])
    )
    result = run(bars_at(stamps.astype("datetime64[us]")))
    assert set(result.findings["rule"]) == {"off_calendar"}
    assert len(result.findings) == 3 * len(days) * (16 - 7)
