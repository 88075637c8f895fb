"""A connection to Ray: the cluster that is already there, or a private one for as long as it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def connected(*, cpus: int) -> Iterator[None]:
    """Inside, Ray is up.

    A connection that the caller has made is used and left open; otherwise the cluster at `RAY_ADDRESS`; otherwise one
    of this machine, with `cpus` slots (processes, not cores) and its GPUs, that ends with the block.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # of a cluster that nobody else can reach
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
