"""Independent random streams from one seed, by name: adding a stream changes no other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of the run seeded with `seed`."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stream(seed: int, name: str, device: torch.device | None = None) -> torch.Generator:
    """A torch generator for the stream `name`."""
    return torch.Generator(device or torch.device("cpu")).manual_seed(stream_seed(seed, name))


@contextmanager
def forked(seed: int, name: str, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators are those of the stream `name`; afterwards they are as they were.

    For what takes no generator: dropout and the initial weights of torch's own layers.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(stream_seed(seed, name))
        yield
