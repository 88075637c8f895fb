"""A connection to Ray: the cluster that is already there, or a private one for as long as it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from marl_pipeline.errors import UserError

_ATTEMPTS = 4
"""Ray gives a private cluster 30 s to start, which a busy machine may not manage the first time."""


@contextmanager
def connected(*, cpus: int) -> Iterator[None]:
    """Inside, Ray is up.

    A connection that the caller has made is used and left open; otherwise the cluster at `RAY_ADDRESS`; otherwise one
    of this machine, with `cpus` slots (processes, not cores) and its GPUs, that ends with the block.

    Raises:
        UserError: it does not start.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # of a cluster that nobody else can reach
        _start_private(cpus)
    try:
        yield
    finally:
        ray.shutdown()


def _start_private(cpus: int) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False)
            return
        except Exception as error:  # Ray raises it bare
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if attempt == _ATTEMPTS:
                raise UserError(
                    f"Ray did not start in {attempt} attempts, this machine is too busy; run fewer stages at once "
                    "(run.workers), or set RAY_ADDRESS to a cluster that runs"
                ) from error
