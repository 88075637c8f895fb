"""Stages as child processes: run once, their own words on failure, a clean end when stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from checkouts import ROOT, environment, processes_in, small_checkout, wait_for

from flows.processes import Children, InterruptedStageError, StageFailedError, prepared, stopping_on_signals


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with prepared(small_checkout(tmp_path)):
        yield tmp_path


def run_of(root: Path, workers: int = 1) -> Children:
    with prepared(root) as ready:
        return Children(ready, workers, {})


def reproduce(children: Children, name: str, lines: list[str] | None = None) -> str:
    return children.reproduce(name, lambda: None, (lines if lines is not None else []).append)


def test_a_stage_runs_once_and_tells_only_what_it_said(root: Path) -> None:
    children, lines = run_of(root, workers=2), list[str]()
    assert reproduce(children, "make@0", lines) == "ran"
    assert lines == ["working on copies/0.txt"]
    assert reproduce(children, "make@0") == "up to date"


def test_a_failing_stage_is_reported_in_its_own_words(root: Path) -> None:
    (root / "fail_0").touch()
    with pytest.raises(StageFailedError, match=r"^make: bars\.csv: column 'close' is missing$"):
        reproduce(run_of(root), "make@0")


def test_a_killed_stage_says_that_running_again_resumes(root: Path) -> None:
    (root / "wait_0").touch()
    children = run_of(root)
    killer = threading.Thread(target=lambda: (wait_for(root / "started" / "0.txt"), kill_make(root)))
    killer.start()
    with pytest.raises(StageFailedError, match=r"make@0|make\.py"):
        reproduce(children, "make@0")
    killer.join()


def test_stopping_ends_the_running_stage_and_starts_no_other(root: Path) -> None:
    (root / "wait_0").touch()
    children = run_of(root)
    errors: list[BaseException] = []

    def run(name: str) -> None:
        try:
            reproduce(children, name)
        except InterruptedStageError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("make@0", "make@1")]
    with stopping_on_signals(children):  # started in the background, tests and their children would ignore SIGINT
        threads[0].start()
        wait_for(root / "started" / "0.txt")
        threads[1].start()
        begun = time.monotonic()
        children.stop(signal.SIGINT)
        for thread in threads:
            thread.join(timeout=30)
    assert len(errors) == 2
    assert time.monotonic() - begun < 20
    assert not (root / "started" / "1.txt").exists()
    (root / "wait_0").unlink()
    assert reproduce(run_of(root), "make@0") == "ran"  # no lock is left behind


def test_stages_that_need_nothing_of_each_other_run_side_by_side(root: Path) -> None:
    for seed in (0, 1):
        (root / f"wait_{seed}").touch()
    children, done = run_of(root, workers=2), list[str]()
    threads = [
        threading.Thread(target=lambda name=name: done.append(reproduce(children, name)))
        for name in ("make@0", "make@1")
    ]
    for thread in threads:
        thread.start()
    wait_for(root / "started" / "0.txt")
    wait_for(root / "started" / "1.txt")  # both have started and neither has ended
    for seed in (0, 1):
        (root / f"wait_{seed}").unlink()
    for thread in threads:
        thread.join(timeout=60)
    assert done == ["ran", "ran"]


def kill_make(root: Path) -> None:
    """Kills the make.py that works in this checkout."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            here = os.readlink(process / "cwd") == str(root)
        except OSError:
            continue
        if here and b"make.py" in words and words[0].endswith(b"python"):
            os.kill(int(process.name), signal.SIGKILL)


def test_a_stage_goes_on_when_the_warm_process_is_killed_and_the_next_one_gets_another(root: Path) -> None:
    (root / "wait_0").touch()
    children, done = run_of(root), list[str]()
    thread = threading.Thread(target=lambda: done.append(reproduce(children, "make@0")))
    thread.start()
    wait_for(root / "started" / "0.txt")
    (first,) = warm_processes(root)
    first.kill()
    (root / "wait_0").unlink()
    thread.join(timeout=60)
    assert done == ["ran"]
    assert reproduce(children, "make@1") == "ran"
    (second,) = warm_processes(root)
    assert second.pid != first.pid


def test_a_killed_process_of_dvc_is_reported(root: Path) -> None:
    (root / "wait_0").touch()
    children = run_of(root)

    def kill() -> None:
        wait_for(root / "started" / "0.txt")
        for process, words in processes_in(root).items():
            if words[:2] == ["dvc", "--wait-for-lock"]:
                process.kill()
        (root / "wait_0").unlink()  # make.py is no stage of ours: it does not notice by itself

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(StageFailedError, match=r"^make@0: was killed; run again to resume$"):
        reproduce(children, "make@0")
    killer.join()
    assert reproduce(children, "make@0") == "ran"


OWNER = """
import sys
from pathlib import Path
from flows.processes import Children, prepared
with prepared(Path()) as ready:
    Children(ready, 1, {}).reproduce("make@0", lambda: None, print)
"""


def test_no_process_outlives_a_killed_owner(tmp_path: Path) -> None:
    root = small_checkout(tmp_path)
    (root / "wait_0").touch()
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=root, env=environment(root))
    wait_for(root / "started" / "0.txt")
    assert warm_processes(root)
    owner.kill()
    owner.wait()
    (root / "wait_0").unlink()
    until = time.monotonic() + 30
    while left := processes_in(root):
        assert time.monotonic() < until, left
        time.sleep(0.1)


def warm_processes(root: Path) -> list[psutil.Process]:
    """The processes that fork stages."""
    return [process for process, words in processes_in(root).items() if "marl_pipeline.pipeline.warm" in words]
