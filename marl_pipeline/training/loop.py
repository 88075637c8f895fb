"""The one training loop: iterate, let the callbacks do what they are for, survive a kill.

Everything that is trained goes through `train`: algorithms of `marl train`, the phases of the hierarchy in the DAG, one
process or several. What differs from run to run is a callback (`training.callbacks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from marl_pipeline.algos.common.algorithm import Algorithm, Policy
from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.progress import OnStep


@dataclass(frozen=True)
class EpisodeResults:
    """What greedy episodes came to.

    Attributes:
        returns: [episodes].
        metrics: name of an episode metric -> [episodes].
    """

    returns: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


Evaluate = Callable[[Policy], EpisodeResults]
"""Plays a policy greedily. Equal calls must play equal episodes, whatever was evaluated before."""

Spread = dict[str, float]
"""`mean` and `std` over the episodes of an evaluation."""

Curves = dict[str, tuple[list[int], list[float]]]
"""Name of a figure -> environment steps, values."""


@dataclass(frozen=True)
class Evaluation:
    """Greedy returns at one moment of training: after `steps` environment steps, mean over the episodes; and those of
    the episode metrics by name."""

    steps: int
    mean: float
    std: float
    metrics: Mapping[str, Spread] = field(default_factory=dict)

    @classmethod
    def of(cls, steps: int, played: EpisodeResults) -> Evaluation:
        returns = _spread(played.returns)
        metrics = {name: _spread(values) for name, values in played.metrics.items()}
        return cls(steps, returns["mean"], returns["std"], metrics)

    def as_list(self) -> list[Any]:
        """The arguments of an equal one, for a checkpoint."""
        return [self.steps, self.mean, self.std, dict(self.metrics)]


@dataclass
class Training:
    """A run as its callbacks see it.

    Attributes:
        environment: the one that the algorithm is trained in.
        timesteps: environment steps of the whole run.
        steps: environment steps taken.
        metrics: figures of the last iteration.
        evaluations: in order.
        stopped: why the run ends before `timesteps`; None while it goes on.
    """

    algorithm: Algorithm
    environment: Environment
    timesteps: int
    steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    evaluations: list[Evaluation] = field(default_factory=list)
    stopped: str | None = None

    @property
    def over(self) -> bool:
        return self.steps >= self.timesteps or self.stopped is not None


class Callback:
    """Called around the iterations of a run; these methods do nothing.

    What a callback remembers between two iterations belongs into its `state_dict`, or a resumed run differs.
    """

    def on_start(self, training: Training) -> None:
        """Before the first iteration of a run; a resumed run has had it."""

    def on_iteration(self, training: Training, before: int) -> None:
        """After every iteration, which began at `before` environment steps. May add to `training.metrics`, change the
        environment between episodes, or set `training.stopped`."""

    def on_end(self, training: Training) -> None:
        """After the last iteration."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


@dataclass(frozen=True)
class Run:
    """How a run went.

    Attributes:
        steps: environment steps taken.
        evaluations: in order.
        metrics: the last figures of the algorithm.
        seconds: of this process's collecting and learning, callbacks left out; a resumed run counts from the resume.
        timed_steps: the steps taken in `seconds`.
        curves: figures over the run, where they were recorded.
        selected: the evaluation whose weights were kept, where they were selected.
    """

    steps: int
    evaluations: tuple[Evaluation, ...]
    metrics: Mapping[str, float]
    seconds: float
    timed_steps: int
    curves: Curves = field(default_factory=dict)
    selected: Evaluation | None = None


def train(
    algorithm: Algorithm,
    environment: Environment,
    *,
    timesteps: int,
    callbacks: Sequence[Callback],
    checkpoint: Checkpointer,
    checkpoint_every: int,
    label: str,
    on_step: OnStep,
) -> Run:
    """Trains until `timesteps` environment steps are taken (the last iteration is completed) or a callback stops it.

    Args:
        environment: what the algorithm was built on, for callbacks that change it.
        callbacks: called in this order.
        checkpoint_every: environment steps between checkpoints; one is saved at the end in any case.
    """
    training = Training(algorithm, environment, timesteps)
    saved = checkpoint.load()
    if saved is None:
        for callback in callbacks:
            callback.on_start(training)
    else:
        _resume(training, callbacks, saved)
    seconds, timed_steps, unsaved = 0.0, 0, 0
    while not training.over:
        began = time.perf_counter()
        iteration = algorithm.iterate()
        seconds += time.perf_counter() - began
        before = training.steps
        training.steps += iteration.steps
        training.metrics = dict(iteration.metrics)
        timed_steps, unsaved = timed_steps + iteration.steps, unsaved + iteration.steps
        for callback in callbacks:
            callback.on_iteration(training, before)
        on_step(label, min(training.steps, timesteps), timesteps, training.metrics)
        if unsaved >= checkpoint_every or training.over:
            checkpoint.save(_state(training, callbacks))
            unsaved = 0
    for callback in callbacks:
        callback.on_end(training)
    return Run(training.steps, tuple(training.evaluations), training.metrics, seconds, timed_steps)


def _spread(values: Tensor) -> Spread:
    return {"mean": float(values.mean()), "std": float(values.std()) if len(values) > 1 else 0.0}


def _state(training: Training, callbacks: Sequence[Callback]) -> dict[str, Any]:
    return {
        "steps": training.steps,
        "metrics": dict(training.metrics),
        "evaluations": [entry.as_list() for entry in training.evaluations],
        "stopped": training.stopped,
        "algorithm": training.algorithm.state_dict(),
        "callbacks": [callback.state_dict() for callback in callbacks],
    }


def _resume(training: Training, callbacks: Sequence[Callback], saved: Mapping[str, Any]) -> None:
    training.steps, training.metrics = int(saved["steps"]), dict(saved["metrics"])
    training.evaluations = [Evaluation(*entry) for entry in saved["evaluations"]]
    training.stopped = saved["stopped"]
    training.algorithm.load_state_dict(saved["algorithm"])
    for callback, state in zip(callbacks, saved["callbacks"], strict=True):
        callback.load_state_dict(state)
