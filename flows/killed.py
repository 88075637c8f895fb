"""Flow runs whose process was killed: Prefect would show them as running for ever.

`marl run` marks those of this machine when it starts; a served flow sends heartbeats, and an automation of the
server marks it when they stop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import psutil
from prefect import get_client, tags
from prefect.automations import Automation
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
_HEARTBEAT = "prefect.flow-run.heartbeat"
_SERVER = "prefect.server.api.server:create_app"
CLOCK = 2.0
"""Seconds by which two readings of a process's start may differ."""
AUTOMATION = "marl-pipeline: mark killed runs as crashed"


@contextmanager
def tagged_with_process() -> Iterator[None]:
    """Flow runs started in the body bear the machine, the process they run in and when it was started."""
    started = psutil.Process().create_time()
    with tags(f"host:{socket.gethostname()}", f"pid:{os.getpid()}", f"started:{started:.0f}"):
        yield


def mark_killed_runs() -> int:
    """Marks runs of this machine as crashed whose process is gone; how many there were."""
    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
    host, marked = f"host:{socket.gethostname()}", 0
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=running):
            pid, started = _number(run.tags, "pid:"), _number(run.tags, "started:")
            if pid is not None and host in run.tags and not _is_running(pid, started):
                client.set_flow_run_state(run.id, Crashed(message=f"process {pid} was killed"), force=True)
                marked += 1
    return marked


def end_orphaned_servers() -> int:
    """Ends embedded servers of this PREFECT_HOME whose flow process was killed; how many there were."""
    ended = 0
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("PREFECT_HOME") == os.environ["PREFECT_HOME"]
            if mine and _SERVER in process.cmdline() and _is_orphan(process):
                process.terminate()
                ended += 1
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended meanwhile, or somebody else's
    return ended


def ship_heartbeat_automation(within: timedelta = timedelta(seconds=120)) -> None:
    """Creates the automation if the server does not have it yet."""
    asyncio.run(_ship(within))


async def _ship(within: timedelta) -> None:
    try:
        await Automation.aread(name=AUTOMATION)
    except (ObjectNotFound, ValueError):
        automation = Automation(
            name=AUTOMATION,
            description="A run that stops sending heartbeats without having ended was killed.",
            trigger=EventTrigger(
                after={_HEARTBEAT},
                expect={_HEARTBEAT, *_ENDS},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=within,
            ),
            actions=[
                ChangeFlowRunState(
                    name="Crashed", state=StateType.CRASHED, force=True, message="no heartbeat: the process was killed"
                )
            ],
        )
        await automation.acreate()


def _is_orphan(process: psutil.Process) -> bool:
    parent = process.parent()
    return parent is None or parent.pid == 1 or parent.name() == "systemd"


def _number(run_tags: Iterable[str], prefix: str) -> int | None:
    return next((int(tag.removeprefix(prefix)) for tag in run_tags if tag.startswith(prefix)), None)


def _is_running(pid: int, started: int | None) -> bool:
    """Whether this very process lives: numbers of processes are used again, after a restart above all. A run that does
    not say when its process was started is of a version that ended long ago."""
    try:
        return started is not None and abs(psutil.Process(pid).create_time() - started) <= CLOCK
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
