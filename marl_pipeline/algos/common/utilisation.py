"""How near an update runs to what the machine can do: its floating-point operations a second beside those of a large
matrix product on the same threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

SIZE = 1024
"""Rows and columns of the matrices whose product says what the machine can do."""


@dataclass(frozen=True)
class Utilisation:
    """Attributes:
    flops: floating-point operations of the matrix products of one update; nothing else is counted.
    seconds: of the fastest update.
    peak: floating-point operations a second of a float32 product of two 1024 x 1024 matrices.
    """

    flops: int
    seconds: float
    peak: float

    @property
    def share(self) -> float:
        """Of the peak, in [0, 1]: what is missing went into element-wise work, memory and overhead."""
        return self.flops / self.seconds / self.peak


def utilisation(update: Callable[[], object], *, device: torch.device, rounds: int = 5) -> Utilisation:
    """Runs `update` `rounds` + 2 times: the first counts the operations, the second warms up, the fastest counts.

    All updates must do the same work, so let none stop early.
    """
    with FlopCounterMode(display=False) as counter:
        update()
    left, right = torch.ones(SIZE, SIZE, device=device), torch.ones(SIZE, SIZE, device=device)
    product = _fastest(lambda: left @ right, device, 4 * rounds)
    return Utilisation(counter.get_total_flops(), _fastest(update, device, rounds), 2 * SIZE**3 / product)


def _fastest(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    work()
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return best
