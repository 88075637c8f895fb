from __future__ import annotations

import functools
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from marl_pipeline.evaluation.baselines import baselines
from marl_pipeline.evaluation.records import Curve
from marl_pipeline.evaluation.summary import TrackRecord, finite, summarise
from marl_pipeline.evaluation.track_record import chain
from marl_pipeline.reporting.canvas import VARIABLES
from marl_pipeline.reporting.page import page
from marl_pipeline.reporting.pictures import curve_picture, drawdown_picture
from marl_pipeline.reporting.text import left_out, markdown, summary_table
from marl_pipeline.reporting.text import written as written_figure
from marl_pipeline.stages.report import track_pictures
from tests.evaluation.evaluation_samples import (
    market,
    params,
    random_dataset,
    record_of,
    signals_of,
    windows_of,
)

CONTRACT = {"decision", "reasons", "gates", "policy", "baselines", "statistics", "windows", "lineage", "seeds"}
REPORT = params().report.model_copy(update={"bootstrap_samples": 200})
LINEAGE = {"data": "abc", "code": None}


@functools.cache
def record(seeds: int = 2, bars: int = 900, bars_per_session: int = 1, several: bool = False) -> TrackRecord:
    dataset = random_dataset(bars, bars_per_session=bars_per_session)
    windows = windows_of(dataset)
    equities, trades = zip(
        *(
            chain([record_of(dataset, window, seed) for window in windows], dataset.panel.symbols, market())
            for seed in range(seeds)
        ),
        strict=True,
    )
    accounts = baselines(dataset, signals_of(dataset, np.zeros((bars, 4))), windows, market())
    named = pd.concat([table.assign(name=name) for name, table in accounts.items()], ignore_index=True)
    names = ["hierarchy", *(["qmix"] if several else [])]
    equity, fills = (
        pd.concat([table.assign(strategy=name) for name in names for table in tables], ignore_index=True)
        for tables in (equities, trades)
    )
    return TrackRecord(
        equity, fills, named, dataset, dict(zip(names, ("hierarchy", "algorithm"), strict=False)), "hierarchy"
    )


@functools.cache
def summary(trials: int = 0) -> dict[str, Any]:
    lines = [{"sharpe": 0.1 * index} for index in range(trials)]
    return summarise(record(), REPORT, trials=lines, lineage=LINEAGE, quality={})


def html() -> str:
    curves = {"seed 0": Curve("net", (1.0, 2.0), (0.1, math.nan)), "seed 1": Curve("net", (1.0,), (0.2,))}
    training = [curve_picture("curve-0", "Master: net <x>", curves)]
    return page(summary(), track_pictures(record(), REPORT), training, [("stale", "3", "1", "2015-01-02", "mask")])


def test_the_summary_has_every_key_of_the_contract_and_is_strict_json() -> None:
    text = json.dumps(summary(), allow_nan=False)
    back = json.loads(text)
    assert set(back) >= CONTRACT
    assert {"name", "value", "threshold", "passed"} <= set(back["gates"][0])
    assert back["decision"] in ("GO", "NO-GO")
    assert back["decision"] == ("GO" if all(gate["passed"] for gate in back["gates"]) else "NO-GO")
    assert list(back["baselines"]) == ["equal_weight", "equal_weight_monthly", "benchmark", "sl_thresholds", "cash"]
    assert [row["seed"] for row in back["seeds"]] == [0, 1]
    assert len(back["windows"]) == 3
    assert back["baselines"]["cash"]["calmar"] is None


def test_the_summary_is_the_same_twice() -> None:
    again = summarise(record(), REPORT, trials=[], lineage=LINEAGE, quality={})
    assert json.dumps(again) == json.dumps(summary())


def test_trials_deflate_and_are_counted() -> None:
    few, many = summary()["statistics"], summary(20)["statistics"]
    assert (few["trials"], many["trials"]) == (1, 21)
    assert many["deflated_sharpe"] < few["deflated_sharpe"]
    assert few["deflated_sharpe"] == pytest.approx(few["probabilistic_sharpe"])


def test_costs_are_reported_by_kind_and_add_up() -> None:
    costs = summary()["costs"]
    parts = ("commission", "slippage", "borrow", "closing")
    assert costs["total"] == pytest.approx(sum(costs[name] for name in parts))
    assert costs["closing"] > 0


