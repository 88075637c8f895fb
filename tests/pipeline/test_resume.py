"""`kill -9` in the middle of every training stage, then again: the same bytes as an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from marl_pipeline.overlay import merge, write
from marl_pipeline.stages import dag
from tests.pipeline.checkout import ENVIRONMENT, call, fresh, out_hashes

TRAINS = ("sl_signals", "pretrain_encoder", "train_symbol_agents", "train_master", "fine_tune", "walk_forward")

LONGER = (
    "run.seeds=[0]",
    "sl_signals.epochs=6",
    "pretrain_encoder.steps=120",
    "train_master.iterations=25",
    "fine_tune.iterations=25",
    "walk_forward.tune_iterations=25",
)
"""Long enough to be caught in the act."""


def prepared(folder: Path) -> Path:
    fresh(folder)
    write(folder, merge(folder, "smoke", LONGER, cwd=folder))
    return folder


def kill_in(folder: Path, stage: str) -> bool:
    """Starts `dvc repro` and kills it, children and all, once `stage` has left a checkpoint; whether it did."""
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=folder, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL
    )
    checkpoints = folder / ".marl" / "checkpoints" / stage
    while process.poll() is None:
        if any(checkpoints.rglob("state.pt")):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    assert process.returncode == 0
    return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_stages_resume_to_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    undisturbed = prepared(tmp_path / "undisturbed")
    call(undisturbed, "dvc", "repro")

    killed = prepared(tmp_path / "killed")
    names = [stage.name for stage in dag.read(killed) if stage.group in TRAINS]
    caught = [name for name in names if kill_in(killed, name)]
    assert caught == names, "every training stage was killed after its first checkpoint"
    call(killed, "dvc", "repro")
    assert out_hashes(killed) == out_hashes(undisturbed)
