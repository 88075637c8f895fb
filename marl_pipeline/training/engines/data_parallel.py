"""Several processes learn as one: environments are shared out, gradients are averaged.

Every worker holds the same weights at all times and runs the one training loop (`training.loop.train`); what it does
for itself and what for all is decided here. Any launcher that gives each process its place in a process group will do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Algorithm, Iteration, Policy
from marl_pipeline.algos.common.algorithm import Weights as Learned
from marl_pipeline.checkpoint import Checkpointer, State
from marl_pipeline.envs.episodes import MeasuredEpisodes
from marl_pipeline.envs.protocol import Environment, closing
from marl_pipeline.errors import UserError
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.progress import silent
from marl_pipeline.training.callbacks import Curriculum, EpisodeFigures, GreedyEvaluation, KeepBest, Telemetry
from marl_pipeline.training.engines.task import Task, Trained, Weights, cpu_weights
from marl_pipeline.training.loop import Callback, EpisodeResults, train


class ProcessGroup(Reduction):
    """Sums over the default process group of `torch.distributed` (gloo on CPU, NCCL on GPUs)."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.workers = dist.get_world_size()

    def sum(self, values: Tensor) -> Tensor:
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, mine: Any) -> list[Any]:
        """What every worker gave, in the order of ranks; empty on all but the first."""
        gathered: list[Any] = [None] * self.workers
        dist.gather_object(mine, gathered if self.rank == 0 else None)
        return gathered if self.rank == 0 else []

    def broadcast(self, value: Any) -> Any:
        """What the first worker gives."""
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def scatter(self, parts: list[Any]) -> Any:
        """This worker's entry of what the first one gives."""
        received: list[Any] = [None]
        dist.scatter_object_list(received, parts if self.rank == 0 else None)
        return received[0]


class SharedCheckpoint:
    """One checkpoint for all workers: the first one writes every worker's state in one atomic file."""

    def __init__(self, inner: Checkpointer, group: ProcessGroup) -> None:
        self._inner, self._group = inner, group

    def load(self) -> State | None:
        """This worker's state.

        Raises:
            UserError: another number of workers wrote it.
        """
        group = self._group
        saved = self._inner.load() if group.rank == 0 else None
        writers = group.broadcast(None if saved is None else len(saved["algorithm"]))
        if writers is None:
            return None
        if writers != group.workers:
            raise UserError(
                f"checkpoint: written by {writers} workers, now there are {group.workers}: resume with as many, or "
                "start anew"
            )
        mine: State = group.scatter([{**saved, "algorithm": part} for part in saved["algorithm"]] if saved else [])
        return mine

    def save(self, state: State) -> None:
        parts = self._group.gather(state["algorithm"])
        if self._group.rank == 0:
            self._inner.save({**state, "algorithm": parts})

    def child(self, name: str) -> SharedCheckpoint:
        return SharedCheckpoint(self._inner.child(name), self._group)


class Worker:
    """One worker's algorithm, counting the steps of all. Implements `algos.algorithm.Algorithm`."""

    def __init__(self, algorithm: Algorithm, reduction: Reduction) -> None:
        self._algorithm, self._reduction = algorithm, reduction

    @property
    def policy(self) -> Policy:
        return self._algorithm.policy

    def iterate(self) -> Iteration:
        iteration = self._algorithm.iterate()
        return replace(iteration, steps=int(self._reduction.sum(torch.tensor(iteration.steps))))

    def weights(self) -> Learned:
        return self._algorithm.weights()

    def load_weights(self, weights: Learned) -> None:
        self._algorithm.load_weights(weights)

    def state_dict(self) -> dict[str, Any]:
        return self._algorithm.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._algorithm.load_state_dict(state)


def train_share(task: Task, group: ProcessGroup) -> Trained:
    """What each worker of a process group runs. Progress, evaluation and the checkpoint are the first one's.

    Raises:
        RuntimeError: the workers' weights are no longer equal.
    """

    given = task.evaluate

    def evaluate(policy: Policy) -> EpisodeResults:
        assert given is not None
        require_equal_weights(cpu_weights(policy.module), group)
        played: EpisodeResults = group.broadcast(_on_cpu(given(policy)) if group.rank == 0 else None)
        return played

    shared = replace(
        task,
        evaluate=None if given is None else evaluate,
        checkpoint=SharedCheckpoint(task.checkpoint, group),
        on_step=task.on_step if group.rank == 0 else silent,
    )
    return train_in_one_process(shared, group)


def _on_cpu(played: EpisodeResults) -> EpisodeResults:
    return EpisodeResults(played.returns.cpu(), {name: values.cpu() for name, values in played.metrics.items()})


def train_in_one_process(task: Task, reduction: Reduction = NO_REDUCTION) -> Trained:
    """Trains one of the project's own algorithms in this process; the engine `torch`.

    Figures of training episodes are those of this worker's environments.
    """
    num_envs = reduction.share(task.num_envs, "environments")
    with closing(task.make(num_envs, reduction.own_seed(task.seed))) as environment:
        return _train(task, environment, reduction)


def _train(task: Task, environment: Environment, reduction: Reduction) -> Trained:
    measured = MeasuredEpisodes(environment, task.metrics) if task.metrics else None
    algorithm = task.build(
        environment if measured is None else measured,
        task.inputs,
        task.settings,
        seed=task.seed,
        timesteps=-(-task.timesteps // reduction.workers),
        reduction=reduction,
    )
    if task.start is not None:
        algorithm.load_weights(task.start)
    telemetry, best = Telemetry(), KeepBest()
    callbacks: list[Callback] = [] if measured is None else [EpisodeFigures(measured)]
    if task.evaluate is not None:
        callbacks += [GreedyEvaluation(task.evaluate, task.evaluate_every, first=task.select, name=task.score)]
    callbacks += [best] if task.select else []
    callbacks += [Curriculum(task.curriculum)] if task.curriculum else []
    run = train(
        Worker(algorithm, reduction),
        environment,
        timesteps=task.timesteps,
        callbacks=[*callbacks, telemetry],
        checkpoint=task.checkpoint,
        checkpoint_every=task.checkpoint_every,
        label=task.label,
        on_step=task.on_step,
    )
    learned = {name: tensor.cpu().contiguous() for name, tensor in algorithm.weights().items()}
    run = replace(run, curves=telemetry.curves, selected=best.best)
    return Trained(cpu_weights(algorithm.policy.module), run, learned)


def require_equal_weights(weights: Weights, group: ProcessGroup) -> None:
    """Raises on every worker if one of them holds other bytes than the first.

    Raises:
        RuntimeError: they differ.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    differs = torch.tensor(int(group.broadcast(digest.digest()) != digest.digest()))
    if int(group.sum(differs)):
        raise RuntimeError("the workers' weights differ: a learner takes a step without sharing its gradients")
