"""A job handed to its engine, and its policy on disk: whatever the engine, the weights of the project's own policy."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.envs.protocol import closing
from marl_pipeline.errors import UserError
from marl_pipeline.experiments.job import Job
from marl_pipeline.progress import OnStep
from marl_pipeline.scenarios.scenario import Scenario
from marl_pipeline.training.engines.registry import train as train_task
from marl_pipeline.training.engines.task import Task
from marl_pipeline.training.loop import Evaluate, Run

WEIGHTS = "policy.safetensors"
CHECKPOINTS_A_RUN = 20


def train(
    job: Job, world: Scenario, folder: Path, *, evaluate: Evaluate, checkpoint: Checkpointer, on_step: OnStep
) -> Run:
    """Trains the job from `checkpoint` on and writes the weights of its policy into `folder`, which exists.

    Raises:
        UserError: no such engine, or one that cannot train this.
    """
    chosen = registry.parse(job.algo, job.settings)
    trained = train_task(
        job.engine,
        Task(
            algorithm=job.algo,
            settings=chosen.settings,
            build=partial(registry.build, job.algo),
            make=world.training,
            inputs=world.inputs,
            metrics=world.metrics,
            num_envs=chosen.envs,
            seed=job.seed,
            timesteps=job.timesteps,
            workers=job.workers,
            device=torch.device(job.device),
            evaluate=evaluate,
            evaluate_every=job.evaluate_every,
            checkpoint=checkpoint,
            checkpoint_every=max(job.timesteps // CHECKPOINTS_A_RUN, 1),
            label=f"{job.algo} on {job.env}, seed {job.seed}",
            on_step=on_step,
        ),
    )
    save_file({name: tensor.contiguous() for name, tensor in trained.weights.items()}, folder / WEIGHTS)
    return trained.run


def load(job: Job, world: Scenario, folder: Path) -> Policy:
    """The policy of a job whose weights lie in `folder`.

    Raises:
        UserError: they are missing or damaged, or the environment is another one now.
    """
    chosen = registry.parse(job.algo, job.settings)
    with closing(world.training(1, job.seed)) as environment:
        algorithm = registry.build(
            job.algo, environment, world.inputs, chosen.settings, seed=job.seed, timesteps=job.timesteps
        )
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train again with --fresh") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({error}); train again with --fresh") from None
    try:
        algorithm.policy.module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: does not fit {job.env} as it is now ({reason}); train again with --fresh") from None
    return algorithm.policy
