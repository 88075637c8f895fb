"""Stages as child processes: run once, their own words on failure, a clean end when stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from checkouts import small_checkout, wait_for

from flows.processes import Children, InterruptedStageError, StageFailedError, stopping_on_signals


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return small_checkout(tmp_path)


def reproduce(children: Children, name: str, lines: list[str] | None = None) -> str:
    return children.reproduce(name, lambda: None, (lines if lines is not None else []).append)


def test_a_stage_runs_once_and_tells_only_what_it_said(root: Path) -> None:
    children, lines = Children(root, 2, {}), list[str]()
    assert reproduce(children, "make@0", lines) == "ran"
    assert lines == ["working on copies/0.txt"]
    assert reproduce(children, "make@0") == "up to date"


def test_a_failing_stage_is_told_in_its_own_words(root: Path) -> None:
    (root / "fail_0").touch()
    with pytest.raises(StageFailedError, match=r"^make: bars\.csv: column 'close' is missing$"):
        reproduce(Children(root, 1, {}), "make@0")


def test_a_killed_stage_says_that_running_again_resumes(root: Path) -> None:
    (root / "wait_0").touch()
    children = Children(root, 1, {})
    killer = threading.Thread(target=lambda: (wait_for(root / "started" / "0.txt"), kill_make(root)))
    killer.start()
    with pytest.raises(StageFailedError, match=r"make@0|make\.py"):
        reproduce(children, "make@0")
    killer.join()


def test_stopping_ends_the_running_stage_and_starts_no_other(root: Path) -> None:
    (root / "wait_0").touch()
    children = Children(root, 1, {})
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
    assert reproduce(Children(root, 1, {}), "make@0") == "ran"  # no lock is left behind


def test_stages_that_need_nothing_of_each_other_run_side_by_side(root: Path) -> None:
    for seed in (0, 1):
        (root / f"wait_{seed}").touch()
    children, done = Children(root, 2, {}), list[str]()
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
