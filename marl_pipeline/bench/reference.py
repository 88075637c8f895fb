"""The reference table: several algorithms over seeds on one environment, beside what was published."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marl_pipeline.evaluation.greedy import greedy_returns
from marl_pipeline.experiments.curves import curves_of, draw
from marl_pipeline.experiments.job import EVALUATIONS, TEST_SEED, Job
from marl_pipeline.experiments.many import train_all
from marl_pipeline.experiments.run import Finished
from marl_pipeline.reporting.learning_curves import LearningCurve, interquartile_mean, summarise
from marl_pipeline.scenarios.presets import choose
from marl_pipeline.scenarios.registry import scenario
from marl_pipeline.scenarios.scenario import Baseline, Published, Scenario

TEST_EPISODES = 512


@dataclass(frozen=True)
class Reference:
    """Attributes:
    runs, curves: of every algorithm.
    baselines: mean return of those of the scenario, over as many episodes.
    published: of the scenario.
    optimum: of the scenario, where it is known.
    """

    env: str
    timesteps: int
    baselines: Mapping[str, float]
    published: Mapping[str, Published]
    optimum: float | None
    runs: Mapping[str, Sequence[Finished]]
    curves: Mapping[str, LearningCurve]

    def as_json(self) -> dict[str, Any]:
        return {
            "env": self.env,
            "timesteps": self.timesteps,
            "optimum": self.optimum,
            "baselines": dict(self.baselines),
            "algorithms": [
                {
                    "algo": algo,
                    "iqm": iqm,
                    "interval": [low, high],
                    "mean": statistics.fmean(run.test_return for run in runs),
                    "steps_per_s": _speed(runs),
                    "published": _published(self.published.get(algo)),
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
            published, speed = self.published.get(algo), _speed(runs)
            known = "" if published is None else f"{published.test_return:.1f} ({published.timesteps / 1e6:g}M)"
            cells = (
                algo,
                f"{iqm:.1f}",
                f"{low:.1f} to {high:.1f}",
                f"{statistics.fmean(run.test_return for run in runs):.1f}",
                known,
                "" if speed is None else f"{speed:,.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        known_means = dict(self.baselines) if self.optimum is None else {**self.baselines, "optimum": self.optimum}
        lines += [f"| {name} |  |  | {mean:.1f} |  |  |" for name, mean in known_means.items()]
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
    made = scenario(root, env, {}, "cpu")
    baselines = {name: _played(made, baseline) for name, baseline in made.baselines.items()}
    return Reference(env, timesteps, baselines, made.published, made.optimum, runs, curves)


def _played(made: Scenario, baseline: Baseline) -> float:
    """Mean return of a policy that learns nothing, over the test episodes."""
    environment = made.test(TEST_EPISODES, TEST_SEED)
    return float(greedy_returns(environment, baseline(environment.groups, TEST_SEED)).mean())


def _summary(runs: Sequence[Finished]) -> tuple[float, float, float]:
    scores = np.array([[run.test_return] for run in runs])
    found = summarise(scores)
    return float(interquartile_mean(scores[:, 0])), float(found.low), float(found.high)


def _speed(runs: Sequence[Finished]) -> float | None:
    """The median of the runs that were timed."""
    timed = [run.steps_per_s for run in runs if run.steps_per_s is not None]
    return statistics.median(timed) if timed else None


def _published(known: Published | None) -> dict[str, float] | None:
    return None if known is None else {"return": known.test_return, "timesteps": known.timesteps}
