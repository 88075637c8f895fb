"""What must hold of a finished run in the working directory, whatever its verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd

from marl_pipeline.config import load_params
from marl_pipeline.pipeline import dag


def test_nothing_is_left_to_run() -> None:
    assert dag.changes() == {}


def test_the_report_decides_and_says_why() -> None:
    summary = json.loads(Path("reports/rl_validation_summary.json").read_text())
    assert summary["decision"] in {"GO", "NO-GO"}
    assert summary["reasons"]
    assert summary["gates"]
    assert (summary["decision"] == "GO") == all(gate["passed"] for gate in summary["gates"])
    assert math.isfinite(summary["policy"]["sharpe"])


def test_equity_and_fills_are_recorded_for_every_seed() -> None:
    equity, trades = pd.read_parquet("reports/equity.parquet"), pd.read_parquet("reports/trades.parquet")
    assert set(equity["seed"]) == set(load_params().run.seeds)
    assert (equity["equity"] > 0).all()
    assert len(trades) > 0
