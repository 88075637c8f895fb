"""Several training runs, one after another in this process or side by side in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from marl_pipeline.errors import UserError
from marl_pipeline.experiments.job import Job
from marl_pipeline.experiments.run import Finished, finished, train_one
from marl_pipeline.pipeline import terminal
from marl_pipeline.pipeline.harness import INTERRUPTED, USER_ERROR
from marl_pipeline.pipeline.tracking import ship_unless_shipped

WORKER = "marl_pipeline.experiments.worker"


def train_all(
    jobs: Sequence[Job], root: Path, out: Path, *, fresh: bool, side_by_side: int, pictures: bool = False
) -> list[Finished]:
    """Trains every job, in their order or `side_by_side` at a time, and ships the records to MLflow; see `train_one`.

    Raises:
        UserError: of the first job that has one; the others are stopped and resume when they are run again.
    """
    try:
        if side_by_side > 1 and len(jobs) > 1:
            return _in_processes(jobs, root, out, fresh, side_by_side, pictures)
        with terminal.progress("train") as show:
            return [train_one(job, root, out, fresh=fresh, on_step=show, pictures=pictures) for job in jobs]
    finally:
        ship_unless_shipped(root)


def _in_processes(
    jobs: Sequence[Job], root: Path, out: Path, fresh: bool, side_by_side: int, pictures: bool
) -> list[Finished]:
    running: set[subprocess.Popen[str]] = set()
    stopping = threading.Event()

    def one(job: Job) -> Finished:
        if stopping.is_set():
            raise KeyboardInterrupt
        threads = str(job.threads)
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        running.add(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        order = {"job": job.model_dump(), "root": str(root), "out": str(out), "fresh": fresh, "pictures": pictures}
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        last = ""
        for line in process.stderr:
            last = line.rstrip() or last
            print(line, end="", file=sys.stderr, flush=True)
        answer = process.stdout.read()
        code = process.wait()
        running.discard(process)
        if code == USER_ERROR:
            raise UserError(last.removeprefix("error: "))
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code != 0:
            raise RuntimeError(f"seed {job.seed}: its process ended with code {code}: {last}")
        done = json.loads(answer)
        return finished(Path(done["folder"]), reused=done["reused"], pictures=[Path(path) for path in done["pictures"]])

    with ThreadPoolExecutor(side_by_side) as pool:
        futures = [pool.submit(one, job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stopping.set()
            for process in tuple(running):
                _stop(process)
    for future in futures:
        error = future.exception()
        if error is not None and not isinstance(error, KeyboardInterrupt):
            raise error
    return [future.result() for future in futures]


def _stop(process: subprocess.Popen[str]) -> None:
    """A worker whose standard input is closed ends as by Ctrl-C."""
    if process.stdin is not None:
        process.stdin.close()
