"""Two processes in one gloo group, without Ray, that do one piece of work after another."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from marl_pipeline.training.engines.data_parallel import ProcessGroup

WORKERS = 2


class Pair:
    """A context: the two workers live as long as it does."""

    def __init__(self, meeting: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for rank in range(WORKERS):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, meeting, there), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *exception: object) -> None:
        for pipe in self._pipes:
            pipe.send_bytes(pickle.dumps(None))
        for process in self._processes:
            process.join()

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `work(group, *arguments)` returns on each worker; an exception is returned as it is.

        `work` must be a function of a module; if it fails it must fail on both workers.
        """
        for pipe in self._pipes:
            pipe.send_bytes(pickle.dumps((work, arguments)))
        return [pickle.loads(pipe.recv_bytes()) for pipe in self._pipes]


def _serve(rank: int, meeting: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORKERS, timeout=timedelta(seconds=30)
    )
    group = ProcessGroup()
    while (order := pickle.loads(pipe.recv_bytes())) is not None:
        work, arguments = order
        try:
            result = work(group, *arguments)
        except Exception as error:
            result = error
        pipe.send_bytes(pickle.dumps(result))
    dist.destroy_process_group()
