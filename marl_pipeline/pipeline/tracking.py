"""MLflow: one run per stage, recorded without making the stage wait for it.

Importing MLflow takes longer than many a stage, so a stage writes its events to a spool (`.marl/tracking/<id>/`)
and one shipper moves them into MLflow: a process that `marl run` keeps beside the flow, or the stage itself when
it ends and no shipper is alive (`dvc repro`). One writer also means no race to create the database. A stage that is
killed leaves its spool unlocked and without an end; its run is shipped as KILLED.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Protocol, Self, cast

from marl_pipeline.errors import UserError

EXPERIMENT = "marl-pipeline"
SPOOL = Path(".marl/tracking")
STORE = "mlflow.db"
ARTIFACTS = "mlartifacts"

Status = Literal["FINISHED", "FAILED", "KILLED"]

_MAX_METRICS, _MAX_PARAMS = 1000, 100  # MLflow's limits per log_batch
_MAX_VALUE = 6000  # characters of one parameter
_MAX_NAME = 250  # characters of the name of a metric or a parameter


class Recorder(Protocol):
    """Where a stage writes what is worth keeping about a run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def log_artifact(self, path: Path) -> None: ...


class NoRecorder:
    """For tests and for callers who keep no record."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        return None

    def set_tags(self, tags: Mapping[str, str]) -> None:
        return None

    def log_artifact(self, path: Path) -> None:
        return None


class SpoolRecorder:
    """Appends events to a spool folder; holds a lock on it for as long as the run lives.

    As a context it ends the run by how the block ended: FINISHED, KILLED by Ctrl-C, or FAILED.
    """

    def __init__(self, root: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self._folder = root / SPOOL / f"{time.time_ns()}-{os.getpid()}-{_safe(name)}"
        self._folder.mkdir(parents=True)
        self._file: IO[str] = (self._folder / "events.jsonl").open("a", buffering=1)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        flat = {metric_name(key): str(value)[:_MAX_VALUE] for key, value in flatten(params).items()}
        self._write("start", {"name": name, "time": _now(), "params": flat, "tags": dict(tags)})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        if metrics:
            clean = {metric_name(key): float(value) for key, value in metrics.items()}
            self._write("metrics", {"time": _now(), "step": step, "values": clean})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._write("tags", {key: str(value) for key, value in tags.items()})

    def log_artifact(self, path: Path) -> None:
        """Keeps a copy of a file or folder as it is now."""
        kept = self._folder / "artifacts" / path.name
        kept.parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, kept, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, kept)
        self._write("artifact", {"name": path.name})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("FINISHED" if error is None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    def end(self, status: Status) -> None:
        self._write("end", {"time": _now(), "status": status})
        self._file.close()

    def _write(self, kind: str, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps([kind, values]) + "\n")


def git_tags(root: Path) -> dict[str, str]:
    """The commit and whether the tracked files differ from it; "unknown" outside a git checkout."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_sha": git("rev-parse", "HEAD") or "unknown",
        "git_dirty": "unknown" if changed is None else str(bool(changed)).lower(),
    }


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.key`; lists of sections are numbered."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value):
                flat |= flatten(item, f"{prefix}{key}.{place}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def metric_name(text: str) -> str:
    """`text` as MLflow takes it: itself wherever MLflow would take it, which is the name in our own files.

    Else every character but ASCII letters, digits and `_-. :/` becomes `_`, parts of a path that are empty or only dots
    too, what is too long is cut, and eight digits of the name's digest follow, so that no two names become one.
    """
    parts = [part if part.strip(". ") else "_" for part in re.sub(r"[^A-Za-z0-9_\-. :/]", "_", text).split("/")]
    safe = "/".join(parts)
    if safe == text and len(text) <= _MAX_NAME:
        return text
    return f"{safe[: _MAX_NAME - 9]}_{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def tracking_uri(root: Path, seen_from: Path | None = None) -> str:
    """`MLFLOW_TRACKING_URI`, or the database embedded in the repository.

    A question mark would end the path of the database, so below a folder with one the path is relative to the folder
    it is `seen_from`, by default the working directory.

    Raises:
        UserError: that folder is outside of such a repository.
    """
    if configured := os.environ.get("MLFLOW_TRACKING_URI"):
        return configured
    place = str((root / STORE).resolve())
    if "?" in place:
        place = os.path.relpath(place, seen_from)
    if "?" in place:
        raise UserError(f"{place}: MLflow's database cannot lie there, its path has a '?'; run inside of that folder")
    return f"sqlite:///{place}"


def ship_unless_shipped(root: Path) -> None:
    """Moves what is in the spool into MLflow, unless another process is at it.

    Recording decides no result: where MLflow cannot be reached or refuses, one line says so and the spool keeps the
    records for the next command.
    """
    with _shipper_lock(root, wait=False) as mine:
        if mine:
            try:
                Shipper(root).ship()
            except Exception as error:  # whatever a server, a database or a network can do
                reason = " ".join(str(error).split())[:160]
                where = _without_password(tracking_uri(root))
                note = f"note: MLflow at {where} did not take the records ({reason}); they wait in {SPOOL}"
                print(f"{note} for the next command", file=sys.stderr, flush=True)


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


class Shipper:
    """Moves spools into MLflow. One at a time: see `_shipper_lock`."""

    def __init__(self, root: Path) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["DO_NOT_TRACK"] = "true"
        # A server that is away costs seconds, not minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import logging

        from mlflow import MlflowClient

        for name in ("alembic", "mlflow", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)

        self._root = root
        self._client = MlflowClient(tracking_uri=tracking_uri(root))
        self._experiment = self._find_experiment()

    def ship(self) -> int:
        """Ships every event written since the last call; the number of runs that are still going."""
        alive = 0
        for folder in sorted((self._root / SPOOL).glob("*-*-*")):
            if (folder / "events.jsonl").exists():
                alive += not self._ship(folder)
        return alive

    def _find_experiment(self) -> str:
        known = self._client.get_experiment_by_name(EXPERIMENT)
        if known is not None:
            return str(known.experiment_id)
        scheme, _, embedded = tracking_uri(self._root).partition("sqlite:///")
        place = None if scheme or not embedded else (Path(embedded).resolve().parent / ARTIFACTS).as_uri()
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=place))

    def _ship(self, folder: Path) -> bool:
        """Ships one spool as far as it is written; whether its run is over."""
        dead = _is_unlocked(folder / "events.jsonl")  # before reading: its last words are then in the file
        progress_file = folder / "shipped.json"
        progress: dict[str, Any] = {"run": None, "offset": 0}
        if progress_file.exists():
            progress = json.loads(progress_file.read_text())
        with (folder / "events.jsonl").open("rb") as file:
            file.seek(progress["offset"])
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        events = [cast("tuple[str, dict[str, Any]]", tuple(json.loads(line))) for line in lines]
        if progress["run"] is None and events:
            progress["run"] = self._start(events[0][1])
        if progress["run"] is not None:
            self._send(progress["run"], folder, events)
        progress["offset"] += sum(map(len, lines))
        ended = any(kind == "end" for kind, _ in events)
        if dead and not ended and progress["run"] is not None:
            self._client.set_terminated(progress["run"], status="KILLED")
        if ended or dead:
            shutil.rmtree(folder)
            return True
        progress_file.write_text(json.dumps(progress))
        return False

    def _start(self, start: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(
            self._experiment, start_time=start["time"], tags=dict(start["tags"]), run_name=start["name"]
        )
        params = [Param(key, value) for key, value in start["params"].items()]
        for first in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(run.info.run_id, params=params[first : first + _MAX_PARAMS])
        return str(run.info.run_id)

    def _send(self, run: str, folder: Path, events: list[tuple[str, dict[str, Any]]]) -> None:
        from mlflow.entities import Metric, RunTag

        metrics: list[Any] = []
        tags: dict[str, str] = {}
        for kind, values in events:
            if kind == "metrics":
                metrics += [
                    Metric(key, value, values["time"], values["step"]) for key, value in values["values"].items()
                ]
            elif kind == "tags":
                tags |= values
            elif kind == "artifact":
                path = folder / "artifacts" / values["name"]
                if path.is_dir():
                    self._client.log_artifacts(run, str(path), artifact_path=path.name)
                else:
                    self._client.log_artifact(run, str(path))
        for first in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(run, metrics=metrics[first : first + _MAX_METRICS])
        if tags:
            self._client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])
        for kind, values in events:
            if kind == "end":
                self._client.set_terminated(run, status=values["status"], end_time=values["time"])


@contextmanager
def shipping(root: Path) -> Iterator[None]:
    """Keeps a shipper process beside the body; on leaving, waits until everything is in MLflow."""
    process = subprocess.Popen(
        [sys.executable, "-m", "marl_pipeline.pipeline.tracking"],
        cwd=root,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def _serve(root: Path, every: float = 2.0) -> None:
    """Ships until standard input is closed (its owner ended, or was killed), then once more."""
    stop = threading.Event()

    def wait_for_owner() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_owner, daemon=True).start()
    with _shipper_lock(root, wait=True):
        shipper = Shipper(root)
        while not stop.wait(every):
            shipper.ship()
        shipper.ship()


@contextmanager
def _shipper_lock(root: Path, wait: bool) -> Iterator[bool]:
    """Whether this process may ship: the kernel frees the lock when its holder dies."""
    (root / SPOOL).mkdir(parents=True, exist_ok=True)
    with (root / SPOOL / "shipper.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _is_unlocked(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _now() -> int:
    return time.time_ns() // 1_000_000


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_@.-]", "_", name)[:100]


if __name__ == "__main__":
    _serve(Path())
