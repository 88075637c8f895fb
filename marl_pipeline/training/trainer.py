"""The training loop: collect, update, now and then evaluate, keep the best, survive a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from marl_pipeline.algos.common.rollout import Collector, Experience
from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.progress import OnStep

Weights = dict[str, dict[str, Tensor]]


class Learner(Protocol):
    """An algorithm bound to one group's policy."""

    def update(self, experience: Experience, generator: torch.Generator) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Curves:
    """Figures over iterations: name -> (iterations, values)."""

    points: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)

    def add(self, iteration: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            x, y = self.points.setdefault(name, ([], []))
            x.append(iteration)
            y.append(value)

    def as_records(self, prefix: str = "") -> list[dict[str, Any]]:
        """A list of {name, x, y}, as the report draws them."""
        return [{"name": prefix + name, "x": x, "y": y} for name, (x, y) in sorted(self.points.items())]


@dataclass(frozen=True)
class Trained:
    """How a training run went.

    Attributes:
        curves: every metric by iteration.
        best_iteration: the evaluated iteration whose weights were kept (0: the weights from before training).
        best_score: its score; None when nothing was evaluated.
    """

    curves: Curves
    best_iteration: int
    best_score: float | None


def train(
    *,
    collector: Collector,
    learners: Mapping[str, Learner],
    modules: Mapping[str, torch.nn.Module],
    horizon: int,
    iterations: int,
    generator: torch.Generator,
    evaluate: Callable[[], float] | None,
    evaluate_every: int,
    label: str,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> Trained:
    """Trains the groups named in `learners`; the others act and do not learn.

    With `evaluate`, the modules end with the weights that scored best (ties: the earliest), those from before the
    first iteration included: training cannot leave them worse on the score. Without it, with the last.

    Args:
        modules: the networks that the learners change, by group.
        generator: shuffles minibatches.
        evaluate: scores the current weights, higher is better.
    """
    curves = Curves()
    best_weights: Weights = {}
    best_iteration, best_score = 0, None
    start = 0
    saved = checkpoint.load()
    if saved is not None:
        start = int(saved["iteration"])
        curves.points = {name: (list(x), list(y)) for name, (x, y) in saved["curves"].items()}
        best_weights, best_iteration, best_score = saved["best_weights"], saved["best_iteration"], saved["best_score"]
        collector.load_state_dict(saved["collector"])
        generator.set_state(saved["generator"])
        for name, learner in learners.items():
            learner.load_state_dict(saved["learners"][name])
    elif evaluate is not None:
        best_score, best_weights = evaluate(), _copy(modules)
        curves.add(0, {"validation": best_score})

    for iteration in range(start + 1, iterations + 1):
        experience = collector.collect(horizon)
        metrics: dict[str, float] = {}
        for name, learner in learners.items():
            updated = learner.update(experience[name], generator)
            reward = float(experience[name].reward.sum(0).mean()) / horizon
            metrics |= {f"{name}/{key}": value for key, value in {**updated, "reward_per_step": reward}.items()}
        if evaluate is not None and (iteration % evaluate_every == 0 or iteration == iterations):
            score = evaluate()
            metrics["validation"] = score
            if best_score is None or score > best_score:
                best_score, best_iteration, best_weights = score, iteration, _copy(modules)
        curves.add(iteration, metrics)
        on_step(label, iteration, iterations, metrics)
        checkpoint.save(
            {
                "iteration": iteration,
                "curves": {name: [x, y] for name, (x, y) in curves.points.items()},
                "best_weights": best_weights,
                "best_iteration": best_iteration,
                "best_score": best_score,
                "collector": collector.state_dict(),
                "generator": generator.get_state(),
                "learners": {name: learner.state_dict() for name, learner in learners.items()},
            }
        )
    if evaluate is not None:
        for name, module in modules.items():
            module.load_state_dict(best_weights[name])
    else:
        best_iteration = iterations
    return Trained(curves, best_iteration, best_score)


def _copy(modules: Mapping[str, torch.nn.Module]) -> Weights:
    return {
        name: {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
        for name, module in modules.items()
    }
