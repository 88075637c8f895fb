"""The flow is dvc.yaml: one task run per stage, in its order, stopping what depends on a failure."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from checkouts import environment, small_checkout, wait_for
from ruamel.yaml import YAML

from marl_pipeline.config import load_params
from marl_pipeline.pipeline import dag

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_checkout(tmp_path)


def script(root: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in the checkout after Prefect was prepared for it."""
    head = """
        from pathlib import Path
        from flows.environment import prepare
        prepare(Path())
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body)],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


RUN = """
    from flows.run import run_flow
    from marl_pipeline.errors import UserError
    try:
        run_flow()
    except UserError as error:
        print(f"reported: {error}")
"""

LIST = """
    import asyncio, json
    from prefect.client.orchestration import get_client

    async def read():
        async with get_client() as client:
            return await client.read_task_runs(limit=200), await client.read_flow_runs()

    tasks, flows = asyncio.run(read())
    print(json.dumps([{t.name: t.state_name for t in tasks}, [f.state_name for f in flows]]))
"""


def states(root: Path) -> tuple[dict[str, str], list[str]]:
    tasks, flows = json.loads(script(root, LIST).stdout.splitlines()[-1])
    return tasks, flows


def test_one_task_run_per_stage_of_dvc_yaml_and_nothing_else(root: Path) -> None:
    done = script(root, RUN)
    assert done.returncode == 0, done.stderr
    assert (root / "joined.txt").read_text() == "1 2 3"
    tasks, flows = states(root)
    assert tasks == {stage.name: "Completed" for stage in dag.read(root)}
    assert flows == ["Completed"]
    assert dag.changes(root) == {}
    again = script(root, RUN)
    assert again.stderr.count("up to date") == 3
    assert "working on" not in again.stderr


def test_a_failure_stops_what_depends_on_it_and_lets_the_rest_finish(root: Path) -> None:
    (root / "fail_1").touch()
    done = script(root, RUN)
    assert "reported: make: bars.csv: column 'close' is missing" in done.stdout
    assert "Traceback" not in done.stderr
    assert (root / "copies" / "0.txt").exists()
    assert not (root / "joined.txt").exists()
    tasks, flows = states(root)
    assert tasks == {"make@0": "Completed", "make@1": "Failed", "join": "NotReady"}
    assert flows == ["Failed"]


def test_a_run_with_overrides_works_in_its_own_worktree(root: Path) -> None:
    before = (root / "params.yaml").read_bytes()
    body = """
        from flows.retrain import retrain
        print("in", retrain(overrides={"run.seeds": [3], "market": {"limits": {"position": 0.1}}}))
    """
    done = script(root, body)
    assert done.returncode == 0, done.stderr
    tree = Path(done.stdout.splitlines()[-1].removeprefix("in ")).parent
    assert tree.is_relative_to(root / ".marl" / "worktrees")
    assert (tree / "copies" / "3.txt").exists()
    assert load_params(tree / "params.yaml").market.limits.position == 0.1
    assert (root / "params.yaml").read_bytes() == before
    assert not (root / "copies").exists()
    locked = YAML(typ="safe", pure=True).load((tree / "dvc.lock").read_text())["stages"]
    assert sorted(locked) == ["join", "make@3"]


def test_a_killed_run_is_marked_and_its_server_and_stages_end(root: Path) -> None:
    (root / "wait_0").touch()
    (root / "wait_1").touch()
    body = textwrap.dedent("from pathlib import Path\nfrom flows.environment import prepare\nprepare(Path())\n")
    process = subprocess.Popen([sys.executable, "-c", body + textwrap.dedent(RUN)], cwd=root, env=environment(root))
    wait_for(root / "started" / "0.txt", seconds=120)
    process.kill()
    process.wait()
    (root / "wait_0").unlink()
    (root / "wait_1").unlink()
    done = script(root, RUN)
    assert done.returncode == 0, done.stderr
    assert (root / "joined.txt").exists()
    assert sorted(states(root)[1]) == ["Completed", "Crashed"]
    servers = [p for p in psutil.process_iter() if _is_server_of(p, root)]
    assert servers == []


def _is_server_of(process: psutil.Process, root: Path) -> bool:
    try:
        return "uvicorn" in process.cmdline() and process.environ().get("PREFECT_HOME") == str(root / ".prefect")
    except psutil.Error:
        return False
