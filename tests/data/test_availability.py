"""When a companion's row counts: in every style of stamp, for periods, releases and vintages, and for how long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.data.availability import as_of
from marl_pipeline.data.calendar import session_closes
from marl_pipeline.data.series import load_macro, load_sentiment, load_vix
from marl_pipeline.errors import UserError
from tests.data.bar_tables import data_params

DAYS = pd.DatetimeIndex(["2021-03-10", "2021-03-11", "2021-03-12", "2021-03-15", "2021-03-16"])
"""Across the Sunday on which New York changes to summer time."""


def written(style: str) -> list[str]:
    def moment(text: str, zone: str, show: str = "UTC") -> list[str]:
        local = pd.DatetimeIndex([f"{day:%Y-%m-%d} {text}" for day in DAYS]).tz_localize(zone).tz_convert(show)
        return [stamp.isoformat() for stamp in local]

    styles = {
        "date": [f"{day:%Y-%m-%d}" for day in DAYS],
        "slashed": [f"{day:%m/%d/%Y}" for day in DAYS],
        "integer": [f"{day:%Y%m%d}" for day in DAYS],
        "midnight without a zone": [f"{day:%Y-%m-%d} 00:00:00" for day in DAYS],
        "midnight UTC": moment("00:00", "UTC"),
        "midnight New York": moment("00:00", "America/New_York", "America/New_York"),
        "midnight New York in UTC": moment("00:00", "America/New_York"),
        "midnight Berlin": moment("00:00", "Europe/Berlin", "Europe/Berlin"),
        "midnight Berlin in UTC": moment("00:00", "Europe/Berlin"),
        "midnight Shanghai": moment("00:00", "Asia/Shanghai", "Asia/Shanghai"),
        "epoch": [str(int(day.timestamp())) for day in DAYS],
        "epoch of New York's midnight": [
            str(int(day.tz_localize("America/New_York").timestamp() * 1000)) for day in DAYS
        ],
        **{
            f"midnight {zone.split('/')[1]} in UTC": [
                day.tz_localize(zone).tz_convert("UTC").isoformat() for day in DAYS
            ]
            for zone in ("Asia/Tokyo", "Asia/Shanghai", "Asia/Kolkata", "Australia/Sydney")
        },
        "open in New York": [opened(day).isoformat() for day in DAYS],
        "open in New York as epoch": [str(int(opened(day).timestamp())) for day in DAYS],
    }
    return styles[style]


def opened(day: pd.Timestamp) -> pd.Timestamp:
    return (day + pd.Timedelta("9h30min")).tz_localize("America/New_York")


DATE_STYLES = (
    "date", "slashed", "integer", "midnight without a zone", "midnight UTC", "midnight New York",
    "midnight New York in UTC", "midnight Berlin", "midnight Berlin in UTC", "midnight Shanghai", "epoch",
    "epoch of New York's midnight", "midnight Tokyo in UTC", "midnight Shanghai in UTC", "midnight Kolkata in UTC",
    "midnight Sydney in UTC", "open in New York", "open in New York as epoch",
)  # fmt: skip


def macro_of(folder: Path, text: str, **changes: Any) -> pd.DataFrame:
    (folder / "macro.csv").write_text(text)
    return load_macro(data_params(macro=str(folder / "macro.csv"), **changes), [])


def utc(*texts: str) -> list[pd.Timestamp]:
    return [pd.Timestamp(text, tz="UTC") for text in texts]


@pytest.mark.parametrize("style", DATE_STYLES)
def test_a_date_counts_from_its_own_exchange_close_whatever_midnight_it_carries(tmp_path: Path, style: str) -> None:
    rows = "".join(f"{stamp},{15 + row}\n" for row, stamp in enumerate(written(style)))
    (tmp_path / "vix.csv").write_text("date,vix\n" + rows)
    vix = load_vix(data_params(vix=str(tmp_path / "vix.csv")))
    closes = pd.DatetimeIndex(session_closes(DAYS, "XNYS")).tz_localize("UTC")
    assert vix["available_at"].tolist() == (closes + pd.Timedelta("15min")).tolist()
    if not style.startswith("open"):
        assert vix["timestamp"].tolist() == DAYS.tz_localize("UTC").tolist()


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Europe/Berlin", "Asia/Tokyo"])
def test_a_date_in_a_typed_column_is_the_day_of_its_own_zone(tmp_path: Path, zone: str) -> None:
    pd.DataFrame({"date": DAYS.tz_localize(zone), "vix": 15.0}).to_parquet(tmp_path / "vix.parquet")
    vix = load_vix(data_params(vix=str(tmp_path / "vix.parquet")))
    assert vix["timestamp"].tolist() == DAYS.tz_localize("UTC").tolist()


def test_a_moment_stays_one(tmp_path: Path) -> None:
    macro = macro_of(tmp_path, "time,x\n2021-03-11T16:00:00-05:00,1\n2021-03-15T16:00:00-04:00,2\n")
    assert macro["available_at"].tolist() == utc("2021-03-12T21:00", "2021-03-16T20:00")
    macro = macro_of(tmp_path, "time,x\n2021-03-11T21:00:00Z,1\n2021-03-15T20:00:00Z,2\n")
    assert macro["available_at"].tolist() == utc("2021-03-12T21:00", "2021-03-16T20:00")


@pytest.mark.parametrize(
    ("first", "second", "ends"),
    [
        ("2020-Q4", "2021-Q1", ("2020-12-31", "2021-03-31")),
        ("Q4 2020", "Q1 2021", ("2020-12-31", "2021-03-31")),
        ("2020Q4", "2021Q1", ("2020-12-31", "2021-03-31")),
        ("2021-02", "2021-03", ("2021-02-28", "2021-03-31")),
        ("202102", "202103", ("2021-02-28", "2021-03-31")),
        ("2021M02", "2021M03", ("2021-02-28", "2021-03-31")),
        ("Feb 2021", "Mar 2021", ("2021-02-28", "2021-03-31")),
        ("2019", "2020", ("2019-12-31", "2020-12-31")),
    ],
)
def test_a_period_counts_from_its_end_and_a_lag_that_was_given(
    tmp_path: Path, first: str, second: str, ends: tuple[str, str]
) -> None:
    text = f"date,x\n{first},1\n{second},2\n"
    with pytest.raises(UserError, match=r"column 'x' is period by period .* data\.availability\.macro"):
        macro_of(tmp_path, text)
    params = data_params()
    changed = params.availability.model_copy(update={"macro": {"x": "30D"}})
    macro = macro_of(tmp_path, text, availability=changed)
    closes = pd.DatetimeIndex(session_closes(pd.DatetimeIndex(ends), "XNYS")).tz_localize("UTC")
    assert macro["available_at"].tolist() == (closes + pd.Timedelta("30D")).tolist()
    assert macro["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("rows", ["2021-01-01,1\n2021-02-01,2\n2021-03-01,3\n", "20210131,1\n20210228,2\n20210331,3\n"])
def test_a_monthly_series_with_a_daily_lag_is_refused_and_the_parameter_named(tmp_path: Path, rows: str) -> None:
    with pytest.raises(UserError, match=r"macro\.csv: column 'CPI' is monthly .*data\.availability\.macro=\{CPI: 45D"):
        macro_of(tmp_path, "date,CPI\n" + rows)


def test_a_lag_that_ends_inside_the_month_it_measures_is_refused(tmp_path: Path) -> None:
    text = "date,CPI\n2021-01-01,1\n2021-02-01,2\n2021-03-01,3\n"
    params = data_params()
    short = params.availability.model_copy(update={"macro": "14D"})
    with pytest.raises(UserError, match="used 14 days after that day, before it was published"):
        macro_of(tmp_path, text, availability=short)
    macro = macro_of(tmp_path, text, availability=params.availability.model_copy(update={"macro": "45D"}))
    assert macro["available_at"].iloc[-1] == utc("2021-04-15T21:00")[0]


@pytest.mark.parametrize(("months", "lag"), [(1, "45D"), (3, "120D"), (12, "400D")])
def test_the_lag_that_a_refusal_names_is_one_that_is_taken(tmp_path: Path, months: int, lag: str) -> None:
    days = pd.date_range("2015-01-01", periods=6, freq=pd.DateOffset(months=months))
    text = "date,x\n" + "".join(f"{day:%Y-%m-%d},1\n" for day in days)
    with pytest.raises(UserError, match=rf"\{{x: {lag}, '\*': 1D\}}"):
        macro_of(tmp_path, text)
    named = data_params().availability.model_copy(update={"macro": {"x": lag, "*": "1D"}})
    assert len(macro_of(tmp_path, text, availability=named)) == 6


def test_the_lag_of_each_column_is_its_own(tmp_path: Path) -> None:
    rows = "".join(
        f"{day:%Y-%m-%d},{row},{250 if day.day == 1 else ''}\n"
        for row, day in enumerate(pd.date_range("2021-01-01", periods=70))
    )
    text = "date,DFF,CPI\n" + rows
    with pytest.raises(UserError, match="column 'CPI' is monthly"):
        macro_of(tmp_path, text)
    with pytest.raises(UserError, match=r"says nothing of column 'DFF'; add it, or '\*'"):
        macro_of(tmp_path, text, availability=data_params().availability.model_copy(update={"macro": {"CPI": "45D"}}))
    both = data_params().availability.model_copy(update={"macro": {"CPI": "45D", "*": "1D"}})
    macro = macro_of(tmp_path, text, availability=both)
    known = as_of(
        macro.drop(columns="timestamp"),
        np.array(["2021-01-06T22:00", "2021-02-14T22:00", "2021-02-15T22:00"], dtype="datetime64[us]"),
    )
    assert known[:, 0].tolist() == [4.0, 43.0, 44.0]
    np.testing.assert_array_equal(known[:, 1], [np.nan, np.nan, 250.0])


VINTAGES = """period,released,gdp
2020-Q4,2021-01-28,1.0
2020-Q4,2021-02-25,1.1
2021-Q1,2021-04-29,2.0
2020-Q4,2021-07-29,1.5
2021-Q1,2021-07-29,2.2
"""


def test_at_each_bar_the_latest_vintage_of_the_latest_period_counts(tmp_path: Path) -> None:
    macro = macro_of(tmp_path, VINTAGES)
    days = ["2021-01-28", "2021-01-29", "2021-02-25", "2021-02-26", "2021-04-29", "2021-04-30", "2021-07-30"]
    moments = session_closes(pd.DatetimeIndex(days), "XNYS")
    known = as_of(macro.drop(columns="timestamp"), moments)[:, 0]
    np.testing.assert_array_equal(known, [np.nan, 1.0, 1.0, 1.1, 1.1, 2.0, 2.2])
    assert macro["gdp"].isna().sum() == 1, "a revision of an older quarter is no news of the newest"


def test_a_release_before_its_period_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 2 was released on 2020-03-01, before the period it is of"):
        macro_of(tmp_path, "date,released,x\n2021-01-01,2021-02-10,1\n2021-02-01,2020-03-01,2\n")


@pytest.mark.parametrize(
    ("header", "stamp"),
    [("date", "%Y%m%d"), ("time", "epoch"), ("observation_date", "%Y-%m-%d"), ("timestamp", "%Y-%m-%d")],
)
def test_a_date_never_becomes_a_figure(tmp_path: Path, header: str, stamp: str) -> None:
    rows = [
        f"{int(day.timestamp()) if stamp == 'epoch' else day.strftime(stamp)},{day:%Y%m%d},2021,1.5" for day in DAYS
    ]
    (tmp_path / "macro.csv").write_text(f"{header},realtime_end,year,rate\n" + "\n".join(rows) + "\n")
    notes: list[str] = []
    macro = load_macro(data_params(macro=str(tmp_path / "macro.csv")), notes)
    assert [name for name in macro.columns if name not in ("timestamp", "available_at", "expires_at")] == ["rate"]
    assert notes == [f"macro: column '{name}' holds dates and is no figure" for name in ("realtime_end", "year")]


def test_values_are_carried_forward_for_a_limited_time(tmp_path: Path) -> None:
    (tmp_path / "vix.csv").write_text("date,vix\n2021-03-10,20\n2021-03-11,\n")
    vix = load_vix(data_params(vix=str(tmp_path / "vix.csv")))
    moments = np.array(
        ["2021-03-10T21:14", "2021-03-10T21:15", "2021-03-17T21:14", "2021-03-17T21:15"], "datetime64[us]"
    )
    known = as_of(vix.drop(columns="timestamp"), moments)[:, 0]
    np.testing.assert_array_equal(known, [np.nan, 20.0, 20.0, np.nan])


def test_a_long_macro_file_is_read_series_by_series(tmp_path: Path) -> None:
    macro = macro_of(tmp_path, "date,series,value\n2021-03-10,DGS10,1.5\n2021-03-10,DFF,0.1\n2021-03-11,DGS10,1.6\n")
    known = as_of(macro.drop(columns="timestamp"), np.array(["2021-03-13"], dtype="datetime64[us]"))
    assert [name for name in macro.columns if name.startswith("D")] == ["DGS10", "DFF"]
    assert known.tolist() == [[1.6, 0.1]]


def test_several_rows_of_one_day_are_averaged_and_counts_added(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(
        "ticker,date,score,n_tweets\nA,2021-03-10,0.9,3\nA,2021-03-10,0.8,4\nA,2021-03-10,-0.5,1\nB,2021-03-10,0.1,2\n"
    )
    notes: list[str] = []
    sentiment = load_sentiment(data_params(sentiment=str(tmp_path / "s.csv")), notes)
    assert sentiment["symbol"].tolist() == ["A", "B"]
    np.testing.assert_allclose(sentiment["score"], [0.4, 0.1])
    assert sentiment["n_tweets"].tolist() == [8.0, 2.0]
    assert re.search(r"1 times several rows .* score \(mean\), n_tweets \(sum\)", notes[0])


def test_a_monthly_series_that_was_filled_forward_day_by_day_is_refused(tmp_path: Path) -> None:
    calendar = pd.bdate_range("2021-01-01", "2021-09-30")
    monthly = "".join(f"{day:%Y-%m-%d},{250 + day.month}\n" for day in calendar)
    with pytest.raises(UserError, match="changes on the first row of a month and on no other"):
        macro_of(tmp_path, "date,CPI\n" + monthly)
    rate = "".join(f"{day:%Y-%m-%d},{day.month // 2 + (day.month == 5 and day.day > 5)}\n" for day in calendar)
    assert len(macro_of(tmp_path, "date,rate\n" + rate)) == len(calendar), (
        "a rate that is set now and then is no month's"
    )
