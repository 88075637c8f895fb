"""What a stage can rely on: whole outputs or none, one-line errors with exit codes, resuming, its own parameters."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from marl_pipeline.config import load_params
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline import dag
from marl_pipeline.pipeline.harness import StageContext, execute
from marl_pipeline.pipeline.tracking import SPOOL

ROOT = Path(__file__).parents[2]
MODULE = "marl_pipeline.stages.copy"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two stages: `copy` (a matrix over seeds) and `join`, which reads the folder of all copies."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copy(ROOT / ".dvcignore", tmp_path / ".dvcignore")
    shutil.copy(ROOT / "profiles" / "quickstart.yaml", tmp_path / "params.yaml")
    (tmp_path / "bars.txt").write_text("1 2 3")
    (tmp_path / "dvc.yaml").write_text(
        textwrap.dedent(
            """
            stages:
              join:
                cmd: python -m marl_pipeline.stages.join
                deps: [copies]
                params: [spans]
                outs: [joined.txt]
              copy:
                matrix:
                  seed: ${run.seeds}
                cmd: python -m marl_pipeline.stages.copy --seed ${item.seed}
                deps: [bars.txt]
                params: [run.threads, market.limits]
                outs:
                  - copies/seed_${item.seed}
            """
        )
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def run(root: Path, body: Callable[[StageContext], None], module: str = MODULE, *argv: str) -> int:
    return execute(body, module, list(argv or ("--seed", "0")), root, record=False)


def copy(context: StageContext) -> None:
    with context.output(f"copies/seed_{context.item['seed']}") as folder:
        folder.mkdir()
        (folder / "x.txt").write_text("x")


def test_stages_come_upstream_first_with_what_dvc_yaml_says(root: Path) -> None:
    stages = dag.read(root)
    assert [stage.name for stage in stages] == ["copy@0", "copy@1", "join"]
    assert stages[2].upstream == ("copy@0", "copy@1")
    assert stages[0].params == ("run.threads", "market.limits")
    assert stages[0].outs == ("copies/seed_0",)
    assert stages[0].group == "copy"


def test_output_appears_whole(root: Path) -> None:
    assert run(root, copy) == 0
    assert (root / "copies" / "seed_0" / "x.txt").read_text() == "x"
    assert [path.name for path in (root / "copies").iterdir()] == ["seed_0"]


def test_nothing_half_written_is_left_by_an_error(root: Path) -> None:
    def fail(context: StageContext) -> None:
        with context.output("copies/seed_0") as folder:
            folder.mkdir()
            (folder / "x.txt").write_text("half")
            raise UserError("bars.txt: line 3 is not a number")

    assert run(root, fail) == 2
    assert not list((root / "copies").iterdir())


def test_an_output_that_was_promised_and_not_written_is_an_error(root: Path) -> None:
    def forget(context: StageContext) -> None:
        with context.output("copies/seed_0"):
            pass

    assert run(root, forget) == 1


def raising(error: BaseException) -> Callable[[StageContext], None]:
    def body(_context: StageContext) -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("bars.txt: column 'close'\nis missing"), 2, "error: copy@0: bars.txt: column 'close' is missing"),
        (OSError(errno.ENOSPC, "No space", "x"), 3, "error: copy@0: no disk space left (writing x); free some and"),
        (KeyboardInterrupt(), 130, "error: copy@0: interrupted; run again to resume"),
        (ZeroDivisionError("oops"), 1, "error: copy@0: ZeroDivisionError: oops"),
    ],
)
def test_an_error_ends_in_one_line_and_its_exit_code(
    root: Path, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    assert run(root, raising(error)) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(words)
    assert any("Traceback" in line for line in lines) == (code == 1)


def test_a_stage_sees_only_the_parameters_it_declares(root: Path) -> None:
    def peek(context: StageContext) -> None:
        assert context.params.market.limits.position > 0
        _ = context.params.market.impact

    assert run(root, peek) == 1


def test_a_checkpoint_resumes_is_dropped_by_other_inputs_and_removed_by_success(root: Path) -> None:
    seen: list[int] = []

    def train(context: StageContext, until: int = 0) -> None:
        state = context.checkpoint.load() or {"step": 0}
        seen.append(state["step"])
        for step in range(state["step"], 3):
            context.checkpoint.save({"step": step + 1, "weights": torch.ones(2)})
            if step + 1 == until:
                raise KeyboardInterrupt
        copy(context)

    def interrupted(context: StageContext) -> None:
        train(context, until=2)

    assert run(root, interrupted) == 130
    (root / "bars.txt").write_text("other bars")
    assert run(root, interrupted) == 130
    (root / "bars.txt").write_text("1 2 3")
    assert run(root, train) == 0
    assert seen == [0, 0, 2]
    assert not (root / ".marl" / "checkpoints" / "copy@0").exists()
    assert run(root, train) == 0
    assert seen[-1] == 0


def test_a_folder_of_many_stages_is_rid_of_what_other_parameters_left(root: Path) -> None:
    for seed in ("0", "1"):
        assert run(root, copy, MODULE, "--seed", seed) == 0
    (root / "copies" / "seed_7").mkdir()
    (root / "copies" / "seed_7" / "x.txt").write_text("old")

    def join(context: StageContext) -> None:
        with context.output("joined.txt") as path:
            path.write_text(" ".join(sorted(folder.name for folder in (context.root / "copies").iterdir())))

    assert run(root, join, "marl_pipeline.stages.join", "--seed", "0") == 2  # join has no --seed
    assert execute(join, "marl_pipeline.stages.join", [], root, record=False) == 0
    assert (root / "joined.txt").read_text() == "seed_0 seed_1"


def test_an_unknown_item_is_refused_with_those_there_are(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, copy, MODULE, "--seed", "9") == 2
    assert "copy --seed 0" in capsys.readouterr().err


def test_every_run_leaves_a_spool_with_its_end(root: Path) -> None:
    run(root, copy)
    run(root, raising(UserError("x")))
    ends = [(path.read_text().splitlines()[-1]) for path in sorted((root / SPOOL).glob("*/events.jsonl"))]
    assert [("FINISHED" in end, "FAILED" in end) for end in ends] == [(True, False), (False, True)]


def test_the_context_of_tests_needs_nothing_around_it(tmp_path: Path) -> None:
    context = StageContext(load_params(ROOT / "params.yaml"), root=tmp_path)
    context.log_metrics({"loss": 1.0})
    context.set_tags({"a": "b"})
    assert context.checkpoint.load() is None
    with context.output("a/b.txt") as path:
        path.write_text("x")
    assert (tmp_path / "a" / "b.txt").exists()


def test_threads_are_bounded_and_torch_is_asked_for_repeatable_results() -> None:
    code = """
        import os, sys, torch
        from marl_pipeline.pipeline.compute import configure
        configure(1, "cpu")
        assert torch.get_num_threads() == 1 and os.environ["OMP_NUM_THREADS"] == "1"
        assert torch.are_deterministic_algorithms_enabled()
        assert "mlflow" not in sys.modules and "prefect" not in sys.modules
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True, env=environment)
