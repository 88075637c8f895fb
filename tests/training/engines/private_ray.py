"""A Ray of the tests' own: its files and its home are in a folder that goes away."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import ray


@contextmanager
def private_ray(*, cpus: int) -> Iterator[None]:
    """The path of the folder is short: Ray's sockets lie in it, and a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        private = {"HOME": folder, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        with patch.dict(os.environ, private):
            ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
            try:
                yield
            finally:
                ray.shutdown()
