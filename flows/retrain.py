"""The whole pipeline as one flow: the stages of dvc.yaml, each a task, in the order DVC gives them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.board import Board, board
from flows.processes import (
    Children,
    InterruptedStageError,
    Outcome,
    Prepared,
    StageFailedError,
    prepared,
    stopping_on_signals,
)
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline import dag, overlay
from marl_pipeline.pipeline.tracking import shipping, tracking_uri

WORKTREES = Path(".marl/worktrees")
_THREADS = 256  # tasks wait in threads for what they need; `run.workers` bounds how many do work


class Retraining:
    """What the tasks of one flow run share."""

    def __init__(self, ready: Prepared, show: Board, env: Mapping[str, str]) -> None:
        self.children = Children(ready, ready.survey.params.run.workers, env)
        self.changed = ready.survey.changes
        self.show = show
        self.ran: set[str] = set()
        self.failed: dict[str, str] = {}

    def reproduce(self, stage: dag.Stage) -> Outcome:
        """Runs the stage unless neither it nor anything upstream changed."""
        if stage.name not in self.changed and not self.ran.intersection(stage.upstream):
            self.show.ended(stage.name, "up to date", 0.0)
            return "up to date"
        logger = get_run_logger()
        begun = time.monotonic()
        word = "failed"

        def on_start() -> None:
            nonlocal begun
            begun = time.monotonic()
            self.show.started(stage.name)

        def on_line(line: str) -> None:
            logger.info(line)
            self.show.said(stage.name, line)

        try:
            outcome = self.children.reproduce(stage.name, on_start, on_line)
            word = outcome
            self.ran.add(stage.name)
            return outcome
        except StageFailedError as error:
            self.failed[stage.name] = str(error)
            raise
        except InterruptedStageError:
            word = "interrupted"
            raise
        finally:
            self.show.ended(stage.name, word, time.monotonic() - begun)


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def run_stage(name: str, stage: dag.Stage, retraining: Retraining) -> Outcome:
    """One stage of dvc.yaml."""
    return retraining.reproduce(stage)


_RUNNER = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=_THREADS))


@flow(name="retrain", task_runner=_RUNNER, validate_parameters=False)
def retrain(profile: str | None = None, overrides: dict[str, Any] | None = None) -> str:
    """Brings every stage up to date.

    Args:
        profile: a name in profiles/ or a file; together with `overrides` it makes the run work in a git worktree
            of its own, so that the parameters of this checkout stay as they are.
        overrides: `section.key` -> value.

    Returns:
        The folder with the report.

    Raises:
        StageFailedError: a stage failed; those that need it were not run.
    """
    root = Path.cwd()
    if profile is not None or overrides:
        root = make_worktree(root, str(flow_run.id), profile, overrides or {})
    uri = tracking_uri(Path.cwd())
    if root != Path.cwd() and not uri.removeprefix("sqlite:///").startswith("/") and uri.startswith("sqlite:"):
        raise UserError(f"{Path.cwd()}: a run in a worktree needs MLFLOW_TRACKING_URI where the path has a '?'")
    env = {"MARL_FLOW_RUN": str(flow_run.id), "MLFLOW_TRACKING_URI": uri}
    os.environ["MLFLOW_TRACKING_URI"] = env["MLFLOW_TRACKING_URI"]
    with prepared(root) as ready, shipping(root), board(len(ready.survey.stages)) as show:
        run_all(Retraining(ready, show, env), ready.survey.stages)
    return str(root / "reports")


def run_all(retraining: Retraining, stages: tuple[dag.Stage, ...]) -> None:
    """Submits every stage to wait for those upstream of it, and waits for all."""
    futures: dict[str, PrefectFuture[Any]] = {}
    with stopping_on_signals(retraining.children):
        for stage in stages:
            upstream = [futures[name] for name in stage.upstream]
            futures[stage.name] = run_stage.submit(stage.name, stage, retraining, return_state=False, wait_for=upstream)
        for future in futures.values():
            future.wait()
    if retraining.failed:
        raise StageFailedError("; ".join(retraining.failed.values()))


def make_worktree(root: Path, name: str, profile: str | None, overrides: Mapping[str, Any]) -> Path:
    """A checkout of the current commit with the merged parameters and this checkout's DVC cache."""
    tree = (root / WORKTREES / name).resolve()
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), "HEAD"], cwd=root, check=True)
    (tree / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {(root / '.dvc' / 'cache').resolve()}\n")
    merged = overlay.merge(tree, profile, overlay.overrides_of(overrides), cwd=root, base_root=root)
    overlay.write(tree, merged)
    return tree
