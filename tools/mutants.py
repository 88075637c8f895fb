"""Mutation testing: plants one small fault after another in the code and counts which ones no test notices.

    python tools/mutants.py                      a sample of 3 faults a module, by seed
    python tools/mutants.py --full               every fault
    python tools/mutants.py --only algos/ppo.py  some modules

Nothing is written into the source: a fault lives in the memory of one process, which runs the fast tests that cover
the module (`COVERED_BY`). Processes are forked from one that has imported the heavy libraries, so a fault costs no more
than its tests. A test that starts processes of its own does not see the fault there.

A fault is killed when a test fails or its tests take `--timeout` seconds. The outcome goes to docs/mutants.md;
survivors are explained in tools/mutants_explained.yaml.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import ModuleType

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "marl_pipeline"
REPORT = ROOT / "docs" / "mutants.md"
OUTCOME = ROOT / ".marl" / "mutants.json"
"""How the faults of the last run ended, for `--survivors`."""
EXPLAINED = Path(__file__).with_name("mutants_explained.yaml")

MODULES = ("algos", "agents", "evaluation", "envs/trading/core", "envs/trading/tensor.py", "envs/trading/env.py",
           "data/panel.py", "data/windows.py", "training/hierarchy.py", "training/callbacks.py")  # fmt: skip
"""What faults are planted in: files and folders of the package."""

LEARNERS = ("tests/algos/test_ppo.py", "tests/algos/test_on_policy.py", "tests/algos/test_mappo.py")
TRADING = ("tests/envs/test_trading_known_answers.py", "tests/envs/test_trading_accounting.py",
           "tests/envs/test_trading_shorts.py", "tests/envs/test_trading_controls.py",
           "tests/envs/test_trading_reference.py", "tests/envs/test_trading_env.py",
           "tests/envs/test_trading_compiled.py", "tests/envs/test_trading_segments.py")  # fmt: skip
VALUES = ("tests/algos/test_losses_off_policy.py", "tests/algos/test_qmix.py", "tests/algos/test_idqn.py")

COVERED_BY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("algos/ppo.py", ("tests/algos/test_losses.py", *LEARNERS)),
    ("algos/mappo.py", ("tests/algos/test_losses.py", *LEARNERS)),
    ("algos/on_policy.py", ("tests/algos/test_losses.py", *LEARNERS, "tests/training/test_hierarchy.py")),
    ("algos/common/gae.py", ("tests/algos/test_gae.py",)),
    ("algos/common/returns.py", ("tests/algos/test_qmix.py",)),
    ("algos/common/replay.py", ("tests/algos/test_replay.py", *VALUES)),
    ("algos/common/prioritised.py", ("tests/algos/test_prioritised.py", "tests/algos/test_idqn.py")),
    ("algos/common/noise.py", ("tests/algos/test_action_codes.py", "tests/algos/test_maddpg.py")),
    ("algos/common/action_codes.py", ("tests/algos/test_action_codes.py", "tests/algos/test_maddpg.py")),
    ("algos/common/decentralised.py", ("tests/algos/test_maddpg.py",)),
    ("algos/maddpg.py", ("tests/algos/test_losses_off_policy.py", "tests/algos/test_maddpg.py")),
    ("algos/idqn.py", ("tests/algos/test_losses_off_policy.py", "tests/algos/test_idqn.py")),
    ("algos/qmix.py", ("tests/algos/test_losses_off_policy.py", "tests/algos/test_qmix.py")),
    ("algos/common/action_values.py", VALUES),
    ("algos/common/value_learning.py", (*VALUES, "tests/algos/test_off_policy.py")),
    ("algos/common/off_policy.py", (*VALUES, "tests/algos/test_off_policy.py")),
    ("algos/common/schedules.py", ("tests/algos",)),
    ("agents/registry.py", ("tests/agents/test_registry.py",)),
    ("algos", ("tests/algos",)),
    ("agents", ("tests/agents", "tests/training/test_hierarchy.py", "tests/scenarios")),
    ("evaluation", ("tests/evaluation", "tests/reporting")),
    ("envs/trading", TRADING),
    ("data/panel.py", ("tests/data/test_panel.py", "tests/data/test_assemble.py")),
    ("data/windows.py", ("tests/data/test_windows.py",)),
    ("training/hierarchy.py", ("tests/training/test_hierarchy.py",)),
    ("training/callbacks.py", ("tests/training/test_loop.py",)),
)
"""Which fast tests cover a module: the first entry whose path it begins with. The quickest come first."""

COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}  # fmt: skip
JOINED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
          ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}  # fmt: skip
NAMED = {"minimum": "maximum", "maximum": "minimum", "amin": "amax", "amax": "amin", "min": "max", "max": "min",
         "argmax": "argmin", "argmin": "argmax", "any": "all", "all": "any", "mean": "sum", "sum": "mean",
         "fmin": "fmax", "fmax": "fmin", "zeros": "ones", "ones": "zeros", "zeros_like": "ones_like",
         "ones_like": "zeros_like", "floor": "ceil", "ceil": "floor"}  # fmt: skip
"""Functions and methods that are easily taken one for the other."""


@dataclass(frozen=True)
class Mutant:
    """One fault: the text from `start` to `stop` of a file becomes `after`."""

    path: str
    line: int
    start: int
    stop: int
    before: str
    after: str

    @property
    def key(self) -> str:
        """What it is known by in the explanations: free of line numbers."""
        return f"{self.path}: {' '.join(self.before.split())} -> {' '.join(self.after.split())}"


class Faults(ast.NodeVisitor):
    """Collects the places of a file where a fault can be planted, and the expression that takes the place of each.

    Annotations, decorators, messages of errors, docstrings and the declarations of settings are left alone.
    """

    def __init__(self) -> None:
        self.found: list[tuple[ast.expr, ast.expr]] = []

    def add(self, node: ast.expr, changed: ast.expr) -> None:
        self.found.append((node, changed))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        return

    def visit_Assert(self, node: ast.Assert) -> None:
        return

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return

    def visit_Compare(self, node: ast.Compare) -> None:
        for index, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[index] = COMPARED[type(operator)]()
            self.add(node, changed)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in JOINED:
            changed = copy.deepcopy(node)
            changed.op = JOINED[type(node.op)]()
            self.add(node, changed)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self.add(node, changed)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self.add(node, copy.deepcopy(node.operand))
        if not isinstance(node.operand, ast.Constant):
            self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.add(node, ast.IfExp(node.test, node.orelse, node.body))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.add(node, ast.Constant(not value))
        elif isinstance(value, int | float):
            self.add(node, ast.Constant(value * 2 if isinstance(value, float) and value else value + 1))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if name in NAMED:
            changed = copy.deepcopy(node)
            if isinstance(changed.func, ast.Attribute):
                changed.func.attr = NAMED[name]
            elif isinstance(changed.func, ast.Name):
                changed.func.id = NAMED[name]
            self.add(node, changed)
        if name == "where" and len(node.args) == 3:
            self.add(node, ast.Call(node.func, [node.args[0], node.args[2], node.args[1]], node.keywords))
        self.generic_visit(node)


def mutants_of(path: Path) -> list[Mutant]:
    """Every fault of a file, in the order of the file."""
    text = path.read_text()
    lines = [0]
    for line in text.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    raw, faults = text.encode(), Faults()
    faults.visit(ast.parse(text))
    found = []
    for node, changed in faults.found:
        start = lines[node.lineno - 1] + node.col_offset
        stop = lines[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        after = f"({ast.unparse(ast.fix_missing_locations(changed))})"
        relative = str(path.relative_to(PACKAGE))
        found.append(Mutant(relative, node.lineno, start, stop, raw[start:stop].decode(), after))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.stop, mutant.after))


def mutated(mutant: Mutant) -> str:
    raw = (PACKAGE / mutant.path).read_bytes()
    return (raw[: mutant.start] + mutant.after.encode() + raw[mutant.stop :]).decode()


def files(only: Sequence[str]) -> Iterator[Path]:
    for name in only or MODULES:
        path = PACKAGE / name
        if not path.exists():
            raise SystemExit(f"--only: marl_pipeline/{name} does not exist")
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def tests_of(path: str) -> tuple[str, ...]:
    for prefix, tests in COVERED_BY:
        if path == prefix or path.startswith(f"{prefix}/"):
            return tuple(test for test in tests if (ROOT / test).exists())
    raise SystemExit(f"tools/mutants.py: no tests are named for {path}; add it to COVERED_BY")


class Planted(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from a changed source and leaves all others to Python."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> object:
        if fullname != self.name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=str(self.path))

    def get_source(self, fullname: str) -> str:
        return self.source

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.path)
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def run_tests(tests: Sequence[str], planted: Planted | None) -> int:
    """Pytest's exit status; in a process of its own, in which nothing of the package was imported."""
    import pytest

    if planted is not None:
        sys.meta_path.insert(0, planted)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    return int(
        pytest.main(
            ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-m", "not slow", "--no-header", *tests]
        )
    )


