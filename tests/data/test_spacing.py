from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.data.calendar import expected_grid
from marl_pipeline.data.schema import normalise_bars
from marl_pipeline.data.spacing import refuse_other_spacing
from marl_pipeline.errors import UserError
from tests.data.bar_tables import data_params

HOURS = expected_grid("2023-01-03", "2023-03-31", "1Hour", "XNYS")
DAYS = expected_grid("2021-01-04", "2023-03-31", "1Day", "XNYS")
MINUTES = (HOURS[:70, None] + np.arange(60) * np.timedelta64(1, "m")).ravel()


def measured(moments: np.ndarray, frequency: str, symbol: str = "AAA") -> None:
    refuse_other_spacing(pd.Series([symbol] * len(moments)), moments, frequency, "bars.csv")


@pytest.mark.parametrize(
    ("moments", "frequency", "words"),
    [
        (HOURS, "1Day", "an hour apart .*says 1Day; set it to 1Hour"),
        (MINUTES, "1Day", "1 minute apart .*says 1Day; bring bars of 1Day or 1Hour"),
        (MINUTES, "1Hour", "1 minute apart"),
        (MINUTES[::5], "1Hour", "5 minutes apart"),
        (np.unique(np.concatenate([HOURS, HOURS + np.timedelta64(30, "m")])), "1Hour", "30 minutes apart"),
        (HOURS[::4], "1Day", "4 hours apart|hours apart"),
        (np.sort(np.concatenate([DAYS + np.timedelta64(h, "m") for h in (870, 1110)])), "1Day", "4 hours apart"),
        (np.sort(np.concatenate([DAYS + np.timedelta64(h, "m") for h in (870, 1110)])), "1Hour", "4 hours apart"),
        (DAYS, "1Hour", "a day apart .*set it to 1Day"),
        (DAYS[::5], "1Day", "a week apart"),
        (DAYS[::5], "1Hour", "a week apart"),
        (DAYS[:30:5], "1Day", "a week apart"),
        (DAYS[::10], "1Day", "two weeks apart"),
        (np.concatenate([DAYS[:300], DAYS[300::5]]), "1Day", "a week apart .*bars of one frequency in one file"),
        (np.concatenate([DAYS[:200:5], DAYS[200:]]), "1Day", "a week apart .*bars of one frequency in one file"),
        (np.delete(DAYS[::5], np.arange(3, 110, 7)), "1Day", "a week apart"),
        (np.delete(DAYS[::5], np.s_[3::5]), "1Day", "a week apart"),
        (np.delete(DAYS[::5], np.s_[3::5]), "1Hour", "a week apart"),
        (np.arange("2010-01", "2015-01", dtype="datetime64[M]").astype("datetime64[us]"), "1Day", "a month apart"),
        (np.arange("2010-01", "2015-01", 3, dtype="datetime64[M]").astype("datetime64[us]"), "1Day", "a quarter apart"),
    ],
)
def test_bars_of_another_frequency_are_refused_in_one_line(moments: np.ndarray, frequency: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as told:
        measured(moments, frequency)
    assert "data.frequency (--frequency)" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("calendar", ["XNYS", "XSHG", "XTKS", "24/7", "CMES"])
def test_bars_of_the_frequency_itself_are_not(calendar: str) -> None:
    measured(expected_grid("2023-01-03", "2023-03-31", "1Hour", calendar), "1Hour")
    measured(expected_grid("2021-01-03", "2023-03-31", "1Day", calendar), "1Day")


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.3, 0.5, 0.9])
def test_thinly_traded_symbols_are_not(share: float) -> None:
    rng = np.random.default_rng(0)
    for moments, frequency in ((HOURS, "1Hour"), (DAYS, "1Day")):
        measured(moments[rng.random(len(moments)) < share], frequency)


def test_a_few_hourly_bars_at_the_end_of_daily_ones_are_refused() -> None:
    hourly = HOURS[DAYS[-8] < HOURS]
    moments = np.concatenate([DAYS[hourly[0].astype("datetime64[D]") > DAYS], hourly])
    with pytest.raises(UserError, match=r"an hour apart .*bring bars of one frequency in one file"):
        measured(moments, "1Day")
    measured(np.append(DAYS, DAYS[-1] + np.timedelta64(16, "h")), "1Day")


def test_one_symbol_of_another_frequency_is_named() -> None:
    symbol = pd.Series(["AAA"] * len(DAYS) + ["BBB"] * len(HOURS))
    with pytest.raises(UserError, match="of BBB"):
        refuse_other_spacing(symbol, np.concatenate([DAYS, HOURS]), "1Day", "bars.csv")


def test_hourly_bars_are_refused_before_they_become_days() -> None:
    table = pd.DataFrame({"symbol": "AAA", "timestamp": pd.DatetimeIndex(HOURS).tz_localize("UTC"), "close": 1.0})
    with pytest.raises(UserError, match=r"mine\.csv: bars are an hour apart"):
        normalise_bars(table, params=data_params(frequency="1Day"), origin="mine.csv")
    assert len(normalise_bars(table, params=data_params(frequency="1Hour"), origin="mine.csv")) == len(HOURS)


def test_midnights_of_another_exchange_are_refused() -> None:
    london = pd.DatetimeIndex(DAYS).tz_localize("Europe/London")
    table = pd.DataFrame({"symbol": "VOD.L", "timestamp": london.tz_convert("UTC"), "close": 1.0})
    with pytest.raises(UserError, match=r"midnights of Europe/London.*such as XLON"):
        normalise_bars(table, params=data_params(calendar="XNYS"), origin="lon.csv")
    for stamps, calendar in ((london.tz_convert("UTC"), "XLON"), (london, "XNYS")):
        kept = normalise_bars(table.assign(timestamp=stamps), params=data_params(calendar=calendar), origin="lon.csv")
        assert (kept["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[us]") == DAYS).all()
