"""A warm process: it has imported what the stages need, starts no threads, and forks one process for each stage.

Importing torch, pandas and DVC takes longer than many a stage, so `marl run` keeps this process beside the flow. It
knows nothing of stages: it receives two file descriptors (a connection and a place for output), forks, and the fork
does what `marl_pipeline.pipeline.reproduction` says. Stages do not depend on it once they run: if it is killed, they
go on, and the next request starts another one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO

from marl_pipeline.pipeline.compute import THREADS
from marl_pipeline.pipeline.reproduction import Job, reproduce

LOG = Path(".marl/warm.log")

ENVIRONMENT = {**dict.fromkeys(THREADS, "1"), "GX_ANALYTICS_ENABLED": "false"}
"""No library may start threads before a fork; a stage sets its own number afterwards (`compute.configure`)."""

DVC = (
    "dvc.cli.parser",
    "dvc.commands.repro",
    "dvc.repo.artifacts",
    "dvc.repo.datasets",
    "dvc.repo.metrics",
    "dvc.repo.open_repo",
    "dvc.repo.params",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.repo.stage",
    "dvc.rwlock",
    "dvc.scm",
    "dvc.stage.cache",
    "dvc.stage.run",
    "dvc.utils.strictyaml",
    "dvc_data.hashfile.db.local",
    "dvc_data.hashfile.status",
    "dulwich.repo",
    "scmrepo.git",
)
"""What DVC imports while it reproduces a stage; it is always needed."""

USED_LATER = {
    "torch": ("torch._dynamo",),  # by every optimizer: as long to import as torch itself
    "marl_pipeline.data.calendar": ("exchange_calendars",),
    "marl_pipeline.stages.validate_data": ("great_expectations",),
    "marl_pipeline.reporting.canvas": ("matplotlib.backends.backend_svg",),
}
"""What a module that is imported will import on use."""

_ATTEMPTS = 3
_LONGEST = 1000  # characters of a module's name


class WarmProcess:
    """The side of the flow: starts the warm process, asks it for processes, ends it. Threads may share one.

    Args:
        root: of the checkout; the warm process imports the code that lies there.
        modules: what to import beforehand, such as the stages that are going to run.
        env: its environment, apart from `ENVIRONMENT`.
    """

    def __init__(self, root: Path, modules: Iterable[str], env: Mapping[str, str]) -> None:
        self._root = root
        self._modules = tuple(dict.fromkeys(modules))
        self._env = {**env, **ENVIRONMENT}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Starts the process if it does not run; returns before its imports are done."""
        with self._lock:
            self._start()

    def fork(self, job: Job, module: str) -> tuple[int, Connection, IO[str]]:
        """Has a process forked that reproduces a stage.

        Args:
            job: what it is to do.
            module: what is to be imported before; "" for nothing but DVC.

        Returns:
            Its process id (also that of its process group); the connection on which it sends its exit code, and which
            it waits to see closed; and what it and the stage print.

        Raises:
            ChildProcessError: the warm process ends again and again.
        """
        for _ in range(_ATTEMPTS):
            connection, theirs = Pipe()
            read, write = os.pipe()
            try:
                with self._lock:
                    sock = self._start()
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # shows below: nobody answers
                        socket.send_fds(sock, [module.encode() or b" "], [theirs.fileno(), write])
            finally:
                theirs.close()
                os.close(write)
            output = open(read, errors="replace")  # noqa: SIM115 - the caller reads and closes it
            try:
                connection.send(job)
                return int(connection.recv()), connection, output
            except (EOFError, BrokenPipeError, ConnectionResetError):
                output.close()
                connection.close()
                with self._lock:
                    self._end_if_dead(wait=5.0)
        raise ChildProcessError(f"the process that starts stages ends again and again; see {self._root / LOG}")

    def close(self) -> None:
        """Ends the warm process; it holds nothing that could be lost."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._end_if_dead(wait=None)

    def _start(self) -> socket.socket:
        self._end_if_dead(wait=0.0)
        if self._socket is not None:
            return self._socket
        log = self._root / LOG
        log.parent.mkdir(parents=True, exist_ok=True)
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "marl_pipeline.pipeline.warm", str(theirs.fileno()), *self._modules],
                cwd=self._root,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket = mine
        return mine

    def _end_if_dead(self, wait: float | None) -> None:
        if self._process is None or self._socket is None:
            return
        try:
            self._process.wait(wait)
        except subprocess.TimeoutExpired:
            return
        self._socket.close()
        self._process = self._socket = None


def serve(sock: socket.socket, modules: Iterable[str]) -> int:
    """Forks on request until the other side is gone; the exit code, of this process or of the fork."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for the forks: they report by themselves
    code, waiting = code_state(), list(modules)
    for name in DVC:
        _import(name)
    while True:
        if waiting and not select.select([sock], [], [], 0)[0]:
            _import(waiting.pop(0))  # nobody asks: go on with what will be needed
            continue
        data, fds, _, _ = socket.recv_fds(sock, _LONGEST, 2)
        if not data:
            return 0
        if module := data.decode().strip():
            _import(module)
        gc.collect()
        gc.freeze()  # the collector of a fork need not look through, and so copy, what is imported
        if os.fork() == 0:
            sock.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return reproduce(Connection(fds[0]), fds[1], lambda: code_state() == code)
        for fd in fds:
            os.close(fd)


def _import(name: str) -> None:
    """Imports a module and what it will import on use. One with an error is left to its stage, which reports it."""
    with contextlib.suppress(Exception):
        importlib.import_module(name)
        for module, later in USED_LATER.items():
            if module in sys.modules:
                for other in later:
                    importlib.import_module(other)


def code_state() -> dict[str, tuple[int, int]]:
    """Path -> time and size of every module of the package: equal states, equal code."""
    state = {}
    for path in sorted(Path("marl_pipeline").rglob("*.py")):
        found = path.stat()
        state[str(path)] = (found.st_mtime_ns, found.st_size)
    return state


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]))
