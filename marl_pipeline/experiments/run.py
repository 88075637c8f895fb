"""One training run from its job to its folder: resumed if it was interrupted, left alone if it is there already."""

from __future__ import annotations

import fcntl
import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.envs.protocol import closing
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.greedy import greedy_episodes
from marl_pipeline.experiments import execution as engines
from marl_pipeline.experiments.job import CHECKPOINTS, LOCKS, Job
from marl_pipeline.experiments.pictures import draw_pictures, picture_paths
from marl_pipeline.pipeline.compute import configure
from marl_pipeline.pipeline.tracking import SpoolRecorder, flatten, git_tags
from marl_pipeline.progress import OnStep
from marl_pipeline.scenarios.registry import check_first_steps, scenario
from marl_pipeline.scenarios.scenario import Scenario
from marl_pipeline.store.runs import RUN, TIMING, new_run, read_run, read_timing, write_json
from marl_pipeline.training.loop import EpisodeResults, Evaluate, Evaluation, Run, Spread

NORMAL_95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""

POINTS = 200
"""Moments of a run whose figures are recorded, besides every evaluation."""


@dataclass(frozen=True)
class Finished:
    """A run that is there.

    Attributes:
        test_return: greedy return (what the team earned) of the final weights, mean over the test episodes.
        interval: of that mean, 95%, from its standard error over the episodes.
        metrics: episode metrics of the same episodes by name: `mean`, `interval`, `unit`, `better`.
        optimum: the highest test return that there is, where it is known.
        steps_per_s: environment steps a second, collecting and learning together; None where this machine timed none.
        reused: it was there before.
        pictures: of an episode, as the scenario shows it; empty where none were asked for.
    """

    seed: int
    test_return: float
    interval: tuple[float, float]
    steps: int
    evaluations: tuple[Evaluation, ...]
    metrics: Mapping[str, Mapping[str, Any]]
    optimum: float | None
    steps_per_s: float | None
    folder: Path
    reused: bool
    pictures: tuple[Path, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "test_return": self.test_return,
            "steps_per_s": self.steps_per_s,
            "interval": list(self.interval),
            "metrics": self.metrics,
            "steps": self.steps,
            "evaluations": [vars(one) for one in self.evaluations],
            "folder": str(self.folder),
            "reused": self.reused,
            "pictures": [str(path) for path in self.pictures],
        }


def train_one(job: Job, root: Path, out: Path, *, fresh: bool, on_step: OnStep, pictures: bool = False) -> Finished:
    """Trains the job, unless the very same run is there; `fresh` forgets what was there and starts at step 0.

    A run of the same job by other code, or on other data, is replaced; that of another job is not, unless `fresh`.

    Args:
        root: of the repository, where the checkpoint and the record lie.
        out: the folder of all runs.
        pictures: whether an episode is played and drawn as the scenario shows it, where that was not done before.

    Raises:
        UserError: a bad job, another process is at the same one or at its folder, or another job's run is there.
    """
    configure(job.threads, job.device)
    made = scenario(root, job.env, job.env_options, job.device)
    key, folder = job.key(dict(made.facts)), out / job.place
    if not fresh and (folder / RUN).exists():
        record = read_run(folder)
        if record["key"] == key:
            return finished(folder, reused=True, pictures=_pictures(job, made, folder) if pictures else ())
        _keep_another(folder, record["job"], job)
    _will_learn(job)
    with _held(root, folder), _checkpoint(root / CHECKPOINTS / key, fresh) as checkpoint:
        if not (checkpoint.folder / "state.pt").exists():
            check_first_steps(job.env, made, job.seed)
        with _recorded(job, key, root, on_step) as (recorder, recorded):
            with new_run(folder) as partial:
                done = engines.train(
                    job, made, partial, evaluate=_evaluate(job, made), checkpoint=checkpoint, on_step=recorded
                )
                write_json(partial / RUN, _record(job, key, made, done))
                write_json(partial / TIMING, {"seconds": done.seconds, "timed_steps": done.timed_steps})
            result = finished(folder, reused=False, pictures=_pictures(job, made, folder) if pictures else ())
            recorder.log_metrics(_figures(result), result.steps)
            recorder.log_artifact(folder)
        shutil.rmtree(checkpoint.folder)
    return result


def finished(folder: Path, *, reused: bool, pictures: Sequence[Path] = ()) -> Finished:
    """Reads a run's folder.

    Raises:
        UserError: there is no whole run.
    """
    record, timing = read_run(folder), read_timing(folder)
    seconds, steps = timing["seconds"], timing["timed_steps"]
    return Finished(
        seed=record["job"]["seed"],
        test_return=record["test_return"],
        interval=(record["interval"][0], record["interval"][1]),
        steps=record["steps"],
        evaluations=tuple(Evaluation(**one) for one in record["evaluations"]),
        metrics=record["metrics"],
        optimum=record["optimum"],
        steps_per_s=steps / seconds if seconds > 0.0 else None,
        folder=folder,
        reused=reused,
        pictures=tuple(pictures),
    )


