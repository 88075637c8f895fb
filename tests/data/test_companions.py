from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.data.availability import as_of
from marl_pipeline.data.companions import TABLES, load_companions
from marl_pipeline.data.schema import TIMESTAMP_DTYPE, normalise_bars
from marl_pipeline.errors import UserError
from tests.data.bar_tables import SHARED, daily, data_params


@lru_cache
def bars() -> pd.DataFrame:
    return normalise_bars(daily(), params=data_params(timezone="UTC"), origin="bars")


def file_of(folder: Path, text: str, name: str = "companion.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def test_nothing_set_gives_nothing() -> None:
    companions = load_companions(data_params(), bars())
    assert all(getattr(companions, name) is None for name in TABLES)
    assert companions.benchmark_name == ""


def test_a_dated_row_is_available_at_the_exchange_close_and_its_lag_later(tmp_path: Path) -> None:
    path = file_of(tmp_path, "DATE,VIXCLS\n2024-07-02,12.0\n2024-07-03,.\n2024-07-06,13.5\n")
    vix = load_companions(data_params(vix=path), bars()).vix
    assert vix is not None
    expected = [utc("2024-07-02T20:15"), utc("2024-07-03T17:15"), utc("2024-07-06T21:15")]
    assert vix["available_at"].tolist() == expected
    np.testing.assert_array_equal(vix["close"], [12.0, np.nan, 13.5])
    assert vix["available_at"].dtype == TIMESTAMP_DTYPE


def test_a_stamped_row_is_available_at_its_stamp_and_its_lag_later(tmp_path: Path) -> None:
    path = file_of(tmp_path, "timestamp,rate\n2024-07-02T10:00:00-04:00,5.0\n2024-07-02T11:30:00-04:00,5.1\n")
    macro = load_companions(data_params(macro=path), bars()).macro
    assert macro is not None
    assert macro["available_at"].tolist() == [utc("2024-07-03T14:00"), utc("2024-07-03T15:30")]


def test_a_time_of_day_without_a_zone_needs_one(tmp_path: Path) -> None:
    path = file_of(tmp_path, "timestamp,rate\n2024-07-02 10:00,5.0\n2024-07-03 10:00,5.1\n")
    with pytest.raises(UserError, match=r"no time zone .* set data\.timezone"):
        load_companions(data_params(macro=path), bars())
    macro = load_companions(data_params(macro=path, timezone="America/New_York"), bars()).macro
    assert macro is not None
    assert macro["timestamp"].iloc[0] == utc("2024-07-02T14:00")


def test_macro_takes_every_column_of_numbers_and_leaves_texts(tmp_path: Path) -> None:
    path = file_of(tmp_path, "date,source,yield,spread\n2024-07-02,FRED,4.1,\n2024-07-03,FRED,4.2,1.5\n")
    macro = load_companions(data_params(macro=path), bars()).macro
    assert macro is not None
    assert list(macro.columns) == ["timestamp", "available_at", "expires_at", "yield", "spread"]
    broken = file_of(tmp_path, "date,yield\n2024-07-02,4.1\n2024-07-03,4.2x\n")
    with pytest.raises(UserError, match=r"column 'yield': '4\.2x' in line 3 is not a number"):
        load_companions(data_params(macro=broken), bars())


def test_sentiment_is_per_symbol(tmp_path: Path) -> None:
    path = file_of(tmp_path, "Ticker,Date,score,headlines\nA,2024-07-02,0.5,3\nB,2024-07-02,-0.5,1\n")
    sentiment = load_companions(data_params(sentiment=path), bars()).sentiment
    assert sentiment is not None
    assert list(sentiment.columns) == ["symbol", "timestamp", "available_at", "expires_at", "score", "headlines"]
    assert (sentiment["available_at"] == utc("2024-07-02T20:00")).all()


def test_sectors_are_found_under_their_usual_name(tmp_path: Path) -> None:
    path = file_of(tmp_path, "Symbol,GICS Sector,GICS Sub-Industry\nA,Energy,Oil\nA,Utilities,Gas\nB,,\n")
    sectors = load_companions(data_params(sectors=path), bars()).sectors
    assert sectors is not None
    assert sectors.to_dict("list") == {"symbol": ["A"], "sector": ["Energy"]}


def test_a_synthetic_map_of_sectors_is_used_without_a_file() -> None:
    own = pd.DataFrame({"symbol": ["A"], "sector": ["sector 0"]})
    assert load_companions(data_params(), bars(), own).sectors is own


def test_a_benchmark_is_a_symbol_among_the_bars_or_a_file_of_bars(tmp_path: Path) -> None:
    named = load_companions(data_params(benchmark=file_of(tmp_path, "B\n", "benchmark-B.txt")), bars())
    assert named.benchmark_name == "B"
    assert named.benchmark is not None
    assert named.benchmark["close"].tolist() == [3.2, 4.2]
    assert named.benchmark["available_at"].tolist() == [utc("2024-01-02T21:00"), utc("2024-01-03T21:00")]
    path = file_of(tmp_path, "Date,Close\n2024-01-03,101\n2024-01-02,100\n", "index.csv")
    filed = load_companions(data_params(benchmark=path), bars())
    assert filed.benchmark_name == "index"
    assert filed.benchmark is not None
    assert filed.benchmark["close"].tolist() == [100.0, 101.0]


def test_a_file_of_several_benchmarks_gives_spy_or_is_refused(tmp_path: Path) -> None:
    rows = "symbol,Date,Close\nQQQ,2024-01-02,400\nSPY,2024-01-02,470\n"
    spy = load_companions(data_params(benchmark=file_of(tmp_path, rows)), bars())
    assert (spy.benchmark_name, len(spy.benchmark) if spy.benchmark is not None else 0) == ("SPY", 1)
    with pytest.raises(UserError, match=r"several symbols \(DIA, QQQ\)"):
        load_companions(data_params(benchmark=file_of(tmp_path, rows.replace("SPY", "DIA"))), bars())


def test_daily_benchmarks_serve_hourly_bars(tmp_path: Path) -> None:
    path = file_of(tmp_path, "Date,Close\n2024-07-03,100\n")
    companions = load_companions(data_params(benchmark=path, frequency="1Hour"), bars())
    assert companions.benchmark is not None
    assert companions.benchmark["available_at"].tolist() == [utc("2024-07-03T17:00")]


def test_corporate_actions_and_membership_are_read(tmp_path: Path) -> None:
    actions = file_of(
        tmp_path, "symbol,ex_date,kind,value\nA,2024-01-03,Split,4\nB,2024-01-03,dividends,0.24\n", "a.csv"
    )
    members = file_of(tmp_path, "symbol,start,end\nA,2020-01-01,\nB,,2024-01-02\n", "m.csv")
    companions = load_companions(data_params(corporate_actions=actions, membership=members), bars())
    assert companions.corporate_actions is not None
    assert companions.corporate_actions["kind"].tolist() == ["split", "dividend"]
    assert companions.corporate_actions["ex_date"].tolist() == [utc("2024-01-03")] * 2
    assert companions.membership is not None
    assert companions.membership["end"].isna().tolist() == [True, False]
    assert companions.membership["start"].tolist()[0] == utc("2020-01-01")


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("sectors", "symbol,industry\nA,x\n", "column 'sector' is missing (found: symbol, industry)"),
        ("vix", "date,level\n2024-01-02,12\n", "column 'close' is missing"),
        ("macro", "date,note\n2024-01-02,up\n", "no column of numbers"),
        ("macro", "date,rate\n2024-01-02,1\nsoon,2\n", "'soon' in line 3 is not a timestamp"),
        ("sentiment", "date,score\n2024-01-02,1\n", "column 'symbol' is missing"),
        ("corporate_actions", "symbol,ex_date,kind,value\nA,2024-01-02,merger,1\n", "found merger 1"),
        ("corporate_actions", "symbol,ex_date,kind,value\nA,2024-01-02,split,0\n", "found split 0"),
        ("membership", "symbol,start,end\nA,2024-01-02,2023-01-02\n", "A ends on 2023-01-02, before it starts"),
    ],
)
def test_a_companion_that_is_wrong_is_named(tmp_path: Path, field: str, text: str, words: str) -> None:
    path = file_of(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(words)) as error:
        load_companions(data_params(**{field: path}), bars())
    assert str(error.value).startswith(path)