def test_hourly_bars_are_annualised_by_trading_day() -> None:
    hourly = record(bars=1200, bars_per_session=3)
    test = summarise(hourly, REPORT, trials=[], lineage={}, quality={})["test"]
    assert test["sessions"] == math.ceil(test["bars"] / 3)


def test_nothing_that_is_not_finite_gets_into_json() -> None:
    assert finite({"a": [np.float64("nan"), math.inf, 1], "b": (np.int64(2), True, "x")}) == {
        "a": [None, None, 1],
        "b": [2, True, "x"],
    }


def test_the_page_has_the_same_bytes_twice() -> None:
    assert html() == html()


class Parser(HTMLParser):
    """Collects what a browser would have to fetch, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.fetched += [tag for name in ("src", "data", "action") if name in values]
        link = values.get("href") or values.get("xlink:href") or "#"
        if tag in ("link", "script", "iframe", "img") or not link.startswith("#"):
            self.fetched.append(tag)
        if "id" in values:
            self.ids.append(str(values["id"]))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_that_fetches_nothing() -> None:
    text = html()
    parser = Parser()
    parser.feed(text)
    assert parser.fetched == []
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert "url(http" not in text
    assert "@import" not in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme:dark" in text


def test_the_page_says_the_decision_and_its_reasons_first_and_escapes_names() -> None:
    text = html()
    first = text.index("</header>")
    assert summary()["decision"] in text[:first]
    from html import escape

    for reason in summary()["reasons"]:
        assert escape(reason) in text[:first]
    assert "&lt;C&gt;" in text
    assert "<C>" not in text
    assert "net <x>" not in text


def test_pictures_take_their_colours_from_the_page() -> None:
    for picture in track_pictures(record(), REPORT):
        assert not re.search(r"#0000[0-9a-f]{2}\b", picture.svg)
        assert "var(--ink)" in picture.svg
        used = {int(k) for k in re.findall(r"var\(--c(\d+)\)", picture.svg)}
        assert used <= {number for _, number in picture.legend} or picture.name == "directives"
    assert len(VARIABLES) == 15


def test_a_picture_keeps_the_deepest_trough_of_a_long_record() -> None:
    equity = np.full(20_000, 100.0)
    equity[12_345] = 40.0
    times = pd.Series(pd.date_range("2010-01-01", periods=20_000, freq="h", unit="us"))
    account = pd.DataFrame({"timestamp": times, "equity": equity})
    assert "60%" in drawdown_picture({"policy": account}, 0.25).svg


def test_a_missing_curve_and_clean_data_are_sentences() -> None:
    text = page(summary(), track_pictures(record(), REPORT), [], [])
    assert "left no training curves" in text
    assert "found nothing" in text


def test_what_was_left_out_is_said() -> None:
    lines = " ".join(left_out(summary()))
    for word in ("closes only", "no volume", "macro", "sentiment"):
        assert word in lines


def test_markdown_tables_have_as_many_cells_as_heads() -> None:
    text = markdown(summary())
    assert text.startswith(f"# {summary()['decision']}\n")
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert "nan" not in text.lower().replace("financ", "")


def test_the_terminal_shows_decision_reasons_and_gates() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table(summary()))
    text = console.export_text()
    assert summary()["decision"] in text
    assert "Deflated Sharpe" in text
    assert "Equal weight" in text


def test_several_strategies_stand_in_one_table_and_one_alone_in_none() -> None:
    beside = record(several=True)
    judged = summarise(beside, REPORT, trials=[], lineage=LINEAGE, quality={})
    text = markdown(judged)
    rows = [line for line in text.partition("## Strategies side by side")[2].splitlines() if line.startswith("| ")]
    assert rows[2].startswith("| hierarchy (primary) | hierarchy |")
    assert rows[3].startswith("| qmix | algorithm |")
    assert "over equal weight (95%)" in rows[0]
    console = Console(width=100, record=True)
    console.print(summary_table(judged))
    assert "qmix" in console.export_text()
    assert "Strategies side by side" not in markdown(summary())
    assert [picture.name for picture in track_pictures(beside, REPORT)][-1] == "strategies"
    written = page(judged, track_pictures(beside, REPORT), [], [])
    assert "Strategies side by side" in written


def test_a_figure_that_rounds_to_zero_has_no_sign() -> None:
    assert written_figure(-0.001, "number") == "0.00"
    assert written_figure(-0.0001, "percent") == "0.0%"
    assert written_figure(-0.01, "number") == "\u22120.01"
