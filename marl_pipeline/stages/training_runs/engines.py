"""Who runs the loop of a training run. `torch` is this project's own, in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from safetensors.torch import load_file, save_file

from marl_pipeline.algos import registry
from marl_pipeline.algos.algorithm import Algorithm, Policy
from marl_pipeline.algos.experiment import Evaluate, Run, run
from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.errors import UserError
from marl_pipeline.progress import OnStep
from marl_pipeline.stages.training_runs.job import Job
from marl_pipeline.stages.training_runs.worlds import World

WEIGHTS = "policy.safetensors"
CHECKPOINTS_A_RUN = 20


class Engine(Protocol):
    """Trains a job and brings back what it trained."""

    def train(
        self, job: Job, world: World, folder: Path, *, evaluate: Evaluate, checkpoint: Checkpointer, on_step: OnStep
    ) -> Run:
        """Trains from `checkpoint` on and writes the policy into `folder`, which exists.

        The files depend on the job only: no times, no paths.
        """
        ...

    def load(self, job: Job, world: World, folder: Path) -> Policy:
        """The policy that `train` wrote."""
        ...


class TorchEngine:
    """`algos.experiment.run` in this process; the policy is one file of weights."""

    def train(
        self, job: Job, world: World, folder: Path, *, evaluate: Evaluate, checkpoint: Checkpointer, on_step: OnStep
    ) -> Run:
        if job.workers != 1:
            raise UserError(f"--workers {job.workers}: the engine torch is one process; choose --engine ray")
        algorithm = build(job, world)
        done = run(
            algorithm,
            timesteps=job.timesteps,
            evaluate=evaluate,
            evaluate_every=job.evaluate_every,
            checkpoint=checkpoint,
            checkpoint_every=max(job.timesteps // CHECKPOINTS_A_RUN, 1),
            label=f"{job.algo} on {job.env}, seed {job.seed}",
            on_step=on_step,
        )
        weights = algorithm.policy.module.state_dict()
        save_file({name: tensor.cpu().contiguous().clone() for name, tensor in weights.items()}, folder / WEIGHTS)
        return done

    def load(self, job: Job, world: World, folder: Path) -> Policy:
        policy = build(job, world).policy
        policy.module.load_state_dict(load_file(folder / WEIGHTS))
        return policy


def build(job: Job, world: World) -> Algorithm:
    """The algorithm of a job over its training environment."""
    chosen = registry.parse(job.algo, job.settings)
    environment = world.training(chosen.envs, job.seed)
    return registry.build(job.algo, environment, world.inputs, chosen.settings, seed=job.seed, timesteps=job.timesteps)


ENGINES: Mapping[str, Callable[[], Engine]] = {"torch": TorchEngine}


def engine(name: str) -> Engine:
    """The engine called `name`.

    Raises:
        UserError: there is none.
    """
    if name not in ENGINES:
        raise UserError(f"--engine {name}: not known (known: {', '.join(ENGINES)})")
    return ENGINES[name]()
