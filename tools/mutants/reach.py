"""Which tests call which functions of the package: traced once per test file and kept until that file changes."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from tools.mutants.faults import PACKAGE, ROOT, Mutant

KEPT = ROOT / ".marl" / "mutants" / "reach"
PREFIX = f"{PACKAGE}/"
COMPILED = ("envs/trading/compiled/kernel/", "envs/trading/compiled/engine.py")
"""Machine code is not traced: who calls the engine reaches its kernel."""


FOLDERS = ("agents", "algos", "evaluation", "data", "diagnostics", "training", "envs")
"""Of tests/: those that call what faults are planted in and start no processes of their own."""
TRACED = 5_000_000
"""Calls and returns of a test that are traced: what it goes on to repeat is known by then."""
SELECTED = "not slow and not learning"
"""Tests of learning are left out: they take long, and known answers should notice what they would."""


def test_files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / "tests" / folder).rglob("test_*.py"))]


def kept_at(path: Path) -> Path:
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return KEPT / f"{path.relative_to(ROOT / 'tests')}.{content}.json"


class Tracer:
    """A pytest plugin: the functions of the package that each test calls, itself or in its fixtures."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.shared: set[str] = set()
        self._known: dict[int, str] = {}
        self._seen: set[int] = set()
        self._codes: list[CodeType] = []
        self._events = 0

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        del argument
        self._events += 1
        if self._events > TRACED:
            sys.setprofile(None)
        if event != "call" or (code := id(frame.f_code)) in self._seen:
            return
        self._seen.add(code)
        if code not in self._known:
            self._codes.append(frame.f_code)  # kept alive, so that its id stays its own
            file, name = frame.f_code.co_filename, frame.f_code.co_qualname
            self._known[code] = f"{file.removeprefix(PREFIX)}:{name}" if file.startswith(PREFIX) else ""

    def _names(self) -> set[str]:
        names = {self._known[code].partition(".<locals>")[0] for code in self._seen}
        self._seen.clear()
        return names - {""}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        self._began, self._events = time.process_time(), 0
        sys.setprofile(self._profile)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            self.shared |= self._names()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self._events = 0
        sys.setprofile(self._profile)
        passed = False
        try:
            result = yield
            passed = True
            return result
        finally:
            sys.setprofile(None)
            seconds = time.process_time() - self._began
            self.tests[item.nodeid] = {"seconds": seconds, "passed": passed, "reached": sorted(self._names())}

    def save(self, path: Path) -> None:
        kept = kept_at(path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.glob(f"{path.name}.*.json"):
            old.unlink()
        kept.write_text(json.dumps({"tests": self.tests, "shared": sorted(self.shared)}))


@dataclass(frozen=True)
class Reach:
    """For each test its seconds of CPU, and for each function the tests that call it.

    What a file's fixtures call is reached by all of its tests, because a fixture may be made for the first of them.
    """

    seconds: Mapping[str, float]
    functions: Mapping[str, frozenset[str]]

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Reach:
        """Tests that failed without a fault prove nothing and are left out."""
        seconds: dict[str, float] = {}
        functions: dict[str, set[str]] = {}
        for path in paths:
            kept = json.loads(kept_at(path).read_text())
            sound = {test: record for test, record in kept["tests"].items() if record["passed"]}
            seconds |= {test: record["seconds"] for test, record in sound.items()}
            for test, record in sound.items():
                for name in [*record["reached"], *kept["shared"]]:
                    functions.setdefault(name, set()).add(test)
        return cls(seconds, {name: frozenset(tests) for name, tests in functions.items()})

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that call the function, or any of the module if the fault is outside of functions.

        Near ones come first, the quicker before the slower.
        """
        if mutant.path.startswith(COMPILED):
            found = self._of_module(COMPILED[1])
        elif mutant.function:
            found = set(self.functions.get(f"{mutant.path}:{mutant.function}", ()))
        else:
            found = self._of_module(mutant.path)
        return sorted(found, key=lambda test: (self.seconds[test] * distance(mutant.path, test), test))

    def _of_module(self, path: str) -> set[str]:
        return {test for name, tests in self.functions.items() if name.startswith(f"{path}:") for test in tests}


def distance(path: str, test: str) -> float:
    """Weighs the seconds of a test: those of the module's own file count least, those of its package less."""
    stem, package = Path(path).stem, path.partition("/")[0]
    if f"test_{stem}.py" in test:
        return 0.1
    return 1.0 if test.startswith(f"tests/{package}/") else 4.0
