"""One training run: advance, now and then evaluate greedily, survive a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from marl_pipeline.algos.common.algorithm import Algorithm, Policy
from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.progress import OnStep

Evaluate = Callable[[Policy], Tensor]
"""Greedy returns [episodes] of a policy. Equal calls must play equal episodes, whatever was evaluated before."""


@dataclass(frozen=True)
class Evaluation:
    """Greedy returns at one moment of training: after `steps` environment steps, mean over the episodes."""

    steps: int
    mean: float
    std: float


@dataclass(frozen=True)
class Run:
    """How a run went.

    Attributes:
        steps: environment steps taken.
        evaluations: in order; the last one is of the final weights.
        metrics: the last figures of the algorithm.
        seconds: of this process's collecting and learning, evaluations left out; a resumed run counts from the resume.
        timed_steps: the steps taken in `seconds`.
    """

    steps: int
    evaluations: tuple[Evaluation, ...]
    metrics: Mapping[str, float]
    seconds: float
    timed_steps: int


def run(
    algorithm: Algorithm,
    *,
    timesteps: int,
    evaluate: Evaluate,
    evaluate_every: int,
    checkpoint: Checkpointer,
    checkpoint_every: int,
    label: str,
    on_step: OnStep,
) -> Run:
    """Trains until `timesteps` environment steps are taken (the last turn is played out).

    Args:
        evaluate_every: environment steps between greedy evaluations; one is made at the end in any case.
        checkpoint_every: environment steps between checkpoints.
    """
    steps, evaluations = 0, list[Evaluation]()
    metrics: Mapping[str, float] = {}
    saved = checkpoint.load()
    if saved is not None:
        steps, metrics = int(saved["steps"]), saved["metrics"]
        evaluations = [Evaluation(*entry) for entry in saved["evaluations"]]
        algorithm.load_state_dict(saved["algorithm"])
    seconds, timed_steps, unsaved = 0.0, 0, 0
    while steps < timesteps:
        began = time.perf_counter()
        turn = algorithm.advance()
        seconds += time.perf_counter() - began
        before, steps = steps, steps + turn.steps
        timed_steps, unsaved, metrics = timed_steps + turn.steps, unsaved + turn.steps, turn.metrics
        told = dict(metrics)
        if steps // evaluate_every > before // evaluate_every or steps >= timesteps:
            returns = evaluate(algorithm.policy)
            evaluations.append(Evaluation(steps, float(returns.mean()), float(returns.std())))
            told["test_return"] = evaluations[-1].mean
        on_step(label, min(steps, timesteps), timesteps, told)
        if unsaved >= checkpoint_every or steps >= timesteps:
            checkpoint.save(_state(algorithm, steps, evaluations, metrics))
            unsaved = 0
    return Run(steps, tuple(evaluations), metrics, seconds, timed_steps)


def _state(
    algorithm: Algorithm, steps: int, evaluations: list[Evaluation], metrics: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "steps": steps,
        "evaluations": [[entry.steps, entry.mean, entry.std] for entry in evaluations],
        "metrics": dict(metrics),
        "algorithm": algorithm.state_dict(),
    }
