"""What an engine is given and what it hands back, whichever library does the learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Algorithm, Policy
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.config import Section
from marl_pipeline.envs.episodes import EpisodeMetric
from marl_pipeline.envs.protocol import Environment, closing
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.progress import OnStep
from marl_pipeline.training.loop import Evaluate, Run

Weights = dict[str, Tensor]
"""The `state_dict` of a policy's module, on the CPU: what a saved policy holds."""


MakeEnvironment = Callable[[int, int], Environment]
"""(number of environments, seed) -> an environment on the run's device; equal seeds give equal episodes."""


class Build(Protocol):
    """One of the project's own algorithms."""

    def __call__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: Any,
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = NO_REDUCTION,
    ) -> Algorithm: ...


@dataclass(frozen=True)
class Task:
    """One training run, whoever makes it. Engines with several processes pickle it.

    Attributes:
        algorithm: its name ("mappo"); engines that bring algorithms of their own choose by it.
        settings: the algorithm's own; outside libraries are given what they have a name for.
        build: the project's own algorithm; its policy is what every engine hands back.
        make, inputs: the environment, and what a network reads of it.
        metrics: episode metrics of the environment, measured as it is trained in.
        num_envs: environments in all, shared out to the workers.
        timesteps: environment steps in all.
        workers: processes that learn together.
        evaluate: greedy returns of a policy, called on the first worker; None for a run without evaluations.
        evaluate_every, checkpoint_every: in environment steps.
        select: evaluates the first weights too and ends with those of the best evaluation; else with the last.
        score: what the mean of an evaluation is called among the figures.
        start: weights that the run starts from (`Algorithm.load_weights`); None for fresh ones.
        curriculum: environment steps at which the stages of the environment begin, from 0 on; empty without stages.
    """

    algorithm: str
    settings: Section
    build: Build
    make: MakeEnvironment
    inputs: Inputs
    num_envs: int
    seed: int
    timesteps: int
    workers: int
    device: torch.device
    evaluate: Evaluate | None
    evaluate_every: int
    checkpoint: Checkpointer
    checkpoint_every: int
    label: str
    on_step: OnStep
    select: bool = False
    score: str = "test_return"
    start: Weights | None = None
    curriculum: tuple[int, ...] = ()
    metrics: Mapping[str, EpisodeMetric] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A policy and how it came to be.

    Attributes:
        weights: the `state_dict` of the module of the policy that `Task.build` makes; see `load_policy`.
        learned: all that the project's own algorithm has learned (`Algorithm.weights`), for a run that starts from it;
            None from the engines of other libraries.
    """

    weights: Weights
    run: Run
    learned: Weights | None = None

    def steps_to(self, level: float) -> int | None:
        """Environment steps at the first evaluation whose mean is at least `level`; None if there was none."""
        return next((entry.steps for entry in self.run.evaluations if entry.mean >= level), None)


def cpu_weights(module: torch.nn.Module) -> Weights:
    """A module's state, apart from the module: later training does not change it."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def blank_policy(task: Task) -> Policy:
    """The policy that the task trains, before any training: weights of any engine are loaded into its module."""
    with closing(task.make(1, task.seed)) as environment:
        return task.build(environment, task.inputs, task.settings, seed=task.seed, timesteps=1).policy


def load_policy(task: Task, weights: Weights) -> Policy:
    """The policy that an engine trained on the task, whichever it was."""
    policy = blank_policy(task)
    policy.module.load_state_dict(weights)
    return policy
