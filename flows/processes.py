"""Stages as processes of their own: their lines as they come, their one-line errors, and a clean end on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from marl_pipeline.pipeline import dag
from marl_pipeline.pipeline.reproduction import Job
from marl_pipeline.pipeline.warm import WarmProcess

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
    """A stage ended with an error; the message is the line it printed for the user."""


class InterruptedStageError(Exception):
    """The run is being stopped: this stage was ended, or was not started."""


@dataclass(frozen=True)
class Prepared:
    """What a run works with: the stages as they were when it began, and the warm process that forks theirs."""

    root: Path
    survey: dag.Survey
    warm: WarmProcess


_PREPARED: dict[Path, Prepared] = {}


@contextmanager
def prepared(root: Path) -> Iterator[Prepared]:
    """Reads the stages, and warms a process up for those that may run; inside another such block, that one's.

    The warm process imports while the caller goes on, so begin early.
    """
    key = root.resolve()
    if key in _PREPARED:
        yield _PREPARED[key]
        return
    survey = dag.survey(root)
    needed = _may_run(survey)
    modules = [module for stage in survey.stages if stage.name in needed and (module := stage.module)]
    warm = WarmProcess(root, modules, _environment())
    if modules:
        warm.start()
    _PREPARED[key] = Prepared(root, survey, warm)
    try:
        yield _PREPARED[key]
    finally:
        del _PREPARED[key]
        warm.close()


def _may_run(survey: dag.Survey) -> set[str]:
    """Stages that changed, and those below them."""
    found: set[str] = set()
    for stage in survey.stages:
        if stage.name in survey.changes or found.intersection(stage.upstream):
            found.add(stage.name)
    return found


def _environment() -> dict[str, str]:
    """This process's, with this interpreter's tools first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path}


class Children:
    """The stages of one run: at most `workers` at a time, all ended together."""

    def __init__(self, prepared: Prepared, workers: int, env: Mapping[str, str]) -> None:
        self._prepared = prepared
        self._env = {**_environment(), **env, "MARL_FLOW_PID": str(os.getpid())}
        self._slots = threading.BoundedSemaphore(workers)
        self._running: set[int] = set()
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

    def _run(self, name: str, on_line: Callable[[str], None]) -> tuple[int | None, list[str]]:
        """DVC's exit code, None if its process was killed, and every line."""
        survey = self._prepared.survey
        try:
            module = next(stage.module for stage in survey.stages if stage.name == name)
            group, connection, output = self._prepared.warm.fork(Job(name, self._env, survey), module)
        except ChildProcessError as error:
            raise StageFailedError(f"{name}: {error}") from error
        lines: list[str] = []
        with connection, output:
            with self._lock:
                self._running.add(group)
            if self.stopping:  # the signal came between the check and the start
                self.stop(signal.SIGINT)
            for line in output:
                lines.append(line.rstrip())
                text = line.strip()
                if text and not text.startswith(_CHATTER) and not _EMPTY_FILE.fullmatch(text):
                    on_line(text)
            try:
                code: int | None = connection.recv()
            except (EOFError, ConnectionResetError):
                code = None
            with self._lock:
                self._running.remove(group)
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


def _reason(name: str, code: int | None, lines: list[str]) -> str:
    """The stage's last error line; failing that DVC's; failing that the exit code."""
    for prefix in ("error: ", "ERROR: "):
        for line in reversed(lines):
            if line.startswith(prefix) and not line.startswith("ERROR: failed to reproduce"):
                return line.removeprefix(prefix)
    for line in reversed(lines):
        if line.startswith("ERROR: "):
            return line.removeprefix("ERROR: ")
    end = "was killed" if code is None else f"ended with code {code}"
    return f"{name}: {end}; run again to resume"
