"""Data-parallel training on Ray Train: `workers` processes, here or on other machines, learn as one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue

from marl_pipeline.errors import UserError
from marl_pipeline.progress import OnStep
from marl_pipeline.training.engines.cluster import connected
from marl_pipeline.training.engines.data_parallel import ProcessGroup, train_share
from marl_pipeline.training.engines.task import Task, Trained

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""By device: gradients travel where they are, counters and checkpoints through the CPU."""


def train(task: Task) -> Trained:
    """Trains one of the project's own algorithms on `task.workers` processes, one thread each.

    On `cuda` every worker has a GPU of its own. The checkpoint is written by the first worker: with several machines
    it must lie where all of them can read it.

    Raises:
        UserError: a worker ended with one.
    """
    on_gpu = task.device.type == "cuda"
    with (
        connected(cpus=task.workers),
        tempfile.TemporaryDirectory() as results,
        _relayed(task.on_step) as on_step,
    ):
        trainer = TorchTrainer(
            _work,
            train_loop_config={"task": replace(task, on_step=on_step)},
            torch_config=TorchConfig(backend=BACKENDS[task.device.type]),
            scaling_config=ScalingConfig(num_workers=task.workers, use_gpu=on_gpu),
            run_config=RunConfig(storage_path=results, failure_config=FailureConfig(max_failures=0)),
        )
        try:
            trained: Trained = trainer.fit().return_value
        except WorkerGroupError as error:
            for failure in error.worker_failures.values():
                if isinstance(failure, UserError):
                    raise failure from error
            raise
    return trained


def _work(config: Mapping[str, Any]) -> Trained:
    torch.set_num_threads(1)
    return train_share(config["task"], ProcessGroup())


@dataclass(frozen=True)
class _Relay:
    """Progress from a worker to the process that waits for it."""

    queue: Queue

    def __call__(self, label: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        self.queue.put((label, step, total, dict(metrics)))


@contextmanager
def _relayed(on_step: OnStep) -> Iterator[OnStep]:
    """Calls `on_step` here for every call of what it yields, wherever that is made, in order."""
    queue = Queue(actor_options={"num_cpus": 0})

    def listen() -> None:
        while (reported := queue.get()) is not None:
            on_step(*reported)

    with ThreadPoolExecutor(1) as executor:
        listening = executor.submit(listen)
        try:
            yield _Relay(queue)
        finally:
            queue.put(None)
            listening.result()
            queue.shutdown()
