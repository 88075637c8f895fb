"""How long a classifier takes to answer: one row, and the whole cross-section."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn


@torch.inference_mode()
def inference_latency(
    module: nn.Module, window: int, features: int, batch: int, repeats: int = 200, warm_up: int = 20
) -> dict[str, float]:
    """Wall time of a forward pass on the CPU, in microseconds.

    Returns:
        p50_us, p95_us, p99_us of one row at a time; `batch` and rows_per_second of `batch` rows at a time.
    """
    module = module.cpu().eval()
    single = _times(module, torch.zeros(1, window, features), repeats, warm_up)
    many = _times(module, torch.zeros(batch, window, features), max(repeats // 10, 1), max(warm_up // 10, 1))
    p50, p95, p99 = np.percentile(single, (50, 95, 99)) * 1e6
    return {
        "p50_us": float(p50),
        "p95_us": float(p95),
        "p99_us": float(p99),
        "batch": batch,
        "rows_per_second": batch / float(np.median(many)),
    }


def _times(module: nn.Module, windows: torch.Tensor, repeats: int, warm_up: int) -> np.ndarray:
    taken = np.empty(warm_up + repeats)
    for index in range(len(taken)):
        start = time.perf_counter()
        module(windows)
        taken[index] = time.perf_counter() - start
    return taken[warm_up:]
