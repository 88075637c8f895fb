"""`marl data`: the bars as a run would take them in, what a check says of them, and the profile it ends with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from marl_pipeline.cli.main import app
from marl_pipeline.config import load_params
from marl_pipeline.data.calendar import schedule
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.parameters import parameters

ROOT = Path(__file__).parents[2]
DAYS = schedule("XNYS").session[7812:7862]  # 50 sessions of 2021


def bars_file(folder: Path, symbols: Sequence[str] = ("AAPL", "MSFT", "BRK-B"), **changes: object) -> Path:
    rng = np.random.default_rng(0)
    tables = []
    for symbol in symbols:
        close = np.round(50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, len(DAYS)))), 2)
        prices = {"open": close, "high": close + 0.5, "low": close - 0.5, "close": close}
        days = DAYS.astype("datetime64[D]").astype(str)
        tables.append(
            pd.DataFrame({"date": days, "symbol": symbol, **prices, "volume": rng.integers(1e5, 2e5, len(DAYS))})
        )
    path = folder / "bars.csv"
    pd.concat(tables).to_csv(path, index=False)
    return path


def marl(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, ["data", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def given(path: Path, **data: object) -> list[str]:
    values = {"source": "csv", "path": str(path), "timezone": "America/New_York", **data}
    return [argument for key, value in values.items() for argument in ("-S", f"data.{key}={value}")]


def test_bars_are_written_as_understood(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out.parquet"
    told = json.loads(marl(monkeypatch, "bars", *given(bars_file(tmp_path)), "--out", str(out), "--json"))
    table = pd.read_parquet(out)
    assert list(table.columns) == ["symbol", "timestamp", "open", "high", "low", "close", "volume"]
    assert str(table["timestamp"].dtype) == "datetime64[us, UTC]"
    original = pd.read_csv(tmp_path / "bars.csv").sort_values(["symbol", "date"], ignore_index=True)
    assert table["timestamp"].dt.strftime("%Y-%m-%d").tolist() == original["date"].tolist()
    pd.testing.assert_frame_equal(table[["close", "high"]], original[["close", "high"]])
    assert told["bars"] == 150
    assert told["columns"] == list(table.columns)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_each_bar_would_know_stands_beside_it(tmp_path: Path, monkeypatch) -> None:
    days = pd.DatetimeIndex(DAYS).strftime("%Y-%m-%d")
    (tmp_path / "vix.csv").write_text("DATE,VIXCLS\n" + "".join(f"{day},{row}\n" for row, day in enumerate(days)))
    (tmp_path / "macro.csv").write_text("date,DFF\n" + "".join(f"{day},{row}\n" for row, day in enumerate(days)))
    (tmp_path / "s.csv").write_text(
        "symbol,date,score\n" + "".join(f"AAPL,{day},{row}\n" for row, day in enumerate(days))
    )
    (tmp_path / "sectors.csv").write_text("symbol,sector\nAAPL,IT\nMSFT,IT\n")
    files = {"vix": "vix.csv", "macro": "macro.csv", "sentiment": "s.csv", "sectors": "sectors.csv"}
    out = tmp_path / "out.parquet"
    options = given(bars_file(tmp_path), **{key: tmp_path / name for key, name in files.items()})
    marl(monkeypatch, "bars", *options, "--out", str(out), "--companions")
    table = pd.read_parquet(out)
    assert list(table.columns[7:]) == ["vix", "macro_DFF", "sentiment", "sector"]
    row = np.tile(np.arange(len(DAYS), dtype=float), 3)
    before = np.where(row > 0, row - 1, np.nan)
    np.testing.assert_array_equal(table["vix"], before)
    np.testing.assert_array_equal(table["macro_DFF"], before)
    np.testing.assert_array_equal(table["sentiment"], np.where(table["symbol"] == "AAPL", row, np.nan))
    assert table["sector"].fillna("").tolist() == ["IT"] * 50 + [""] * 50 + ["IT"] * 50


def test_the_profile_that_a_check_prints_is_one_that_reads_the_file(tmp_path: Path, monkeypatch) -> None:
    path = bars_file(tmp_path, ("AAPL", "MSFT", "000001"))
    options = given(path, universe='["AAPL","MSFT","000001","TRUE"]', benchmark="MSFT")
    told = json.loads(marl(monkeypatch, "check", str(path), *options, "--json"))
    (tmp_path / "my.yaml").write_text(told["profile"])
    with parameters(ROOT, str(tmp_path / "my.yaml"), [], tmp_path) as params:
        assert params.data.path.endswith("bars.csv")
        assert Path(params.data.universe).read_text().split() == ["AAPL", "MSFT", "000001", "TRUE"]
        assert params.data.timezone == "America/New_York"
    again = json.loads(marl(monkeypatch, "check", "--profile", str(tmp_path / "my.yaml"), "--json"))
    assert again["profile"] == told["profile"]
    assert again["totals"] == told["totals"]
    assert any("1 of 4 symbols are not among the bars (TRUE)" in note for note in told["notes"])
    assert "benchmark: MSFT" in told["profile"]
    assert load_params(ROOT / "params.yaml").data.path != str(path), "a check writes nothing"


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("sectors", "symbol,sector\naapl,IT\nmsft,IT\n", "none of its 2 symbols (aapl, msft) is among the bars"),
        ("sentiment", "symbol,date,score\n$AAPL,2021-03-10,1\n", "'$AAPL' is probably 'AAPL'"),
        ("corporate_actions", "symbol,ex_date,kind,value\nBRK.B,2021-03-10,split,2\n", "'BRK.B' is probably 'BRK-B'"),
        ("membership", "symbol,start,end\nIBM,2020-01-01,\n", "none of its 1 symbols (IBM) is among the bars"),
        ("universe", "symbol\nBRK/B\n", "'BRK/B' is probably 'BRK-B'"),
        ("benchmark", "Date,Close\n2021-01-04,1\n2021-01-05,1\n", "is unknown on"),
        ("macro", "date,CPI\n2020-01-01,1\n2020-02-01,2\n2020-03-01,3\n", "data.availability.macro={CPI: 45D"),
    ],
)
def test_a_companion_that_would_stop_a_run_stops_the_check(
    tmp_path: Path, monkeypatch, key: str, text: str, words: str
) -> None:
    (tmp_path / "companion.csv").write_text(text)
    monkeypatch.chdir(ROOT)
    options = given(bars_file(tmp_path), **{key: tmp_path / "companion.csv"})
    for command in (["check"], ["bars", "--out", str(tmp_path / "out.parquet")]):
        with pytest.raises(UserError) as error:
            CliRunner().invoke(app, ["data", *command, *options], catch_exceptions=False)
        assert words in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out.parquet").exists()


def test_what_covers_a_part_is_told_with_its_dates(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "vix.csv").write_text("date,vix\n2021-01-11,20\n2021-01-12,21\n")
    (tmp_path / "^GSPC.csv").write_text(
        "Date,Close\n" + "".join(f"{day},100\n" for day in pd.DatetimeIndex(DAYS).strftime("%Y-%m-%d"))
    )
    options = given(bars_file(tmp_path), vix=tmp_path / "vix.csv", benchmark=tmp_path / "^GSPC.csv")
    told = json.loads(marl(monkeypatch, "check", *options, "--json"))
    vix = next(note for note in told["notes"] if note.startswith("vix"))
    assert "is known on 5 of 50 bars, 2021-01-12 to 2021-01-19" in vix
    assert any("^GSPC is a price index, without dividends" in note for note in told["notes"])
    assert told["companions"]["benchmark"]["first"] == f"{pd.Timestamp(DAYS[0]):%Y-%m-%d}"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    options = given(bars_file(tmp_path))
    for out, words in (
        (tmp_path / "no" / "x.parquet", "cannot be written"),
        (tmp_path / "x.csv", r"ends in \.parquet"),
    ):
        with pytest.raises(UserError, match=words):
            CliRunner().invoke(app, ["data", "bars", *options, "--out", str(out)], catch_exceptions=False)


def test_members_that_never_are_and_actions_outside_of_the_bars_are_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "m.csv").write_text("symbol,start,end\nAAPL,2020-01-01,\nMSFT,2010-01-01,2015-01-01\n")
    (tmp_path / "a.csv").write_text("symbol,ex_date,kind,value\nAAPL,2019-03-10,split,4:1\n")
    options = given(
        bars_file(tmp_path), membership=tmp_path / "m.csv", corporate_actions=tmp_path / "a.csv", adjustment="none"
    )
    notes = json.loads(marl(monkeypatch, "check", *options, "--json"))["notes"]
    assert any("membership: 2 of 3 symbols of the bars are no member on any day" in note for note in notes)
    assert any("none of the ex-dates (2019-03-10 to 2019-03-10) is among the bars" in note for note in notes)
