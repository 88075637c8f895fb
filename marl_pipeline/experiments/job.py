"""What one training run is given: everything that fixes its result, and where it leaves it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

import torch

from marl_pipeline.config import Count, Section
from marl_pipeline.store.digest import source_digest

RUNS = Path("models/runs")
CHECKPOINTS = Path(".marl/checkpoints/runs")
LOCKS = Path(".marl/locks/runs")

EVALUATIONS = 20
"""Of a run, unless the user says otherwise."""

TEST_SEED = 0
"""Of the environment of the evaluations: the same for all runs, and a stream apart from all training."""

CODE = ("agents", "algos", "data", "encoders", "envs", "nn", "scenarios", "training", "seeding.py")
"""What of the package a run's result depends on."""


class Job(Section):
    """One algorithm, one environment, one seed.

    Attributes:
        env_options: keyword arguments of the environment.
        settings: of the algorithm, complete.
        workers: processes that an engine spreads the run over.
        timesteps: environment steps in all, where one step of one environment counts as one.
        evaluate_every: environment steps between greedy evaluations.
        test_episodes: episodes of each evaluation.
        test_seed: of the environment that the evaluations play on.
        threads: of torch; part of the result's last bits.
    """

    algo: str
    env: str
    env_options: dict[str, Any]
    engine: str
    workers: Count
    settings: dict[str, Any]
    seed: int
    timesteps: Count
    evaluate_every: Count
    test_episodes: Count
    test_seed: int
    device: Literal["cpu", "cuda"]
    threads: Count

    @property
    def place(self) -> Path:
        """`<env>/<algo>/<seed>`, the folder of the run below the folder of all runs."""
        return Path(folder_of(self.env)) / self.algo / str(self.seed)

    def key(self, facts: dict[str, str]) -> str:
        """Names the result: equal keys, equal bytes. `facts` are what the environment was made from."""
        given = {"job": self.model_dump(), "facts": facts, "code": code_digest(), "torch": torch.__version__}
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:32]


def folder_of(env: str) -> str:
    """The name of an environment as a relative path."""
    parts = [re.sub(r"[^\w@.-]", "_", part) for part in env.split("/")]
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)


def code_digest() -> str:
    """Of the source that learns and is learnt from: a run whose code has changed is another run."""
    package = Path(__file__).parents[1]
    return source_digest([package / name for name in CODE])
