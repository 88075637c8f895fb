"""The command line: quick to answer, one line for a mistake, JSON that is JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from checkouts import environment, marl, small_checkout

from marl_pipeline.cli import main as cli
from marl_pipeline.pipeline import dag
from marl_pipeline.pipeline.plan import longest, steps


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkout(tmp_path_factory.mktemp("checkout"))


def test_help_names_every_command_and_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys, marl_pipeline.cli.main\n"
        "heavy = {'torch', 'pandas', 'mlflow', 'prefect', 'dvc', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment(root), check=True)
    done = marl(root, "--help")
    assert done.returncode == 0
    shown = re.findall(r"^. (\w+) +\w", done.stdout.partition("Commands")[2], re.MULTILINE)
    assert shown[:3] == ["run", "train", "evaluate"]
    assert {"report", "data", "env", "open", "schedule"} <= set(shown)
    assert "serve" not in shown, "the name is kept for serving models"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "-S", "run.worker=1"), "unknown parameter 'run.worker'; did you mean 'workers'"),
        (("run", "--profile", "nope"), "--profile nope: neither a file nor one of the profiles"),
        (("run", "-S", "data.path=nowhere.csv"), "no such file or folder: nowhere.csv"),
        (("report",), "no report yet; run `marl run` first"),
        (("open", "report"), "no report yet; run `marl run` first"),
        (("data", "check", "nowhere.csv"), "nowhere.csv"),
        (("env", "monitor", "nowhere.parquet"), "nowhere.parquet: no such file; make one with `marl env record"),
        (("env", "record", "--out", "x.parquet", "--policy", "nobody"), "--policy nobody: neither one of random"),
        (("env", "calibrate"), "run the stage build_features first"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_exit_code_2(
    root: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = (root / "params.yaml").read_bytes()
    done = marl(root, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (root / "params.yaml").read_bytes() == before


def test_an_interruption_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    app = typer.Typer()
    app.command()(interrupted)
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["marl"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert "interrupted; run again to resume" in capsys.readouterr().err


def test_outside_the_repository_it_says_where_to_go(tmp_path: Path) -> None:
    done = marl(tmp_path, "run")
    assert done.returncode == 2
    assert "no dvc.yaml here or above" in done.stderr


def test_a_dry_run_says_what_why_and_how_long_and_changes_nothing(root: Path) -> None:
    before = (root / "params.yaml").read_bytes()
    done = marl(root, "run", "--dry-run", "--json", "-S", "run.seeds=[4]")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [step["name"] for step in plan["stages"]] == ["make@4", "join"]
    assert plan["stages"][0]["reasons"] == ["never run"]
    assert plan["stages"][1]["after"] == ["make@4"]
    assert plan["seconds_of_work"] > 0
    assert (root / "params.yaml").read_bytes() == before
    assert "2 of 2 stages would run" not in marl(root, "run", "--dry-run").stdout  # without the override: 3 of 3


def test_the_plan_tells_the_parameter_that_changed_from_what_to_what(root: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, env=environment(root), check=True, capture_output=True
    )
    done = marl(root, "run", "--dry-run", "--json")
    assert [step["runs"] for step in json.loads(done.stdout)["stages"]] == [False, False, False]
    done = marl(root, "run", "--dry-run", "--json", "-S", "market.limits.position=0.15")
    steps_found = json.loads(done.stdout)["stages"]
    assert steps_found[0]["reasons"] == ["market.limits.position: 0.2 -> 0.15"]
    assert steps_found[2]["reasons"] == []
    assert steps_found[2]["after"] == ["make@0", "make@1"]
    (root / "bars.txt").write_text("4 5")
    reasons = json.loads(marl(root, "run", "--dry-run", "--json").stdout)["stages"][0]["reasons"]
    assert reasons == ["bars.txt changed"]


def test_the_smoke_test_reports_invariants_and_components(root: Path) -> None:
    done = marl(root, "env", "smoke", "--steps", "64", "--reward", "guide_v3_2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"]
    assert found["source"] == "synthetic"
    assert [mode["mode"] for mode in found["modes"]] == ["accounts", "portfolio"]
    assert set(found["modes"][0]["violations"].values()) == {0}
    assert found["modes"][0]["components"]["symbols"]["diversification"] > 0


def test_the_balance_of_a_reward_is_printed_and_drawn(root: Path) -> None:
    done = marl(root, "env", "rewards", "--episodes", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [study["policy"] for study in found["policies"]] == ["random", "hold", "buy_and_hold"]
    assert len(found["policies"][0]["components"]) == 7
    assert Path(found["picture"]).read_bytes().startswith(b"<?xml")
    assert Path(found["picture"]) == root / "reports" / "reward_components.svg"


def test_recorded_episodes_are_monitored_and_studied(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "episodes.parquet"
    asked = ("--episodes", "2", "--steps", "6", "--reward", "guide_v3_2", "--json")
    done = marl(root, "env", "record", "--out", str(file), *asked)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["episodes"] == 2
    done = marl(root, "env", "monitor", str(file), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["page"] == str(tmp_path / "episodes.html")
    assert Path(found["page"]).read_text().startswith("<!doctype html>")
    assert sum(found["actions"]["taken"].values()) == pytest.approx(1.0)
    done = marl(root, "env", "rewards", str(file), "--out", str(tmp_path / "a.svg"), "--json")
    assert done.returncode == 0, done.stderr
    (study,) = json.loads(done.stdout)["policies"]
    assert (study["policy"], study["episodes"], study["steps"]) == ("random", 2, 6)


def test_the_gap_of_a_reward_is_printed(root: Path) -> None:
    done = marl(root, "env", "gap", "--horizon", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = {(market["reward"], market["market"]): market for market in json.loads(done.stdout)["markets"]}
    assert found["guide_v3_2", "constant"]["gap"] > 1e-3
    assert abs(found["net_shaped", "constant"]["gap"]) < 1e-7


def stage(name: str, *upstream: str) -> dag.Stage:
    return dag.Stage(name, "python -m x", (), (), (), upstream)


def test_estimates_come_from_the_last_run_then_from_kin_then_from_a_guess() -> None:
    stages = [stage("fit@0"), stage("fit@1"), stage("join", "fit@0", "fit@1"), stage("other")]
    found = steps(stages, {name.name: ["x"] for name in stages}, {"fit@0": 10.0, "join": 4.0})
    assert [(step.seconds, step.basis) for step in found[:3]] == [
        (10.0, "last run"),
        (10.0, "last run"),
        (4.0, "last run"),
    ]
    assert found[3].basis == "guess"
    assert longest(found[:3]) == 14.0
