"""Mutation testing itself: which faults are planted, what notices them, and that tests are chosen by reach."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from tools.mutants import faults, report, runs
from tools.mutants.faults import Mutant, mutants_of, sampled
from tools.mutants.reach import Reach
from tools.mutants.runs import End, parts_of

SOURCE = '''"""A module."""

LIMIT = 0.5


class Box:
    width: float = 2.0

    def inside(self, x: float) -> bool:
        """Whether 0 <= x."""
        if not x >= 0.0:
            raise ValueError(f"{x} < 0")
        self.note(x)
        return x < self.width and x != 1


def largest(values: list[float], floor: float = -1.0) -> float:
    def clipped(value: float) -> float:
        return max(value, floor)

    total = 0.0
    total += max(clipped(value) for value in values)
    return total
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(faults, "PACKAGE", tmp_path)
    path = tmp_path / "box.py"
    path.write_text(SOURCE)
    return path


def test_faults_are_small_and_spare_messages_and_annotations(module: Path) -> None:
    found = [(mutant.function, mutant.change) for mutant in mutants_of(module)]
    assert found == [
        ("", "0.5 -> (1.0)"),
        ("", "2.0 -> (4.0)"),
        ("Box.inside", "not x >= 0.0 -> (x >= 0.0)"),
        ("Box.inside", "x >= 0.0 -> (x > 0.0)"),
        ("Box.inside", "0.0 -> (1.0)"),
        ("Box.inside", "self.note(x) -> pass"),
        ("Box.inside", "x < self.width -> (x <= self.width)"),
        ("Box.inside", "x < self.width and x != 1 -> (x < self.width or x != 1)"),
        ("Box.inside", "x != 1 -> (x == 1)"),
        ("Box.inside", "1 -> (2)"),
        ("largest", "-1.0 -> (1.0)"),
        ("largest", "max(value, floor) -> (min(value, floor))"),
        ("largest", "0.0 -> (1.0)"),
        (
            "largest",
            "total += max(clipped(value) for value in values) -> total -= max((clipped(value) for value in values))",
        ),
        (
            "largest",
            "max(clipped(value) for value in values) -> (min((clipped(value) for value in values)))",
        ),
    ]


def test_every_fault_compiles_and_changes_one_place(module: Path) -> None:
    for mutant in mutants_of(module):
        compile(mutant.source(), "box.py", "exec")
        kept = mutant.source().encode()
        assert kept[: mutant.start] == SOURCE.encode()[: mutant.start]
        assert kept.endswith(SOURCE.encode()[mutant.stop :])


def test_explanations_do_not_depend_on_lines(module: Path) -> None:
    before = [mutant.key for mutant in mutants_of(module)]
    module.write_text("# A comment.\n" + SOURCE)
    assert [mutant.key for mutant in mutants_of(module)] == before
    assert len(set(before)) == len(before)


def test_a_sample_takes_from_every_module_and_is_that_of_its_seed(module: Path) -> None:
    other = module.with_name("other.py")
    other.write_text("A = 1\n")
    every = {path: mutants_of(path) for path in (module, other)}
    first = sampled(every, 6, seed=0)
    assert {mutant.path for mutant in first} == {"box.py", "other.py"}
    assert first == sampled(every, 6, seed=0)
    assert first != sampled(every, 6, seed=1)


def mutant_of(path: str, function: str) -> Mutant:
    return Mutant(path, function, 1, 0, 1, "1", "(2)", "x = 1")


def test_the_near_and_the_quick_come_first_and_a_budget_ends_them() -> None:
    seconds = {"tests/algos/test_gae.py::a": 9.0, "tests/algos/test_ppo.py::b": 1.0, "tests/algos/test_ppo.py::c": 2.0,
               "tests/envs/test_x.py::d": 0.5}  # fmt: skip
    reach = Reach(
        seconds, {"algos/common/gae.py:advantages": frozenset(seconds), "algos/common/gae.py:other": frozenset()}
    )
    order = reach.tests_of(mutant_of("algos/common/gae.py", "advantages"))
    assert [test[-1] for test in order] == ["a", "b", "c", "d"]
    assert [[test[-1] for test in part] for part in parts_of(order, reach, 100.0)] == [["a", "b", "c", "d"]]
    assert [[test[-1] for test in part] for part in parts_of(order, reach, 10.5)] == [["a", "b"]]
    assert set(reach.tests_of(mutant_of("algos/common/gae.py", ""))) == set(seconds)
    assert reach.tests_of(mutant_of("algos/common/gae.py", "other")) == []


def ends_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: dict[str, str]) -> dict[str, End]:
    """What becomes of fault `name` when its process does as told: pass, fail, hang, die, or run nothing."""

    def tested(tests: list[str], mutant: Mutant, told: Path) -> None:
        does = work[mutant.path]
        while does == "hang":
            pass
        if does == "die":
            os._exit(3)
        outcome = {"pass": '{"failed": null, "status": 0, "ran": 3}', "fail": '{"failed": "t", "status": 1, "ran": 1}'}
        told.write_text(outcome.get(does, '{"failed": null, "status": 4, "ran": 0}'))

    monkeypatch.setattr(runs, "tested", tested)
    monkeypatch.setattr(runs, "ALLOWED", 1.0)
    reach = Reach({"tests/x.py::t": 0.0}, {f"{name}:f": frozenset({"tests/x.py::t"}) for name in work if name != "far"})
    found: dict[str, End] = {}
    runs.play(
        [mutant_of(name, "f") for name in work], reach, jobs=2, budget=1.0,
        on_end=lambda mutant, end: found.update({mutant.path: end}),
    )  # fmt: skip
    return found


def test_only_a_failing_test_a_crash_or_a_hang_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = {"a": "pass", "b": "fail", "c": "hang", "d": "die", "e": "nothing", "far": "pass"}
    found = ends_of(tmp_path, monkeypatch, work)
    assert {name: end.how for name, end in found.items()} == {
        "a": "survived", "b": "killed", "c": "timeout", "d": "killed", "e": "broken", "far": "unreached",
    }  # fmt: skip
    noticed = {name for name, end in found.items() if end.detected}
    assert noticed == {"b", "c", "d"}


def test_survivors_are_counted_unless_they_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = [
        (mutant_of(f"algos/{n}.py", "f"), End(how, "", 0.1))
        for n, how in enumerate(("killed", "survived", "unreached"))
    ]
    assert "2 survived (66.7%), of which 0 change" in report.summary_line(outcome, 10)
    monkeypatch.setattr(report, "explanations", lambda: {outcome[1][0].key: "It is the same."})
    assert "that leaves 1 (33.3%)" in report.summary_line(outcome, 10)
    page = report.page(outcome, 10, "x")
    assert "| `algos` | 3 | 3 | 1 | 2 | 1 | 33.3% |" in page
    assert "It is the same." in page
    assert "Not explained: a test is missing." in page


def test_a_planted_fault_is_what_is_imported(tmp_path: Path) -> None:
    """In a process of its own: one test of the sizes of an order fails with a fault and passes without."""
    importlib.import_module("marl_pipeline.algos.common.noise")  # as another test of this process may have done
    told = tmp_path / "told.json"
    path = faults.PACKAGE / "algos" / "common" / "noise.py"
    test = ["tests/algos/test_action_codes.py"]
    ends = {}
    for mutant in (None, *[m for m in mutants_of(path) if m.function][:1]):
        os.waitpid(runs.forked(lambda mutant=mutant: runs.tested(test, mutant, told), tmp_path / "log"), 0)
        ends[mutant is None] = '"failed": null' in told.read_text()
    assert ends == {True: True, False: False}
