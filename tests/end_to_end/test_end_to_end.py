"""`marl run` on a toy market, as a user runs it: every stage, its records, and the same bytes however it got there."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checkouts import environment, full_checkout, marl, processes_in
from ruamel.yaml import YAML

from marl_pipeline.pipeline import dag

pytestmark = pytest.mark.slow

LONGER = {
    "sl_signals.epochs": 6,
    "pretrain_encoder.steps": 120,
    "train_master.iterations": 25,
    "fine_tune.iterations": 25,
    "walk_forward.tune_iterations": 25,
}
"""Long enough for every learning stage to be caught at work."""

PROFILE = ("run", "--profile", "smoke", *(word for key, value in LONGER.items() for word in ("-S", f"{key}={value}")))
LEARNING = ("sl_signals", "pretrain_encoder", "train_symbol_agents", "train_master", "fine_tune", "walk_forward")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout after one undisturbed run."""
    root = full_checkout(tmp_path_factory.mktemp("finished"))
    done = marl(root, *PROFILE)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "GO" in done.stdout
    assert str(root / "reports" / "rl_validation_summary.html") in done.stdout
    return root


def lock(root: Path) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe", pure=True).load((root / "dvc.lock").read_text())["stages"]
    return stages


def dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_every_output_is_there_and_the_report_decides(finished: Path) -> None:
    for stage in dag.read(finished):
        for out in stage.outs:
            assert (finished / out).exists(), out
    done = marl(finished, "report", "--json")
    assert json.loads(done.stdout)["decision"] in {"GO", "NO-GO"}


def test_nothing_runs_again_by_dvc_or_by_marl(finished: Path) -> None:
    assert dag.changes(finished) == {}
    assert "Running stage" not in dvc(finished, "repro")
    done = marl(finished, "run")
    assert done.returncode == 0
    assert done.stderr.count("up to date") == len(dag.read(finished))


def test_mlflow_has_a_finished_run_of_every_stage_with_its_tags(finished: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{finished / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("marl-pipeline")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert sorted(run.info.run_name for run in runs) == sorted(stage.name for stage in dag.read(finished))
    for run in runs:
        assert run.info.status == "FINISHED"
        tags = run.data.tags
        assert len(tags["git_sha"]) == 40
        assert tags["git_dirty"] == "true"  # the profile was merged into params.yaml
        assert {"stage", "agent_type", "curriculum_stage", "reward_version", "data_hash", "flow_run"} <= set(tags)
        assert run.data.params["run.device"] == "cpu"
    trained = [run for run in runs if run.data.tags["stage"] == "train_symbol_agents"]
    assert {run.data.tags["seed"] for run in trained} == {"0", "1"}
    assert all(run.data.tags["agent_type"] != "none" for run in trained)


def test_one_changed_parameter_runs_its_dependents_only(finished: Path, tmp_path: Path) -> None:
    done = marl(finished, "run", "--dry-run", "--json", "-S", "train_master.iterations=3")
    plan = {step["name"]: step for step in json.loads(done.stdout)["stages"]}
    runs = {name.partition("@")[0] for name, step in plan.items() if step["runs"]}
    assert runs == {"train_master", "fine_tune", "walk_forward", "aggregate", "report"}
    assert plan["train_master@hierarchy-0"]["reasons"] == ["train_master.iterations: 25 -> 3"]


def test_from_scratch_by_dvc_and_killed_in_every_training_stage_the_bytes_are_the_same(
    finished: Path, tmp_path: Path
) -> None:
    """`dvc repro` in a second checkout, the process of each learning stage killed once in its work."""
    root = full_checkout(tmp_path)
    shutil.copy(finished / "params.yaml", root / "params.yaml")
    killed: list[str] = []
    for group in LEARNING:
        name = next(stage.name for stage in dag.read(root) if stage.group == group)
        upstream = dag_upstream(root, name)
        if upstream:
            dvc(root, "repro", *upstream)
        if kill_in_the_middle(root, name):
            killed.append(group)
    dvc(root, "repro")
    assert tuple(killed) == LEARNING, "every learning stage was killed at work"
    assert lock(root) == lock(finished)


def test_a_run_interrupted_in_every_way_ends_in_the_same_bytes_and_leaves_no_process(
    finished: Path, tmp_path: Path
) -> None:
    """`marl run`: the warm process killed, then a stage killed, then Ctrl-C, then the run itself killed."""
    root = full_checkout(tmp_path)
    with running(root) as run:
        wait_for_checkpoint(root, "sl_signals", run)
        for process, words in processes_in(root).items():
            if "marl_pipeline.pipeline.warm" in words:
                process.kill()
        wait_for_checkpoint(root, "train_symbol_agents@hierarchy-0", run)
        assert kill_stage(root, "train_symbol_agents@hierarchy-0")
        assert run.wait() == 2
    with running(root) as run:
        wait_for_output(root, "models/rl/symbol_agents/hierarchy/seed_0", run)
        run.send_signal(signal.SIGINT)
        assert run.wait() == 130
    assert_empty(root)
    with running(root) as run:
        wait_for_output(root, "models/rl/master/hierarchy/seed_0", run)
        run.kill()
        run.wait()
    assert_empty(root)
    done = marl(root, "run")
    assert done.returncode == 0, done.stderr[-4000:]
    assert lock(root) == lock(finished)
    assert_empty(root)


@contextmanager
def running(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`marl run` in a terminal of its own, where Ctrl-C is not ignored."""
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from marl_pipeline.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *PROFILE],
        cwd=root,
        env=environment(root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_checkpoint(root: Path, name: str, run: subprocess.Popen[bytes]) -> None:
    while not any((root / ".marl" / "checkpoints" / name).rglob("state.pt")):
        assert run.poll() is None, f"the run ended before {name} had a checkpoint"
        time.sleep(0.01)


def wait_for_output(root: Path, path: str, run: subprocess.Popen[bytes]) -> None:
    """Until a stage has left what the next one reads."""
    while not (root / path).exists():
        assert run.poll() is None, f"the run ended without {path}"
        time.sleep(0.01)


def assert_empty(root: Path) -> None:
    """No process works in the checkout, after a moment for those that notice that their flow was killed.

    The server of a killed flow is ended by the next one: see tests/flows/test_retrain.py.
    """
    until = time.monotonic() + 60
    while left := [words for words in processes_in(root).values() if "uvicorn" not in words]:
        assert time.monotonic() < until, left
        time.sleep(0.2)


def dag_upstream(root: Path, name: str) -> list[str]:
    return list(next(stage for stage in dag.read(root) if stage.name == name).upstream)


def kill_in_the_middle(root: Path, name: str) -> bool:
    """Starts a stage, kills it (`kill -9`) when its first checkpoint is there; whether that was in time."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", name]
    process = subprocess.Popen(
        command, cwd=root, env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoints = root / ".marl" / "checkpoints" / name
    while process.poll() is None:
        if any(checkpoints.rglob("state.pt")):
            return kill_stage(root, name) and process.wait() != 0
        time.sleep(0.01)
    return False


def kill_stage(root: Path, name: str) -> bool:
    module = f"marl_pipeline.stages.{name.partition('@')[0]}"
    for process, words in processes_in(root).items():
        if words[1:3] == ["-m", module]:
            process.kill()
            return True
    return False
