"""Plants a fault in the memory of a forked process and runs tests there.

Processes are forked from one that has imported the heavy libraries and nothing of the package, so that a fault costs
little more than its tests. Nothing is written into the source. A test that starts processes of its own does not see
the fault there. Hypothesis is derandomised, so that the same fault meets the same examples.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tools.mutants.faults import PACKAGE, Mutant
from tools.mutants.reach import SELECTED, Reach, Tracer

KERNEL = "envs/trading/compiled/"
ALLOWED = 20.0
"""Seconds of CPU that a process may take besides five times what its tests take without a fault."""
ASLEEP = 1800.0
"""Seconds after which one that waits for something is ended."""
FIRST_FILES = 6
"""So many test files are collected in a fault's first process: the others only if it outlives those."""


class Planted(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from a changed source and leaves all others to Python."""

    def __init__(self, mutant: Mutant) -> None:
        dotted = mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self._name, self._path, self._source = f"marl_pipeline.{dotted}", PACKAGE / mutant.path, mutant.source()

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> Any:
        if fullname != self._name:
            return None
        package = self._path.name == "__init__.py"
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=str(self._path), is_package=package)
        if package:
            spec.submodule_search_locations = [str(self._path.parent)]
        return spec

    def get_source(self, fullname: str) -> str:
        return self._source

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)


class Witness:
    """A pytest plugin: runs the tests in the order given and remembers the first that failed."""

    def __init__(self, order: Sequence[str]) -> None:
        self._order = {test: place for place, test in enumerate(order)}
        self.failed: str | None = None
        self.ran = 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.failed is None:
            self.failed = f"{report.nodeid} (import)"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._order.get(item.nodeid, len(self._order)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.ran += report.when == "call"
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def run_pytest(arguments: Sequence[str], plugin: object) -> int:
    """Quietly, with examples of Hypothesis that are the same every time."""
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants", derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],  # a failure is enough: it need not be made small
    )  # fmt: skip
    settings.load_profile("mutants")
    quiet = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "-m", SELECTED]
    return int(pytest.main([*quiet, *arguments], plugins=[plugin]))


def traced(path: Path) -> None:
    """Keeps what the tests of a file reach."""
    tracer = Tracer()
    run_pytest([str(path)], tracer)
    tracer.save(path)


def tested(tests: Sequence[str], mutant: Mutant | None, written: Path) -> None:
    """Writes what happened to `written`: the first test that failed, pytest's exit status and how many tests ran."""
    if mutant is not None:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("marl_pipeline", "tests")]:
            del sys.modules[name]  # what is imported already would hide the fault
        sys.meta_path.insert(0, Planted(mutant))
        if mutant.path.startswith(KERNEL):
            os.environ["NUMBA_CACHE_DIR"] = str(
                written.parent / "numba"
            )  # the machine code kept beside the source is sound
    witness = Witness(tests)
    status = run_pytest(["-x", *tests], witness)
    written.write_text(json.dumps({"failed": witness.failed, "status": status, "ran": witness.ran}))


def forked(work: Callable[[], None], log: Path, seconds: float | None = None) -> int:
    """Starts a process that does the work and ends, at the latest after so many seconds of CPU; its number."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        if seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work()
    finally:
        os._exit(0)


@dataclass(frozen=True)
class End:
    """How a fault ended: `killed` by a test, `timeout`, `survived`, `unreached` by any test, or `broken`: pytest did
    not run what it was asked to."""

    how: str
    by: str
    seconds: float

    @property
    def detected(self) -> bool:
        return self.how in ("killed", "timeout")


@dataclass
class Job:
    """One fault on its way through its tests, which are run in a few processes one after the other."""

    mutant: Mutant
    parts: list[list[str]]
    folder: Path
    child: int = 0
    began: float = 0.0
    started: float = 0.0


def parts_of(tests: Sequence[str], reach: Reach, budget: float) -> list[list[str]]:
    """Tests of about `budget` seconds of CPU: those of the first few files, then the others."""
    order, spent = [], 0.0
    for test in tests:
        spent += reach.seconds[test]
        if order and spent > budget:
            break
        order.append(test)
    first: list[str] = []
    for test in order:
        file = test.partition("::")[0]
        if file in first or len(first) < FIRST_FILES:
            first = first if file in first else [*first, file]
    parts = [[test for test in order if (test.partition("::")[0] in first) == near] for near in (True, False)]
    return [part for part in parts if part]


def play(
    work: Sequence[Mutant], reach: Reach, *, jobs: int, budget: float, on_end: Callable[[Mutant, End], None]
) -> None:
    """Plants the faults one by one, `jobs` at a time; each costs at most about `budget` seconds of tests."""
    waiting, running = list(work)[::-1], list[Job]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            tests = reach.tests_of(mutant)
            if not tests:
                on_end(mutant, End("unreached", "", 0.0))
                continue
            job = Job(mutant, parts_of(tests, reach, budget), Path(tempfile.mkdtemp(prefix="mutant-")))
            job.began = time.monotonic()
            _start(job, reach)
            running.append(job)
        for job in list(running):
            end = _look(job, reach)
            if end is not None:
                running.remove(job)
                shutil.rmtree(job.folder, ignore_errors=True)
                on_end(job.mutant, end)
        time.sleep(0.02)


def _start(job: Job, reach: Reach) -> None:
    tests, written = job.parts.pop(0), job.folder / "outcome.json"
    written.unlink(missing_ok=True)
    compiles = 240.0 if job.mutant.path.startswith(KERNEL) else 0.0
    seconds = ALLOWED + 5.0 * sum(reach.seconds[test] for test in tests) + compiles
    job.started = time.monotonic()
    job.child = forked(lambda: tested(tests, job.mutant, written), job.folder / "log", seconds)


def _look(job: Job, reach: Reach) -> End | None:
    """How it ended, or None while it runs."""
    done, status = os.waitpid(job.child, os.WNOHANG)
    seconds = time.monotonic() - job.began
    if not done:
        if time.monotonic() - job.started < ASLEEP:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.child, signal.SIGKILL)
        os.waitpid(job.child, 0)
        return End("timeout", "", seconds)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        return End("timeout", "", seconds)
    written = job.folder / "outcome.json"
    if not written.exists():  # the process died: a crash is noticed
        return End("killed", "(crash)", seconds)
    outcome = json.loads(written.read_text())
    if outcome["failed"] is not None:
        return End("killed", outcome["failed"], seconds)
    if outcome["status"] != 0:
        return End("broken", f"pytest's status {outcome['status']}", seconds)
    if job.parts:
        _start(job, reach)
        return None
    return End("survived", f"{outcome['ran']} tests in the last process", seconds)


def trace(paths: Sequence[Path], jobs: int) -> None:
    """Traces each test file in a process of its own."""
    waiting, running = list(paths)[::-1], dict[int, Path]()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                path = waiting.pop()
                running[forked(lambda path=path: traced(path), Path(folder) / "log")] = path
            done, _ = os.wait()
            print(f"traced {running.pop(done)}", flush=True)


def fails_without_a_fault(tests: Sequence[str]) -> bool:
    """Whether one of the tests fails on the code as it is: then it has killed nothing."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        written = Path(folder) / "outcome.json"
        os.waitpid(forked(lambda: tested(tests, None, written), Path(folder) / "log"), 0)
        return not written.exists() or json.loads(written.read_text())["status"] != 0
