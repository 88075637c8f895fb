"""Flow runs of killed processes are marked, also where the number of the process is used again."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import flows.killed as killed


def test_only_the_very_process_keeps_its_run_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    host, mine = f"host:{socket.gethostname()}", f"{psutil.Process().create_time():.0f}"
    runs = [
        SimpleNamespace(id="free number", tags=[host, f"pid:{gone.pid}", f"started:{mine}"]),
        SimpleNamespace(id="used again", tags=[host, f"pid:{os.getpid()}", "started:1000000"]),
        SimpleNamespace(id="says nothing of its start", tags=[host, "pid:1"]),
        SimpleNamespace(id="alive", tags=[host, f"pid:{os.getpid()}", f"started:{mine}"]),
        SimpleNamespace(id="elsewhere", tags=["host:another", f"pid:{gone.pid}", f"started:{mine}"]),
        SimpleNamespace(id="not ours", tags=[]),
    ]
    marked: list[str] = []

    @contextmanager
    def client(sync_client: bool) -> Iterator[Any]:
        yield SimpleNamespace(
            read_flow_runs=lambda flow_run_filter: runs,
            set_flow_run_state=lambda run, state, force: marked.append(run),
        )

    monkeypatch.setattr(killed, "get_client", client)
    assert killed.mark_killed_runs() == 3
    assert marked == ["free number", "used again", "says nothing of its start"]
