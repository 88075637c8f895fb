"""Small checkouts that the flows can run: this repository, or two stages of shell-sized work."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]

MAKE = """
import pathlib, sys, time
seed, out = sys.argv[1], pathlib.Path(sys.argv[2])
pathlib.Path("started").mkdir(exist_ok=True)
(pathlib.Path("started") / out.name).touch()
print(f"working on {out}", flush=True)
if pathlib.Path(f"fail_{seed}").exists():
    sys.exit(f"error: make: bars.csv: column 'close' is missing")
while pathlib.Path(f"wait_{seed}").exists():
    time.sleep(0.05)
out.parent.mkdir(exist_ok=True)
out.write_text(pathlib.Path("bars.txt").read_text())
"""

DAG = """
stages:
  make:
    matrix:
      seed: ${run.seeds}
    cmd: python make.py ${item.seed} copies/${item.seed}.txt
    deps:
      - bars.txt
    params: [market.limits]
    outs:
      - copies/${item.seed}.txt
  join:
    cmd: python make.py join joined.txt
    deps:
      - copies
      - bars.txt
    outs:
      - joined.txt
"""


def small_checkout(folder: Path) -> Path:
    """Stages make@0, make@1 and join, which fail or wait while files `fail_<seed>`, `wait_<seed>` exist."""
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copy(ROOT / ".dvcignore", folder / ".dvcignore")
    shutil.copy(ROOT / "profiles" / "quickstart.yaml", folder / "params.yaml")
    (folder / "data").mkdir()
    shutil.copy(ROOT / "data" / "not_set", folder / "data" / "not_set")
    (folder / "bars.txt").write_text("1 2 3")
    (folder / "make.py").write_text(MAKE)
    (folder / "dvc.yaml").write_text(textwrap.dedent(DAG))
    (folder / ".gitignore").write_text("/.marl/\n/.prefect/\n/mlflow.db*\n/copies\n/joined.txt\n/started\n/site\n")
    commit(folder)
    return folder


def full_checkout(folder: Path) -> Path:
    """This repository as it is now, without what runs left behind."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run([*git, "init", "--quiet"], cwd=folder, check=True)
    subprocess.run([*git, "add", "--all"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "as it is"], cwd=folder, check=True)


def environment(folder: Path) -> dict[str, str]:
    """Of a process that works in the checkout: its own records, its own code, this interpreter's tools."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "MARL_"))}
    return {
        **kept,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        "OMP_NUM_THREADS": "1",
    }


def marl(folder: Path, *arguments: str, timeout: float = 1200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "marl_pipeline.cli", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def wait_for(path: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.05)


def processes_in(root: Path) -> dict[psutil.Process, list[str]]:
    """Processes that work in the checkout, and their command lines."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(root.resolve()) and process.status() != psutil.STATUS_ZOMBIE:
                found[process] = process.cmdline()
    return found