def start(tests: Sequence[str], mutant: Mutant | None) -> int:
    """Forks; the child runs the tests and exits with their status."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    status = 99
    try:
        planted = None
        if mutant is not None:
            name = f"marl_pipeline.{mutant.path.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")
            planted = Planted(name, PACKAGE / mutant.path, mutated(mutant))
        status = run_tests(tests, planted)
    finally:
        os._exit(status)


def play(work: Sequence[tuple[Mutant | None, tuple[str, ...]]], jobs: int, timeout: float) -> list[tuple[str, float]]:
    """`killed`, `survived` or `timeout`, and the seconds, of each piece of work."""
    outcome: dict[int, tuple[str, float]] = {}
    running: dict[int, tuple[int, float]] = {}
    waiting = list(range(len(work)))[::-1]
    while waiting or running:
        while waiting and len(running) < jobs:
            number = waiting.pop()
            mutant, tests = work[number]
            running[start(tests, mutant)] = (number, time.monotonic())
        for child, (number, began) in list(running.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            seconds = time.monotonic() - began
            if done:
                outcome[number] = ("survived" if os.waitstatus_to_exitcode(status) == 0 else "killed", seconds)
            elif seconds > timeout:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                outcome[number] = ("timeout", seconds)
            else:
                continue
            del running[child]
            mutant = work[number][0]
            if mutant is not None:
                end, change = outcome[number][0], mutant.key.partition(": ")[2]
                print(f"{end:9}{seconds:6.1f} s  {mutant.path}:{mutant.line}  {change}", flush=True)
        time.sleep(0.05)
    return [outcome[number] for number in range(len(work))]


def label(mutant: Mutant) -> str:
    """Tells the faults of one run apart."""
    return f"{mutant.path} {mutant.start} {mutant.stop} {mutant.after}"


def report(sample: Sequence[Mutant], outcome: Sequence[str], total: int, how: str) -> str:
    """docs/mutants.md."""
    explained: dict[str, str] = YAML(typ="safe").load(EXPLAINED.read_text()) or {} if EXPLAINED.exists() else {}
    survivors = [mutant for mutant, end in zip(sample, outcome, strict=True) if end == "survived"]
    equivalent = [m for m in survivors if explained.get(m.key, "").startswith("equivalent")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    open_ = len(survivors) - len(equivalent)
    count = max(len(sample), 1)
    rows = []
    for path in sorted({mutant.path for mutant in sample}):
        ends = [end for mutant, end in zip(sample, outcome, strict=True) if mutant.path == path]
        rows.append(f"| `{path}` | {len(ends)} | {ends.count('killed') + ends.count('timeout')} | "
                    f"{ends.count('survived')} |")  # fmt: skip
    listed = [
        f"- `{m.path}`, line {m.line}: `{' '.join(m.before.split())}` became `{' '.join(m.after.split())}`. "
        f"{explained.get(m.key, 'Not explained yet: a test is missing.')}"
        for m in survivors
    ]
    return "\n".join(
        [
            "# Mutants",
            "",
            "`make mutants` plants small faults in the code one at a time (a comparison, a sign, `min` for `max`, a",
            "constant, the branches of a `where`) and runs the fast tests that cover the module. A fault that no test",
            "notices is a missing test, unless it changes nothing. Made by `tools/mutants.py`; not run in CI.",
            "",
            f"{date.today().isoformat()}, commit {commit.strip()}, {how}: {len(sample)} of {total} faults, "
            f"{len(survivors)} survived ({100 * len(survivors) / count:.1f}%), {len(equivalent)} of these change "
            f"nothing that can be observed, which leaves {open_} ({100 * open_ / count:.1f}%).",
            "",
            "## Survivors",
            "",
            *(listed or ["None."]),
            "",
            "## By module",
            "",
            "| module | faults | killed | survived |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Plants faults in the code and counts those that no test notices.")
    parser.add_argument("--full", action="store_true", help="every fault instead of a sample")
    parser.add_argument("--sample", type=int, default=3, help="faults a module")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", nargs="*", default=[], help="files or folders under marl_pipeline/")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which a fault counts as killed")
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--list", action="store_true", help="names the faults and plants none")
    parser.add_argument("--survivors", action="store_true", help="only the faults that survived the last run again")
    given = parser.parse_args()

    every = {path: mutants_of(path) for path in files(given.only)}
    sample = [
        mutant
        for path, found in every.items()
        for mutant in (
            found
            if given.full or len(found) <= given.sample
            else sorted(
                random.Random(f"{given.seed}/{path.relative_to(PACKAGE)}").sample(found, given.sample),
                key=lambda mutant: mutant.start,
            )
        )
    ]
    total = sum(len(found) for found in every.values())
    if given.list:
        for mutant in sample:
            print(f"{mutant.path}:{mutant.line}  {mutant.key.partition(': ')[2]}")
        return
    os.chdir(ROOT)
    import hypothesis  # noqa: F401  what every test needs is imported once, before the forks
    import pandas  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch

    torch.set_num_threads(1)
    before: dict[str, str] = json.loads(OUTCOME.read_text()) if given.survivors else {}
    again = [mutant for mutant in sample if before.get(label(mutant), "survived") == "survived"]
    work = [(mutant, tests_of(mutant.path)) for mutant in again]
    suites = sorted({tests for _, tests in work})
    broken = [tests for tests, (end, _) in
              zip(suites, play([(None, tests) for tests in suites], given.jobs, 10 * given.timeout), strict=True)
              if end != "survived"]  # fmt: skip
    if broken:
        raise SystemExit(f"these tests fail without any fault: {' '.join(broken[0])}")
    outcome = before | {
        label(mutant): end for mutant, (end, _) in zip(again, play(work, given.jobs, given.timeout), strict=True)
    }
    OUTCOME.parent.mkdir(exist_ok=True)
    OUTCOME.write_text(json.dumps(outcome, indent=1))
    ends = [outcome[label(mutant)] for mutant in sample]
    how = "all faults" if given.full else f"seed {given.seed}, up to {given.sample} faults a module"
    if not given.only:
        given.report.write_text(report(sample, ends, total, how))
    survived = ends.count("survived")
    print(f"{len(sample)} of {total} faults, {survived} survived ({100 * survived / max(len(sample), 1):.1f}%)")


if __name__ == "__main__":
    main()