def test_a_missing_companion_and_an_unknown_benchmark_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vix\.csv: no such file"):
        load_companions(data_params(vix=str(tmp_path / "vix.csv")), bars())
    with pytest.raises(UserError, match=r"data\.benchmark: 'SPY' is not among the bars"):
        load_companions(data_params(benchmark=file_of(tmp_path, "SPY", "b.txt")), bars())


def moments(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[us]")


def test_as_of_gives_the_last_row_known_and_carries_each_column_for_itself() -> None:
    values = pd.DataFrame(
        {
            "available_at": [utc("2024-01-03T21:00"), utc("2024-01-02T21:00"), utc("2024-01-03T21:00")],
            "a": [2.0, 1.0, 3.0],
            "b": [np.nan, 10.0, np.nan],
        }
    )
    known = as_of(values, moments("2024-01-02T20:59", "2024-01-02T21:00", "2024-01-03T20:00", "2024-01-03T21:00"))
    np.testing.assert_array_equal(known, [[np.nan, np.nan], [1.0, 10.0], [1.0, 10.0], [3.0, 10.0]])


@settings(max_examples=50, deadline=None)
@given(
    days=st.lists(st.integers(0, 30), min_size=1, max_size=20),
    asked=st.lists(st.integers(0, 30), min_size=1, max_size=10),
    seed=st.integers(0, 1000),
)
def test_no_row_speaks_before_it_is_available(days: list[int], asked: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    origin = np.datetime64("2024-01-01", "us")
    at = origin + np.array(days) * np.timedelta64(1, "D")
    when = origin + np.array(asked) * np.timedelta64(1, "D")
    values = pd.DataFrame({"available_at": at, "x": rng.standard_normal(len(at))})
    changed = values.assign(x=np.where(at > when.max(), 99.0, values["x"]))
    np.testing.assert_array_equal(as_of(values, when), as_of(changed, when))
    assert not (as_of(changed, when) == 99.0).any()


@pytest.mark.skipif(not SHARED.exists(), reason=f"the real data is not at {SHARED}")
def test_the_real_reference_files_are_read() -> None:
    reference = SHARED / "reference"
    params = data_params(
        vix=str(reference / "vix_daily.parquet"),
        macro=str(reference / "macro_daily.parquet"),
        sectors=str(reference / "static_sector_industry.csv"),
        benchmark=str(reference / "benchmarks_daily.parquet"),
        sentiment=str(SHARED / "sentiment" / "stocknet_daily_tweet_counts.parquet"),
    )
    companions = load_companions(params, bars())
    assert companions.benchmark_name == "SPY"
    assert companions.macro is not None
    assert companions.macro.shape[1] == 11
    assert companions.vix is not None
    assert (companions.vix["available_at"] > companions.vix["timestamp"]).all()
