"""The pictures that a scenario shows of an episode, in the folder of a run."""

from __future__ import annotations

import os
from pathlib import Path

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.envs.protocol import closing
from marl_pipeline.evaluation.greedy import recorded_episode
from marl_pipeline.experiments.job import Job
from marl_pipeline.scenarios.scenario import Scenario

PICTURES = "pictures"
"""The folder of a run's pictures, below the run's own."""


def picture_paths(made: Scenario, folder: Path, seed: int) -> dict[str, Path]:
    """Name of a picture -> where it lies in the run `folder`, of an episode of the test environment with this seed."""
    return {name: folder / PICTURES / f"{name}-{seed}.svg" for name in made.pictures}


def draw_pictures(job: Job, made: Scenario, policy: Policy, folder: Path, seed: int) -> list[Path]:
    """Plays one greedy episode of the test environment and draws it; nothing is played where nothing is to be drawn."""
    paths = picture_paths(made, folder, seed)
    if not paths:
        return []
    from marl_pipeline.reporting.episode_pictures import episode_picture  # Matplotlib takes as long as a short run

    with closing(made.test(1, seed)) as environment:
        episodes = recorded_episode(environment, policy, made.pictures)
    for name, path in paths.items():
        picture, episode = made.pictures[name], episodes[name]
        earned = f"{float(episode['team_reward'].sum(dtype='float64')):.2f}".replace("-", "\u2212")
        title = f"{job.algo} on {job.env}, seed {job.seed}"
        note = f"one greedy episode of the test environment (seed {seed}); return {earned}"
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f".partial-{path.name}")
        partial.write_bytes(episode_picture(title, note, picture.panels(episode), across=picture.across))
        os.replace(partial, path)
    return list(paths.values())
