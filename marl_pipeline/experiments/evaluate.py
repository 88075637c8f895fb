"""Plays a saved policy greedily, whichever engine wrote it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from marl_pipeline.envs.protocol import closing
from marl_pipeline.evaluation.greedy import greedy_episodes
from marl_pipeline.experiments import execution as engines
from marl_pipeline.experiments.job import Job
from marl_pipeline.experiments.pictures import draw_pictures
from marl_pipeline.experiments.run import interval_of, metrics_of
from marl_pipeline.pipeline.compute import configure
from marl_pipeline.pipeline.tracking import SpoolRecorder, flatten, git_tags, ship_unless_shipped
from marl_pipeline.scenarios.registry import scenario
from marl_pipeline.store.runs import read_run
from marl_pipeline.training.loop import Evaluation


@dataclass(frozen=True)
class Evaluated:
    """Greedy returns of a policy: what the team earned.

    Attributes:
        interval: of the mean, 95%, from its standard error over the episodes.
        metrics: episode metrics by name: `mean`, `interval`, `unit`, `better`.
        changed: what the environment is made from that is not as it was in training.
        pictures: of one episode, as the scenario shows it; empty where none were asked for.
    """

    job: Job
    episodes: int
    seed: int
    mean: float
    std: float
    interval: tuple[float, float]
    metrics: Mapping[str, Mapping[str, Any]]
    changed: tuple[str, ...]
    pictures: tuple[Path, ...] = ()

    def as_json(self) -> dict[str, Any]:
        job = self.job
        return {
            "algo": job.algo,
            "env": job.env,
            "engine": job.engine,
            "train_seed": job.seed,
            "seed": self.seed,
            "episodes": self.episodes,
            "test_return": self.mean,
            "std": self.std,
            "interval": list(self.interval),
            "metrics": self.metrics,
            "changed": list(self.changed),
            "pictures": [str(path) for path in self.pictures],
        }


def evaluate_run(
    folder: Path,
    root: Path,
    *,
    episodes: int,
    seed: int,
    device: Literal["cpu", "cuda"] | None,
    pictures: bool = False,
) -> Evaluated:
    """Plays `episodes` episodes with the policy in `folder`; recorded in MLflow.

    With the seed and the number of episodes of training, the result is the `test_return` of the run.

    Args:
        device: None for the one it was trained on.
        pictures: whether one more episode is played and drawn, into the folder of the run.

    Raises:
        UserError: the folder holds no whole run.
    """
    record = read_run(folder)
    job = Job.model_validate(record["job"])
    if device is not None:
        job = job.model_copy(update={"device": device})
    configure(job.threads, job.device)
    made = scenario(root, job.env, job.env_options, job.device)
    changed = tuple(name for name, fact in made.facts.items() if record["facts"].get(name) != fact)
    tags = {"stage": "evaluation", "algo": job.algo, "env": job.env, "engine": job.engine, "seed": str(job.seed)}
    tags |= {"inputs_key": record["key"], **git_tags(root)}
    params = flatten({"job": job.model_dump(), "episodes": episodes, "test_seed": seed})
    try:
        with SpoolRecorder(root, f"evaluate {job.algo} {job.env} seed {job.seed}", params, tags) as recorder:
            policy = engines.load(job, made, folder)
            with closing(made.test(episodes, seed)) as environment:
                found = Evaluation.of(job.timesteps, greedy_episodes(environment, policy, made.metrics))
            mean, std = found.mean, found.std
            if not math.isfinite(mean):
                raise FloatingPointError(f"{folder}: the returns are not finite")
            low, high = interval_of(mean, std, episodes)
            figures = {f"test/{name}": figure["mean"] for name, figure in found.metrics.items()}
            recorder.log_metrics({"test_return": mean, "test_return_low": low, "test_return_high": high, **figures})
            shown = draw_pictures(job, made, policy, folder, seed) if pictures else []
            for path in shown:
                recorder.log_artifact(path)
    finally:
        ship_unless_shipped(root)
    metrics = metrics_of(found.metrics, made, episodes)
    return Evaluated(job, episodes, seed, mean, std, (low, high), metrics, changed, tuple(shown))
