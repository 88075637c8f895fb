"""What happens around the iterations of a run: evaluation, selection, curriculum, opponents, early stop, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from marl_pipeline.envs.episodes import MeasuredEpisodes
from marl_pipeline.seeding import stream
from marl_pipeline.training.loop import Callback, Curves, Evaluate, Evaluation, Training


class GreedyEvaluation(Callback):
    """Plays the policy greedily every `every` environment steps and at the end; the mean is the metric `name`.

    Args:
        first: evaluates the weights that the run starts from too.
    """

    def __init__(self, evaluate: Evaluate, every: int, *, first: bool = False, name: str = "test_return") -> None:
        self._evaluate, self._every, self._first, self._name = evaluate, every, first, name

    def on_start(self, training: Training) -> None:
        if self._first:
            self._note(training)

    def on_iteration(self, training: Training, before: int) -> None:
        if training.steps // self._every > before // self._every or training.over:
            self._note(training)

    def _note(self, training: Training) -> None:
        evaluation = Evaluation.of(training.steps, self._evaluate(training.algorithm.policy))
        training.evaluations.append(evaluation)
        training.metrics[self._name] = evaluation.mean
        training.metrics |= {f"test/{name}": figure["mean"] for name, figure in evaluation.metrics.items()}


class EpisodeFigures(Callback):
    """Adds the figures of the episodes that ended in an iteration: `episode/<metric>`, means over them."""

    def __init__(self, environment: MeasuredEpisodes) -> None:
        self._environment = environment

    def on_iteration(self, training: Training, before: int) -> None:
        training.metrics |= {f"episode/{name}": mean for name, mean in self._environment.collected().items()}


class KeepBest(Callback):
    """Ends a run with the weights of its best evaluation, the earliest in a draw.

    It reads the evaluations that a `GreedyEvaluation` before it has made, so it selects on the episodes played there.
    With `first=True` there, training cannot leave the weights worse on them.
    """

    def __init__(self) -> None:
        self.best: Evaluation | None = None
        self._weights: dict[str, Tensor] = {}
        self._seen = 0

    def on_start(self, training: Training) -> None:
        self._compare(training)

    def on_iteration(self, training: Training, before: int) -> None:
        self._compare(training)

    def on_end(self, training: Training) -> None:
        if self.best is not None:
            training.algorithm.load_weights(self._weights)

    def _compare(self, training: Training) -> None:
        for evaluation in training.evaluations[self._seen :]:
            if self.best is None or evaluation.mean > self.best.mean:
                self.best, self._weights = evaluation, dict(training.algorithm.weights())
        self._seen = len(training.evaluations)

    def state_dict(self) -> dict[str, Any]:
        best = None if self.best is None else self.best.as_list()
        return {"best": best, "weights": self._weights, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = None if state["best"] is None else Evaluation(*state["best"])
        self._weights, self._seen = dict(state["weights"]), int(state["seen"])


class EarlyStopping(Callback):
    """Stops a run after `patience` evaluations in a row that were no better than the best before them."""

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_iteration(self, training: Training, before: int) -> None:
        means = [evaluation.mean for evaluation in training.evaluations]
        best = means.index(max(means)) if means else 0
        if len(means) - 1 - best >= self._patience:
            training.stopped = f"no better evaluation in the last {self._patience}"


@runtime_checkable
class Staged(Protocol):
    """An environment with stages; see `envs.staged.StagedEnvironment`."""

    @property
    def stage(self) -> int: ...

    def enter(self, stage: int) -> None: ...


class Curriculum(Callback):
    """Moves a staged environment on: to stage k once `starts[k]` environment steps are taken (`starts[0]` is 0)."""

    def __init__(self, starts: Sequence[int]) -> None:
        self._starts = list(starts)

    def on_iteration(self, training: Training, before: int) -> None:
        environment = training.environment
        if not isinstance(environment, Staged):
            raise TypeError("a curriculum needs a staged environment")
        due = max(stage for stage, start in enumerate(self._starts) if training.steps >= start)
        training.metrics["curriculum_stage"] = float(environment.stage)
        if due != environment.stage and training.steps < training.timesteps:
            environment.enter(due)


class OpponentPool(Callback):
    """Self-play (Bansal et al. 2018): a frozen group plays with earlier weights of the group that learns.

    Every `every` environment steps the learner's weights join the pool, the oldest of more than `size` leave it, and
    the opponent is drawn from it uniformly. Both groups have the same networks.
    """

    def __init__(self, *, learner: str, opponent: str, every: int, size: int, seed: int) -> None:
        self._learner, self._opponent, self._every, self._size = learner, opponent, every, size
        self._generator = stream(seed, "opponent pool")
        self._pool: list[dict[str, Tensor]] = []

    def on_start(self, training: Training) -> None:
        self._exchange(training)

    def on_iteration(self, training: Training, before: int) -> None:
        if training.steps // self._every > before // self._every:
            self._exchange(training)
        training.metrics["opponents"] = float(len(self._pool))

    def _exchange(self, training: Training) -> None:
        own = f"{self._learner}."
        weights = training.algorithm.weights()
        self._pool.append({key.removeprefix(own): kept for key, kept in weights.items() if key.startswith(own)})
        self._pool = self._pool[-self._size :]
        drawn = self._pool[int(torch.randint(len(self._pool), (), generator=self._generator))]
        training.algorithm.load_weights({f"{self._opponent}.{key}": kept for key, kept in drawn.items()})

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self._pool, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._pool = [dict(weights) for weights in state["pool"]]
        self._generator.set_state(state["generator"])


class Telemetry(Callback):
    """Keeps every figure of every iteration as a curve over environment steps."""

    def __init__(self) -> None:
        self.curves: Curves = {}

    def on_start(self, training: Training) -> None:
        self._add(training)

    def on_iteration(self, training: Training, before: int) -> None:
        self._add(training)

    def _add(self, training: Training) -> None:
        for name, value in training.metrics.items():
            steps, values = self.curves.setdefault(name, ([], []))
            steps.append(training.steps)
            values.append(value)

    def state_dict(self) -> dict[str, Any]:
        return {"curves": {name: [list(x), list(y)] for name, (x, y) in self.curves.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.curves = {name: (list(x), list(y)) for name, (x, y) in state["curves"].items()}


def as_records(curves: Curves, prefix: str = "") -> list[dict[str, Any]]:
    """A list of {name, x, y}, as the report draws them."""
    return [{"name": prefix + name, "x": x, "y": y} for name, (x, y) in sorted(curves.items())]
