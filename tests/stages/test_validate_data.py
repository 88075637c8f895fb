"""The stage and the check of a single file: what they write, and that they say the same twice."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from marl_pipeline.config import Params, load_params
from marl_pipeline.data.calendar import expected_grid, schedule
from marl_pipeline.data.companions import Companions
from marl_pipeline.data.quality import QualityResult, check, clean
from marl_pipeline.data.quality.suite import run_checkpoint
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.harness import StageContext
from marl_pipeline.stages import validate_data
from marl_pipeline.store.bars import save_bars, save_companions

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture
def bars() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    days = schedule("XNYS").session[8000:8120]
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (3, len(days))), axis=1)).ravel()
    table = pd.DataFrame(
        {
            "symbol": pd.array(np.repeat(["AAA", "BRK.B", "^IDX"], len(days)), dtype="str"),
            "timestamp": pd.DatetimeIndex(np.tile(days, 3)).tz_localize("UTC"),
            "open": close,
            "high": close * 1.01,
            "low": close * 0.99,
            "close": close,
            "volume": rng.lognormal(10.0, 0.2, len(close)),
        }
    )
    table.loc[table["symbol"] == "^IDX", "volume"] = 0.0
    table.loc[30, "close"] = np.nan
    table.loc[200:, ["open", "high", "low", "close"]] *= np.where(table.loc[200:, ["symbol"]] == "BRK.B", 0.5, 1.0)
    return table


def staged(root: Path, bars: pd.DataFrame, params: Params = PARAMS) -> tuple[bytes, bytes]:
    save_bars(root / "data/historical", bars, "1Day")
    save_companions(root / "data/companions", Companions(), {})
    validate_data.run(StageContext(params, root=root))
    return (root / "data/validation_report.json").read_bytes(), (root / "data/quarantine.parquet").read_bytes()


def test_the_stage_writes_report_quarantine_and_data_docs(tmp_path: Path, bars: pd.DataFrame, monkeypatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    first = staged(tmp_path / "a", bars)
    report = json.loads(first[0])
    found = {entry["rule"]: entry for entry in report["rules"] if entry["count"]}
    assert set(found) == {"missing_value", "zero_volume", "split_like", "jump"}
    assert found["split_like"]["symbols"] == {"BRK.B": 1}
    assert found["split_like"]["examples"][0]["timestamp"] == f"{bars['timestamp'][201]:%Y-%m-%dT00:00:00Z}"
    assert found["jump"]["examples"][0]["timestamp"] == f"{bars['timestamp'][200]:%Y-%m-%dT00:00:00Z}"
    assert [entry["rule"] for entry in report["rules"] if "why_not" in entry] == ["off_grid"]
    quarantine = pd.read_parquet(tmp_path / "a/data/quarantine.parquet")
    cleaned = clean(bars, quarantine)
    assert cleaned.index[cleaned["quarantined"]].tolist() == [30, *range(200, 240)]
    pages = {path.name for path in (tmp_path / "a/reports/data_docs").rglob("*.html")}
    assert "index.html" in pages
    assert_offline(tmp_path / "a/reports/data_docs")
    names = [sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a/reports").rglob("*.html"))]
    assert not list(home.rglob("*great*")), "nothing is kept in the home folder"
    assert staged(tmp_path / "b", bars) == first, "the same bars give the same bytes"
    names.append(sorted(str(path.relative_to(tmp_path / "b")) for path in (tmp_path / "b/reports").rglob("*.html")))
    assert names[0] == names[1], "no clock in the names of the pages"


def assert_offline(docs: Path) -> None:
    texts = {page: page.read_text() for page in docs.rglob("*.html")}
    for page, text in texts.items():
        loaded = [tag for tag in re.findall(r"<(?:script|link|img)\b[^>]*>", text) if "//" in tag]
        assert not loaded, (page, loaded)
    index = texts[docs / "index.html"]
    linked = [docs / link for link in re.findall(r'href="([^"]+)"', index)]
    assert linked
    assert all(link.is_file() for link in linked)
    shown = "".join(texts[link] for link in linked)
    assert "AAA" in shown
    assert "close empty" in shown, "findings can be read in the pages"


def test_the_suite_agrees_with_the_rules(bars: pd.DataFrame) -> None:
    def rules(table: pd.DataFrame) -> QualityResult:
        return check(table, calendar="XNYS", frequency="1Day", adjustment="total", params=PARAMS.validate_data)

    verdict = run_checkpoint(bars, rules, PARAMS.validate_data, skip=["off_grid"])
    held = verdict.outcomes
    assert {rule: hits for rule, hits in verdict.counts.items() if hits} == dict(
        rules(bars).findings["rule"].value_counts()
    )
    failed = {name for name, outcome in held.items() if not outcome.success}
    assert failed == {"rule:missing_value", "rule:zero_volume", "rule:split_like", "rule:jump"}
    assert "rule:off_grid" not in held
    assert {"exists:close", "type:timestamp", "rule:jump"} <= set(held)
    severities = {held[f"rule:{rule}"].severity for rule in ("missing_value", "zero_volume")}
    assert severities == {"warning", "info"}


def test_columns_are_expected_too(bars: pd.DataFrame) -> None:
    result = check(bars, calendar="XNYS", frequency="1Day", adjustment="total", params=PARAMS.validate_data)
    verdict = run_checkpoint(bars.assign(close=bars["close"].astype("float32")), lambda _: result, PARAMS.validate_data)
    with pytest.raises(UserError, match="bars: column 'close' holds other values than float64; ingest the bars again"):
        verdict.raise_fatal("bars")


def test_an_error_of_the_rules_is_the_error_of_the_checkpoint(bars: pd.DataFrame) -> None:
    def refuse(table: pd.DataFrame) -> QualityResult:
        raise UserError(f"{len(table)} rows refused")

    with pytest.raises(UserError, match="360 rows refused"):
        run_checkpoint(bars, refuse, PARAMS.validate_data)


@pytest.mark.parametrize("planted", [True, False])
def test_the_checkpoint_decides(tmp_path: Path, bars: pd.DataFrame, monkeypatch, planted: bool) -> None:
    """With a fault, a checkpoint that lets it pass lets the stage pass; without, one that does not stops the stage."""
    from great_expectations import Checkpoint

    answer = Checkpoint.run

    def contrary(self, *args, **named):
        outcome = answer(self, *args, **named)
        for run in outcome.run_results.values():
            for each in run.results:
                if each.expectation_config.meta["key"] == "rule:missing_value":
                    assert each.success is not planted
                    each.success = planted
                    each.result["unexpected_count"] = 0 if planted else 7
        return outcome

    monkeypatch.setattr(Checkpoint, "run", contrary)
    params = failing("missing_value")
    if planted:
        staged(tmp_path, bars, params)
        report = json.loads((tmp_path / "data/validation_report.json").read_text())
        assert {entry["rule"]: entry["count"] for entry in report["rules"]}["missing_value"] == 0
    else:
        bars.loc[30, "close"] = bars.loc[30, "open"]
        with pytest.raises(UserError, match="missing_value: 7 bars of 0 symbols"):
            staged(tmp_path, bars, params)


def failing(rule: str) -> Params:
    severity = {**PARAMS.validate_data.severity, rule: "fail"}
    return PARAMS.model_copy(update={"validate_data": PARAMS.validate_data.model_copy(update={"severity": severity})})


def test_a_rule_of_severity_fail_stops_the_stage_and_leaves_nothing(tmp_path: Path, bars: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="missing_value: 1 bars of 1 symbols, first AAA at"):
        staged(tmp_path, bars, failing("missing_value"))
    assert not (tmp_path / "data/validation_report.json").exists()
    assert not (tmp_path / "data/quarantine.parquet").exists()
    assert (tmp_path / "reports/data_docs/index.html").exists(), "what was found can be looked at"


def reading(file: Path, **data: object) -> Params:
    section = PARAMS.data.model_copy(update={"source": "csv", "path": str(file), **data})
    return PARAMS.model_copy(update={"data": section})


def test_a_file_of_one_symbol_can_be_checked_alone(tmp_path: Path, bars: pd.DataFrame) -> None:
    file = tmp_path / "mine.csv"
    bars[bars["symbol"] == "AAA"].assign(timestamp=lambda t: t["timestamp"].dt.strftime("%Y-%m-%d")).to_csv(
        file, index=False
    )
    outcome = validate_data.check_source(reading(file, timezone="America/New_York"), lambda _: "data: {}\n")
    assert outcome.failed is None
    values = json.loads(json.dumps(outcome.as_json(), allow_nan=False))
    assert {entry["rule"]: entry["count"] for entry in values["rules"] if entry["count"]} == {"missing_value": 1}
    screen = io.StringIO()
    Console(file=screen, width=140).print(outcome.table())
    assert "missing_value" in screen.getvalue()
    assert "Not applied: off_grid" in screen.getvalue()
    assert "one symbol only (AAA): `marl run` needs two or more" in screen.getvalue()


def test_the_check_refuses_symbols_that_the_run_could_not_store(tmp_path: Path, bars: pd.DataFrame) -> None:
    file = tmp_path / "mine.csv"
    names = bars["symbol"].where((bars.index % 2 == 0) | (bars["symbol"] != "AAA"), "aaa")
    bars.assign(symbol=names, timestamp=bars["timestamp"].dt.strftime("%Y-%m-%d")).to_csv(file, index=False)
    with pytest.raises(UserError, match="AAA and aaa differ by case only"):
        validate_data.check_source(reading(file, timezone="America/New_York"), lambda _: "data: {}\n")


def test_the_check_names_the_exchange_whose_days_fit(tmp_path: Path) -> None:
    days = pd.DatetimeIndex(expected_grid("2022-01-03", "2023-12-29", "1Day", "XLON"))
    rows = [f"{day:%Y-%m-%d},VOD.L,{100 + place % 7}\n" for place, day in enumerate(days)]
    file = tmp_path / "mine.csv"
    file.write_text("date,symbol,close\n" + "".join(rows))
    outcome = validate_data.check_source(reading(file, timezone="America/New_York"), lambda _: "data: {}\n")
    screen = io.StringIO()
    Console(file=screen, width=200).print(outcome.table())
    assert "those of XLON fit; is XLON their exchange?" in screen.getvalue()


def test_checking_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv"):
        validate_data.check_source(reading(tmp_path / "nowhere.csv"), lambda _: "")


def test_a_check_says_how_the_file_was_read_and_prints_the_parameters_that_decide_it(tmp_path: Path) -> None:
    file = tmp_path / "AAA.csv"
    file.write_text("Datum;Schluss\n16.01.2024;1.039,55\n17.01.2024;39,68\n")
    outcome = validate_data.check_source(
        reading(file, timezone="America/New_York"),
        lambda read: f"{read.data.number_format} {read.data.date_format} {read.data.stamp}",
    )
    assert outcome.profile == "1.234,56 DMY start"
    assert "AAA.csv: no column is the volume" in outcome.notes
