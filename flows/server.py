"""A Prefect server beside `marl schedule` and `marl open prefect`, unless one is running or configured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marl_pipeline.errors import UserError

PORT = 4200
_PATIENCE = 180.0


@contextmanager
def server(root: Path, port: int = PORT) -> Iterator[str]:
    """The address of the API, for as long as the body runs. Call before Prefect is imported."""
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        yield configured
        return
    address = f"http://127.0.0.1:{port}/api"
    os.environ["PREFECT_API_URL"] = address
    if _answers(address):
        yield address
        return
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_until_it_answers(address, process)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while not _answers(address):
        if process.poll() is not None:
            raise UserError(f"the Prefect server ended with code {process.returncode}; is another on that port?")
        if time.monotonic() > until:
            raise UserError(f"the Prefect server did not answer at {address} within {_PATIENCE:.0f} s")
        time.sleep(0.5)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
