"""The reference table: several algorithms over seeds on one environment, beside what was published."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marl_pipeline.algos.registry import choose
from marl_pipeline.experiments.curves import curves_of, draw
from marl_pipeline.experiments.job import EVALUATIONS, TEST_SEED, Job
from marl_pipeline.experiments.many import train_all
from marl_pipeline.experiments.run import Finished
from marl_pipeline.reporting.learning_curves import LearningCurve, interquartile_mean, summarise

TEST_EPISODES = 512

PUBLISHED: Mapping[str, Mapping[str, tuple[float, int]]] = {
    "mpe/simple_spread": {
        "mappo": (-29.3, 20_000_000),
        "qmix": (-25.8, 2_000_000),
        "idqn": (-28.8, 2_000_000),
        "maddpg": (-33.4, 2_000_000),
    }
}
"""Environment -> algorithm -> return of an episode summed over agents, and the environment steps it took.

Papoudakis et al. 2021 (arXiv 2006.07869), table 3, parameters shared: of `simple_spread` before version 3, where
every agent also paid 1 a step for colliding with itself, hence (published + 75) / 2.
"""


@dataclass(frozen=True)
class Reference:
    """The runs of every algorithm, and their curves."""

    env: str
    timesteps: int
    runs: Mapping[str, Sequence[Finished]]
    curves: Mapping[str, LearningCurve]

    def as_json(self) -> dict[str, Any]:
        return {
            "env": self.env,
            "timesteps": self.timesteps,
            "algorithms": [
                {
                    "algo": algo,
                    "iqm": iqm,
                    "interval": [low, high],
                    "mean": statistics.fmean(run.test_return for run in runs),
                    "steps_per_s": _speed(runs),
                    "published": _published(self.env, algo),
                    "runs": [run.as_json() for run in runs],
                }
                for algo, runs in self.runs.items()
                for iqm, low, high in [_summary(runs)]
            ],
        }

    def markdown(self) -> str:
        """A table ready for a document."""
        seeds = ", ".join(str(run.seed) for run in next(iter(self.runs.values())))
        lines = [
            f"`{self.env}`, {self.timesteps:,} environment steps, seeds {seeds}, greedy over {TEST_EPISODES} episodes.",
            "",
            "| algorithm | return, IQM | 95% interval | mean | published (steps) | steps/s |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for algo, runs in self.runs.items():
            iqm, low, high = _summary(runs)
            published, speed = _published(self.env, algo), _speed(runs)
            known = "" if published is None else f"{published['return']:.1f} ({published['timesteps'] / 1e6:g}M)"
            cells = (
                algo,
                f"{iqm:.1f}",
                f"{low:.1f} to {high:.1f}",
                f"{statistics.fmean(run.test_return for run in runs):.1f}",
                known,
                "" if speed is None else f"{speed:,.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def draw(self, path: Path) -> None:
        draw(path, self.env, self.curves)


def reference(
    root: Path,
    out: Path,
    algos: Sequence[str],
    seeds: Sequence[int],
    *,
    env: str,
    timesteps: int,
    threads: int,
    jobs: int,
) -> Reference:
    """Trains every algorithm with its preset over all seeds; runs that are there already are kept.

    Raises:
        UserError: an unknown algorithm or environment.
    """
    settings = {algo: choose(algo, env, {}).as_dict() for algo in algos}
    given = [
        Job(
            algo=algo,
            env=env,
            env_options={},
            engine="torch",
            workers=1,
            settings=settings[algo],
            seed=seed,
            timesteps=timesteps,
            evaluate_every=max(timesteps // EVALUATIONS, 1),
            test_episodes=TEST_EPISODES,
            test_seed=TEST_SEED,
            device="cpu",
            threads=threads,
        )
        for algo in algos
        for seed in seeds
    ]
    done = train_all(given, root, out, fresh=False, side_by_side=jobs)
    runs = {algo: [run for job, run in zip(given, done, strict=True) if job.algo == algo] for algo in algos}
    curves = next(iter(curves_of(run.folder for run in done).values()))
    return Reference(env, timesteps, runs, curves)


def _summary(runs: Sequence[Finished]) -> tuple[float, float, float]:
    scores = np.array([[run.test_return] for run in runs])
    found = summarise(scores)
    return float(interquartile_mean(scores[:, 0])), float(found.low), float(found.high)


def _speed(runs: Sequence[Finished]) -> float | None:
    """The median of the runs that were timed."""
    timed = [run.steps_per_s for run in runs if run.steps_per_s is not None]
    return statistics.median(timed) if timed else None


def _published(env: str, algo: str) -> dict[str, float] | None:
    found = PUBLISHED.get(env, {}).get(algo)
    return None if found is None else {"return": found[0], "timesteps": found[1]}
