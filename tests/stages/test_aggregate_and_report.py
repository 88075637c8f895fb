from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from marl_pipeline.config import HierarchyStrategy, RuleStrategy, restrict
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.track_record import WEIGHT
from marl_pipeline.pipeline.harness import StageContext
from marl_pipeline.pipeline.lineage import lineage
from marl_pipeline.pipeline.records import record_folder, save_record
from marl_pipeline.reporting.text import summary_table
from marl_pipeline.stages import aggregate, report
from marl_pipeline.store.dataset import save_dataset
from marl_pipeline.store.models import save_signals
from tests.evaluation.evaluation_samples import params, random_dataset, record_of, signals_of, windows_of

SEEDS = params().run.seeds
STRATEGIES = ("hierarchy", "momentum")
WEIGHTS = {"momentum": np.array([0.1, 0.2, 0.3, 0.0])}
PARAMS = params().model_copy(
    update={
        "strategies": {
            "hierarchy": HierarchyStrategy(kind="hierarchy"),
            "momentum": RuleStrategy(kind="rule", rule="time_series_momentum"),
        }
    }
)
OUTPUTS = tuple(
    f"reports/{name}"
    for name in (
        "equity.parquet",
        "trades.parquet",
        "baselines.parquet",
        "rl_validation_summary.json",
        "rl_validation_summary.md",
        "rl_validation_summary.html",
    )
)

