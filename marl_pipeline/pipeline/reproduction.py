"""One stage by DVC, in a process forked for it from a warm one: what `dvc repro --single-item` does, to the same bytes.

Two processes, as under `dvc repro`: DVC's, and the stage's below it. The stage's is forked before DVC begins to work
and waits for the command, so that it is a clean one: no threads, no open databases, no locks. A command that is not
`python -m marl_pipeline.stages...` is started by DVC as usual.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from marl_pipeline.pipeline import dag, harness

_STAGE = re.compile(r"python -m (marl_pipeline\.stages\.\w+)((?: [\w.:,=+-]+)*)")
_LOCK_EVERY, _GUARD_PATIENCE = 0.02, 30.0  # seconds

CommandRun = Callable[..., None]


@dataclass(frozen=True)
class Job:
    """A stage to reproduce.

    Attributes:
        name: of the stage, as DVC addresses it.
        env: the environment of DVC and of the stage.
        survey: what the run read at its start.
    """

    name: str
    env: Mapping[str, str]
    survey: dag.Survey


@dataclass(frozen=True)
class Order:
    """A command that DVC wants run: `python -m module argv`.

    Attributes:
        task: the stage as the run read it; None if `dvc.yaml` or `params.yaml` were changed since.
    """

    module: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    task: dag.Task | None


def reproduce(flow: Connection, output: int, code_is_current: Callable[[], bool]) -> int:
    """Does one job in a process that was just forked; the exit code of this process, or of the stage's.

    Args:
        flow: the job comes from it; the process id and, at the end, DVC's exit code go to it.
        output: file descriptor for everything printed.
        code_is_current: whether the imported modules are those on disk.
    """
    os.setsid()
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    job: Job = flow.recv()
    os.environ.clear()
    os.environ.update(job.env)
    worker, theirs = Pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        worker.close()
        flow.close()
        set_title("stage", job.name, "waiting")
        return _stage(theirs, code_is_current)
    theirs.close()
    flow.send(parent)
    command = ["--wait-for-lock", "repro", "--single-item", job.name]
    set_title("dvc", *command)
    code = _dvc(command, job.survey, worker, child)
    worker.close()
    with suppress(ChildProcessError):  # it has run, and was waited for
        os.waitpid(child, 0)
    sys.stdout.flush()
    sys.stderr.flush()
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)  # the flow reads until nobody prints any more
    with suppress(BrokenPipeError):  # the flow was killed
        flow.send(code)
        flow.poll(None)  # until it has read the code, and will send no signal to this process group
    return code


def _dvc(command: Sequence[str], survey: dag.Survey, worker: Connection, child: int) -> int:
    """DVC's command line, its commands given to the process that waits for them."""
    import dvc.cli
    import dvc.lock
    import dvc.stage.run as dvc_run

    by_shell: CommandRun = dvc_run.cmd_run

    def cmd_run(stage: Any, dry: bool = False, run_env: Mapping[str, str] | None = None) -> None:
        found = None if dry else _STAGE.fullmatch(str(stage.cmd))
        if found is None:
            by_shell(stage, dry=dry, run_env=run_env)
            return
        dvc_run.logger.info("Running stage '%s':", stage.addressing)
        dvc_run.display_command(stage.cmd)
        place = dvc_run.prepare_kwargs(stage, run_env=run_env)
        order = Order(found[1], tuple(shlex.split(found[2])), place["env"], place["cwd"], survey.task(stage))
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as DVC does: the stage ends first
        try:
            worker.send(order)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        finally:
            signal.signal(signal.SIGINT, before)
        if code != 0:
            raise dvc_run.StageCmdFailedError(stage.cmd, code)

    dvc_run.cmd_run = cmd_run
    dvc.lock.Lock.lock = _wait_for_lock
    sys.argv = ["dvc", *command]
    return int(dvc.cli.main(list(command)))


def _wait_for_lock(lock: Any) -> None:
    """DVC's waiting for its lock, which looks twice a second: with short stages most of their time."""
    from dvc.lock import LockError

    until = time.monotonic() + _GUARD_PATIENCE
    while True:
        try:
            lock._do_lock()
            return
        except LockError:
            if not lock._wait and time.monotonic() > until:
                raise
            time.sleep(_LOCK_EVERY)


def _stage(dvc: Connection, code_is_current: Callable[[], bool]) -> int:
    """Waits for the command, and runs it; without one it ends."""
    try:
        order: Order = dvc.recv()
    except (EOFError, KeyboardInterrupt):
        os._exit(0)
    dvc.close()
    os.environ.clear()
    os.environ.update(order.env)
    os.chdir(order.cwd)
    command = ["python", "-m", order.module, *order.argv]
    if not code_is_current():
        os.execv(sys.executable, [sys.executable, *command[1:]])
    set_title(*command)
    sys.argv = [order.module, *order.argv]
    return harness.run_forked(order.module, list(order.argv), order.task)


def set_title(*words: str) -> None:
    """Makes `ps` show `words` as the command line of this process, as far as there is room; only on Linux."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end: fields 48 and 49 of proc(5)
    text = "\0".join(words).encode()[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
