"""The bench: rows for both modes, peers that are distinguished from absent ones, JSON alone on standard output."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from marl_pipeline.bench.market import Row, as_json, bench_market
from marl_pipeline.config import load_params

ROOT = Path(__file__).resolve().parents[2]
PEERS = {"gym_trading_env": "gym-trading-env", "gym_anytrading": "gym-anytrading", "finrl": "FinRL"}


def test_every_size_is_measured_in_both_modes_and_peers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marl_pipeline.bench.market.BARS", 160)
    params = load_params()
    found = list(bench_market(params.market, params.train_master.directives, sizes=[(4, 3), (1, 1)], seconds=0.02))
    ours = [row for row in found if isinstance(row, Row) and row.system.startswith("marl-pipeline")]
    assert [(row.envs, row.symbols) for row in ours] == [(4, 3), (1, 1), (4, 3)] * 2
    assert sum("dense" in row.system for row in ours) == 2
    assert all(row.symbol_steps_per_s > 0 for row in ours)
    for module, name in PEERS.items():
        peer = next(row for row in found if row.system.startswith(name))
        assert isinstance(peer, Row) == (importlib.util.find_spec(module) is not None), peer
        assert isinstance(peer, Row) or module in peer.reason
    printed = as_json(found)
    assert set(printed["rows"][0]) == {"system", "envs", "symbols", "device", "symbol_steps_per_s"}
    assert len(printed["rows"]) + len(printed["absent"]) == len(found)


def test_a_symbol_step_is_a_symbol_of_an_environment_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from marl_pipeline.bench import market as bench

    moments = iter(range(10_000))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: float(next(moments)))
    steps: list[int] = []
    rate = bench._steps_per_second(steps.append, lambda: None, seconds=5.0)
    assert rate == 8.0  # eight steps between two looks at a clock that moves by one second each
    assert steps == list(range(len(steps)))


@pytest.mark.slow
def test_the_command_prints_json_alone() -> None:
    command = [sys.executable, "-m", "marl_pipeline.cli", "bench", "market", "--json", "--seconds", "0.05"]
    done = subprocess.run([*command, "--size", "8x5"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rows"][0]["envs"] == 8
    wrong = subprocess.run([*command, "--size", "8by5"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr == "error: --size 8by5: must be ENVSxSYMBOLS, such as 128x143\n"