def interval_of(mean: float, std: float, episodes: int) -> tuple[float, float]:
    """95% for a mean over independent episodes."""
    half = NORMAL_95 * std / math.sqrt(episodes) if episodes > 1 else 0.0
    return mean - half, mean + half


def metrics_of(figures: Mapping[str, Spread], made: Scenario, episodes: int) -> dict[str, dict[str, Any]]:
    """Episode metrics with their intervals, and what the scenario says of them."""
    return {
        name: {
            "mean": figure["mean"],
            "interval": list(interval_of(figure["mean"], figure["std"], episodes)),
            "unit": made.metrics[name].unit,
            "better": made.metrics[name].better,
        }
        for name, figure in figures.items()
    }


def _pictures(job: Job, made: Scenario, folder: Path) -> Sequence[Path]:
    """Draws the pictures of a run that lacks them, of an episode of the evaluations' environment."""
    paths = picture_paths(made, folder, job.test_seed)
    if all(path.exists() for path in paths.values()):
        return list(paths.values())
    return draw_pictures(job, made, engines.load(job, made, folder), folder, job.test_seed)


def _evaluate(job: Job, made: Scenario) -> Evaluate:
    def evaluate(policy: Policy) -> EpisodeResults:
        with closing(made.test(job.test_episodes, job.test_seed)) as environment:
            return greedy_episodes(environment, policy, made.metrics)

    return evaluate


def _record(job: Job, key: str, made: Scenario, done: Run) -> dict[str, Any]:
    last = done.evaluations[-1]
    return {
        "key": key,
        "job": job.model_dump(),
        "facts": dict(made.facts),
        "steps": done.steps,
        "test_return": last.mean,
        "interval": list(interval_of(last.mean, last.std, job.test_episodes)),
        "optimum": made.optimum,
        "metrics": metrics_of(last.metrics, made, job.test_episodes),
        "evaluations": [vars(one) for one in done.evaluations],
    }


def _figures(result: Finished) -> dict[str, float]:
    low, high = result.interval
    figures = {"test_return_low": low, "test_return_high": high}
    return figures if result.steps_per_s is None else figures | {"steps_per_s": result.steps_per_s}


def _keep_another(folder: Path, there: Mapping[str, Any], job: Job) -> None:
    """Raises:
    UserError: the run in `folder` is of another job.
    """
    old, new = flatten(there), flatten(job.model_dump(mode="json"))
    differ = [name for name in new if old.get(name) != new[name]]
    if differ:
        differences = ", ".join(f"{name} {old.get(name)} there, {new[name]} here" for name in differ[:3])
        more = f", and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise UserError(f"{folder}: another run is there ({differences}{more}); --out keeps it, --fresh replaces it")


def _will_learn(job: Job) -> None:
    """Raises:
    UserError: the run ends before it has learned anything.
    """
    begins = job.settings.get("learning_starts", 0)
    if job.timesteps < begins:
        raise UserError(
            f"{job.algo}: {job.timesteps} timesteps end before learning (learning_starts {begins}): train longer or "
            "lower it"
        )


@contextmanager
def _held(root: Path, folder: Path) -> Iterator[None]:
    """The folder of a run, held by one process at a time."""
    (root / LOCKS).mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    with (root / LOCKS / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is training into it; wait for it, or choose another --out"
            ) from None
        yield


@contextmanager
def _checkpoint(folder: Path, fresh: bool) -> Iterator[FileCheckpointer]:
    """The job's checkpoint, held by one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is at this very run; wait for it or change the seed") from None
        if fresh:
            (folder / "state.pt").unlink(missing_ok=True)
        yield FileCheckpointer(folder)


@contextmanager
def _recorded(job: Job, key: str, root: Path, on_step: OnStep) -> Iterator[tuple[SpoolRecorder, OnStep]]:
    """A run in MLflow's spool, and `on_step` with its figures recorded there."""
    tags = {
        "stage": "training_run",
        "algo": job.algo,
        "env": job.env,
        "engine": job.engine,
        "seed": str(job.seed),
        "inputs_key": key,
        **git_tags(root),
    }
    recorder = SpoolRecorder(root, f"{job.algo} {job.env} seed {job.seed}", flatten(job.model_dump()), tags)
    every = max(job.timesteps // POINTS, 1)
    last = 0

    def recorded(label: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        nonlocal last
        known = {name: metrics[name] for name in ("test_return",) if name in metrics}
        on_step(label, step, total, {**known, **metrics})  # what matters most comes first
        if step - last >= every or "test_return" in metrics:
            last = step
            recorder.log_metrics(metrics, step)

    with recorder:
        yield recorder, recorded
