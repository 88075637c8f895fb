"""A stage forked from a warm process is the one that `python -m` would start: task, title, threads, current code."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from checkouts import ROOT, environment, full_checkout

from flows.processes import Children, StageFailedError, prepared
from marl_pipeline.pipeline import dag
from marl_pipeline.pipeline.warm import ENVIRONMENT

DAG = """
stages:
  hello:
    cmd: python -m marl_pipeline.stages.hello
    deps: [marl_pipeline/stages/hello.py]
    params: [run.threads, market.limits]
    outs: [hello.txt]
"""

HELLO = """
import os
import torch
from pathlib import Path
from marl_pipeline.pipeline.harness import StageContext, main

WORD = "first"

def run(context: StageContext) -> None:
    title = Path("/proc/self/cmdline").read_text().rstrip("\\0").split("\\0")
    facts = [WORD, str(torch.get_num_threads()), os.environ["OMP_NUM_THREADS"], os.environ["DVC_STAGE"], *title[1:]]
    with context.output("hello.txt") as path:
        path.write_text("\\n".join(facts))

if __name__ == "__main__":
    main(run)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with its own copy of the package and one stage, `hello`."""
    full_checkout(tmp_path)
    (tmp_path / "dvc.yaml").write_text(DAG)
    (tmp_path / "marl_pipeline" / "stages" / "hello.py").write_text(HELLO)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_the_task_of_a_run_is_the_one_a_stage_finds_by_itself(root: Path) -> None:
    survey = dag.survey(root)
    with dag._repo(root) as repo:
        (node,) = repo.index.stages
        task = survey.task(node)
    assert task == dag.resolve(["marl_pipeline.stages.hello"], root)
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("threads: 1", "threads: 2"))
    with dag._repo(root) as repo:
        (node,) = repo.index.stages
        assert survey.task(node) is None


@pytest.mark.slow
def test_a_forked_stage_has_the_title_environment_and_threads_of_one_started_by_dvc(root: Path) -> None:
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("threads: 1", "threads: 2"))
    with prepared(root) as ready:
        assert Children(ready, 1, {}).reproduce("hello", lambda: None, print) == "ran"
    forked, locked = (root / "hello.txt").read_text(), (root / "dvc.lock").read_text()
    assert forked.splitlines() == ["first", "2", "2", "hello", "-m", "marl_pipeline.stages.hello"]
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache"]
    subprocess.run(command, cwd=root, env=environment(root), check=True)
    assert (root / "hello.txt").read_text() == forked
    assert (root / "dvc.lock").read_text() == locked


@pytest.mark.slow
def test_code_edited_during_a_run_is_not_run_from_memory(root: Path) -> None:
    stage = root / "marl_pipeline" / "stages" / "hello.py"
    with prepared(root) as ready:
        children = Children(ready, 1, {})
        assert children.reproduce("hello", lambda: None, print) == "ran"
        stage.write_text(HELLO.replace("first", "second"))
        assert children.reproduce("hello", lambda: None, print) == "ran"
        assert (root / "hello.txt").read_text().startswith("second")
        stage.write_text("import nothing_of_that_name\n")
        with pytest.raises(StageFailedError, match="hello"):
            children.reproduce("hello", lambda: None, print)


@pytest.mark.slow
def test_nothing_that_a_warm_process_imports_starts_a_thread() -> None:
    code = """
        import os, sys, threading
        from pathlib import Path
        from marl_pipeline.pipeline import warm
        for name in (*warm.DVC, *sys.argv[1:]):
            warm._import(name)
            assert name in sys.modules, name
        assert "torch._dynamo" in sys.modules and "great_expectations" in sys.modules
        assert threading.active_count() == 1
        names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
        names = [name for name in names if name != "jemalloc_bg_thd"]  # of Arrow; prepared for forks
        assert len(names) == 1, names
    """
    modules = dict.fromkeys(stage.module for stage in dag.read(ROOT))
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *modules],
        cwd=ROOT,
        check=True,
        env={**os.environ, **ENVIRONMENT},
    )
