"""Prefect without a server to start: where it keeps its records and what it must not do.

Prefect reads its settings when it is imported, so call `prepare` before importing a flow. What the user has set in
the environment wins: with PREFECT_API_URL the same flows report to a real server.
"""

from __future__ import annotations

import os
from pathlib import Path

SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine takes longer than the default 20
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the run prints its own lines; the API gets everything
    "PREFECT_CLIENT_METRICS_ENABLED": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; see flows/killed.py
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
}


def prepare(root: Path) -> None:
    os.environ.setdefault("PREFECT_HOME", str(root.resolve() / ".prefect"))
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