INFO = {
    "benchmark": "", "name": "my_bars.csv", "source": "csv", "frequency": "1Day", "calendar": "XNYS",
    "adjustment": "split",
    "companions": {"vix": {"file": "vix.csv", "rows": 7, "first": "2015-01-02", "last": "2015-01-12", "known": {}}},
    "notes": ["universe: 1 of 4 symbols are not among the bars (META)"],
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository as `walk_forward` leaves it."""
    dataset = random_dataset(900)
    save_dataset(tmp_path / "data/training_data_rl", dataset)
    save_signals(tmp_path / "data/precomputed/sl_signals", signals_of(dataset, np.zeros((900, 4))))
    for seed in SEEDS:
        for window in windows_of(dataset):
            for name in STRATEGIES:
                folder = record_folder(name, window.index, seed, tmp_path / "reports/walk_forward")
                save_record(folder, record_of(dataset, window, seed, WEIGHTS.get(name)))
        master = tmp_path / f"models/rl/master/hierarchy/seed_{seed}"
        master.mkdir(parents=True)
        curves = [{"name": "full/validation_net", "x": [1, 2], "y": [0.1, None]}, {"name": "empty", "x": [], "y": []}]
        (master / "metadata.json").write_text(json.dumps({"curves": curves}))
    rule = {"rule": "stale", "count": 3, "symbols": {"AAA": 3}, "first": "2015-01-02T00:00:00Z", "effect": "hidden"}
    validation = {
        "rules": [rule, {"rule": "jump", "count": 0, "symbols": {}}],
        "totals": {"hidden_bars": 3, "hidden_share": 0.001, "dropped_rows": 0, "unused_share": 0.001},
    }
    (tmp_path / "data/validation_report.json").write_text(json.dumps(validation))
    (tmp_path / "data/companions").mkdir()
    (tmp_path / "data/companions/info.json").write_text(json.dumps(INFO))
    (tmp_path / "reports/trials.jsonl").write_text('{"sharpe": 0.4}\n\n')
    monkeypatch.setattr(report, "lineage", lambda *_: {"data": "0123"})
    return tmp_path


def run_both(root: Path) -> dict[str, Any]:
    sections = ["data.frequency", "data.calendar", "data.adjustment", "spans", "market", "walk_forward", "strategies"]
    declared = ["run.seeds", *sections]
    aggregate.run(StageContext(restrict(PARAMS, declared), root=root))
    report.run(
        StageContext(
            restrict(PARAMS, ["run.profile", "run.seeds", "spans", "walk_forward", "strategies", "report"]), root=root
        )
    )
    summary: dict[str, Any] = json.loads((root / "reports/rl_validation_summary.json").read_text())
    return summary


def test_records_become_a_track_record_and_a_decision(root: Path) -> None:
    summary = run_both(root)
    equity = pd.read_parquet(root / "reports/equity.parquet")
    assert sorted(equity["seed"].unique()) == sorted(SEEDS)
    assert {"window", "bar", "timestamp", "equity", f"{WEIGHT}S00"} <= set(equity.columns)
    trades = pd.read_parquet(root / "reports/trades.parquet")
    assert set(trades["seed"]) == set(SEEDS)
    assert str(trades["timestamp"].dtype) == str(equity["timestamp"].dtype) == "datetime64[us, UTC]"
    assert trades["price_traded"].isna().all(), "prices adjusted for dividends do not tell what was traded"
    assert len(pd.read_parquet(root / "reports/corporate_events.parquet")) == 0
    assert list(equity["strategy"].unique()) == list(trades["strategy"].unique()) == list(STRATEGIES)
    baselines = pd.read_parquet(root / "reports/baselines.parquet")
    assert set(baselines["name"]) == set(summary["baselines"])
    assert summary["statistics"]["trials"] == 3, "one of the file, two strategies"
    assert summary["lineage"] == {"data": "0123", "seeds": ", ".join(map(str, SEEDS))}
    assert summary["data"]["quality"]["findings"] == {"stale": 3}
    page = (root / "reports/rl_validation_summary.html").read_text()
    assert "Master: full: validation net" in page
    assert "3 bars (0.10%)" in page
    assert (root / "reports/rl_validation_summary.md").read_text().startswith(f"# {summary['decision']}")


def test_the_gates_are_applied_to_the_primary_strategy_and_the_others_stand_beside_it(root: Path) -> None:
    summary = run_both(root)
    assert summary["primary"] == "hierarchy"
    strategies = summary["strategies"]
    assert {name: part["kind"] for name, part in strategies.items()} == {"hierarchy": "hierarchy", "momentum": "rule"}
    for part in strategies.values():
        assert set(part["excess_sharpe"]) == {"value", "low", "high"}
        assert part["excess_sharpe"]["low"] <= part["excess_sharpe"]["value"] <= part["excess_sharpe"]["high"]
        equal = summary["baselines"]["equal_weight"]["sharpe"]
        assert part["excess_sharpe"]["value"] == pytest.approx(part["metrics"]["sharpe"] - equal)
    assert strategies["hierarchy"]["metrics"] == summary["policy"]
    assert strategies["hierarchy"]["against_primary"] is None
    versus = strategies["momentum"]["metrics"]["sharpe"] - summary["policy"]["sharpe"]
    assert strategies["momentum"]["against_primary"]["value"] == pytest.approx(versus)
    assert [row["seed"] for row in summary["seeds"]] == list(SEEDS)
    fills = pd.read_parquet(root / "reports/trades.parquet")
    assert summary["test"]["fills"] == (fills["strategy"] == "hierarchy").sum() < len(fills)
    page = (root / "reports/rl_validation_summary.html").read_text()
    assert page.count("Strategies side by side") == 2, "a table and a picture"
    other = PARAMS.model_copy(update={"report": PARAMS.report.model_copy(update={"primary": "momentum"})})
    report.run(StageContext(other, root=root))
    turned = json.loads((root / "reports/rl_validation_summary.json").read_text())
    assert turned["policy"] == strategies["momentum"]["metrics"]
    assert turned["strategies"]["hierarchy"]["against_primary"]["value"] == pytest.approx(-versus)


def test_the_same_records_give_the_same_bytes(root: Path) -> None:
    hashes = []
    for _ in range(2):
        run_both(root)
        hashes.append([hashlib.sha256((root / name).read_bytes()).hexdigest() for name in OUTPUTS])
    assert hashes[0] == hashes[1]


def test_records_of_seeds_and_windows_that_are_not_asked_for_do_not_count(root: Path) -> None:
    before = run_both(root)
    folder = record_folder("hierarchy", 7, 99, root / "reports/walk_forward")
    dataset = random_dataset(900)
    save_record(folder, record_of(dataset, windows_of(dataset)[0], 99))
    assert run_both(root) == before


def test_a_missing_record_and_a_broken_trial_are_reported_in_one_line(root: Path) -> None:
    (root / "reports/trials.jsonl").write_text('{"sharpe": 0.4}\n{oops\n')
    with pytest.raises(UserError, match=r"trials.jsonl line 2"):
        run_both(root)
    (record_folder("momentum", 1, SEEDS[0], root / "reports/walk_forward") / "equity.parquet").unlink()
    with pytest.raises(UserError, match="no walk-forward record"):
        run_both(root)


DAG = """
stages:
  ingest:
    cmd: echo 1
    deps: [marl_pipeline/a.py]
    params: [data]
    outs: [data/historical]
  train:
    cmd: echo 2
    deps: [data/historical, marl_pipeline/b.py]
    params: [rate]
    outs: [models/rl]
  report:
    cmd: echo 3
    deps: [models/rl, marl_pipeline/c.py]
    outs: [reports/out]
  aside:
    cmd: echo 4
    deps: [marl_pipeline/d.py]
    outs: [reports/aside]
"""


def digest(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def entry(path: str, content: str) -> dict[str, str]:
    return {"path": path, "hash": "md5", "md5": digest(content)}


LOCK: dict[str, Any] = {
    "ingest": {
        "cmd": "echo 1",
        "deps": [entry("marl_pipeline/a.py", "a1")],
        "params": {"params.yaml": {"data": {"path": "x"}}},
        "outs": [entry("data/historical", "h1")],
    },
    "train": {
        "cmd": "echo 2",
        "deps": [entry("data/historical", "h1"), entry("marl_pipeline/b.py", "b1")],
        "params": {"params.yaml": {"rate": 1}},
        "outs": [entry("models/rl", "m1")],
    },
    "train@5": {"cmd": "echo 5", "deps": [], "outs": [entry("models/rl/old", "o1")]},
}


def hashes_of(root: Path, lock: dict[str, Any]) -> dict[str, str | None]:
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": lock}))
    return lineage("report", root)


def test_lineage_follows_what_was_upstream_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)

    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "dvc.yaml").write_text(DAG)
    (tmp_path / "params.yaml").write_text("data: {path: x}\nrate: 1\n")
    (tmp_path / "marl_pipeline").mkdir()
    for name in "abcd":
        (tmp_path / f"marl_pipeline/{name}.py").write_text(name)
    for name in ("data/historical", "models/rl"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
    assert set(lineage("report", tmp_path).values()) == {None}
    base = hashes_of(tmp_path, LOCK)
    assert None not in {base[name] for name in ("data", "models", "params", "code")}

    def changed(edit: Any) -> set[str]:
        lock = json.loads(json.dumps(LOCK))
        edit(lock)
        return {name for name, value in hashes_of(tmp_path, lock).items() if value != base[name]}

    assert changed(lambda lock: lock["train"]["deps"][1].update(md5=digest("b2"))) == {"code"}
    assert changed(lambda lock: lock["train"]["params"]["params.yaml"].update(rate=2)) == {"params"}
    assert changed(lambda lock: lock["train"]["outs"][0].update(md5=digest("m2"))) == {"models"}
    assert changed(lambda lock: lock["ingest"]["outs"][0].update(md5=digest("h2"))) == {"data"}
    assert changed(lambda lock: lock.pop("train@5")) == set()
    (tmp_path / "marl_pipeline/d.py").write_text("other")
    assert changed(lambda lock: None) == set()
    (tmp_path / "marl_pipeline/c.py").write_text("other")
    assert changed(lambda lock: None) == {"code"}


def test_the_report_names_what_was_read_and_what_had_to_be_said_of_it(root: Path) -> None:
    summary = run_both(root)
    assert summary["data"]["inputs"]["profile"] == "quickstart"
    lines = (
        "Data set my_bars.csv (source csv), profile quickstart: 1Day bars, calendar XNYS, prices adjusted for splits",
        "Vix: vix.csv; 7 rows; 2015-01-02 to 2015-01-12.",
        "Membership: none given",
        "universe: 1 of 4 symbols are not among the bars (META)",
    )
    for suffix in (".md", ".html"):
        text = (root / f"reports/rl_validation_summary{suffix}").read_text()
        for line in lines:
            assert line in text
    screen = io.StringIO()
    Console(file=screen, width=200).print(summary_table(summary))
    assert "Note: universe: 1 of 4 symbols are not among the bars (META)" in screen.getvalue()
