"""Stages as child processes: their lines as they come, their one-line errors, and a clean end on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

Outcome = Literal["ran", "restored from the cache", "up to date"]

_CHATTER = (
    "Running stage",
    "> python",
    "Updating lock file",
    "Generating lock file",
    "To track the changes with git",
    "git add",
    "To enable auto staging",
    "dvc config core.autostage",
    "Use `dvc push`",
    "ERROR: failed to reproduce",
)
_EMPTY_FILE = re.compile(r"WARNING: '.*' is empty\.")  # an empty reports/trials.jsonl is nothing to warn of
_BUSY = "it is being blocked by"
_BUSY_WAIT, _BUSY_TRIES = 2.0, 150


class StageFailedError(Exception):
    """A stage ended with an error; the message is the line it told the user."""


class InterruptedStageError(Exception):
    """The run is being stopped: this stage was ended, or was not started."""


class Children:
    """The stages of one run: at most `workers` at a time, all ended together."""

    def __init__(self, root: Path, workers: int, env: dict[str, str]) -> None:
        self._root = root
        self._env = {**os.environ, **env, "MARL_FLOW_PID": str(os.getpid())}
        self._env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self._env.get('PATH', '')}"
        self._slots = threading.BoundedSemaphore(workers)
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._lock = threading.Lock()
        self.stopping = False

    def reproduce(self, name: str, on_start: Callable[[], None], on_line: Callable[[str], None]) -> Outcome:
        """Has DVC run one stage if it is out of date.

        Raises:
            StageFailedError: with the stage's own words.
            InterruptedStageError: the run is stopping.
        """
        with self._slots:
            if self.stopping:
                raise InterruptedStageError(name)
            on_start()
            for _ in range(_BUSY_TRIES):
                code, lines = self._run(name, on_line)
                if self.stopping:
                    raise InterruptedStageError(name)
                if code == 0:
                    return _outcome(lines)
                if not any(_BUSY in line for line in lines):
                    raise StageFailedError(_reason(name, code, lines))
                on_line("waits for another process that is using the same files")
                time.sleep(_BUSY_WAIT)
            raise StageFailedError(f"{name}: another process keeps its files busy: {_reason(name, code, lines)}")

    def stop(self, number: int) -> None:
        """Sends a signal to every stage that is running, and starts no more."""
        self.stopping = True
        with self._lock:
            for pid in self._running:
                try:
                    os.killpg(pid, number)
                except ProcessLookupError:
                    continue  # it has just ended by itself

    def _run(self, name: str, on_line: Callable[[str], None]) -> tuple[int, list[str]]:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
        process = subprocess.Popen(
            command,
            cwd=self._root,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        with self._lock:
            self._running[process.pid] = process
        if self.stopping:  # the signal came between the check and the start
            self.stop(signal.SIGINT)
        lines: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            text = line.strip()
            if text and not text.startswith(_CHATTER) and not _EMPTY_FILE.fullmatch(text):
                on_line(text)
        code = process.wait()
        with self._lock:
            del self._running[process.pid]
        return code, lines


@contextmanager
def stopping_on_signals(children: Children) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the stages first; a second one kills them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        children.stop(signal.SIGKILL if children.stopping else signal.SIGINT)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(lines: list[str]) -> Outcome:
    for line in lines:
        if line.startswith("Running stage"):
            return "ran"
        if "is cached - skipping run" in line:
            return "restored from the cache"
    return "up to date"


def _reason(name: str, code: int, lines: list[str]) -> str:
    """The stage's last error line; failing that DVC's; failing that the exit code."""
    for prefix in ("error: ", "ERROR: "):
        for line in reversed(lines):
            if line.startswith(prefix) and not line.startswith("ERROR: failed to reproduce"):
                return line.removeprefix(prefix)
    for line in reversed(lines):
        if line.startswith("ERROR: "):
            return line.removeprefix("ERROR: ")
    return f"{name}: ended with code {code}; run again to resume"
