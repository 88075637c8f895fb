"""How a process that computes uses the machine: its threads, its memory, and results that repeat."""

from __future__ import annotations

import ctypes
import os
import sys

from marl_pipeline.errors import UserError

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Variables that bound the threads of numeric libraries; most read them when they are loaded."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
_NEVER, _LARGEST = 2**31 - 1, 2**25


def configure(threads: int, device: str) -> None:
    """Bounds the threads of every numeric library, loaded or not yet, keeps freed memory for what comes next, and asks
    torch for repeatable results.

    Raises:
        UserError: `device` is cuda, and torch finds none.
    """
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("device cuda: torch finds no GPU here; use cpu, or install torch for this machine's driver")
    for name in THREADS:
        os.environ[name] = str(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    _keep_freed_memory()
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
        # Some CUDA kernels have no deterministic form: those warn instead of ending the run. (The other call for
        # this, `use_deterministic_algorithms`, imports the compiler: seconds for each stage.)
        torch.set_deterministic_debug_mode("error" if device == "cpu" else "warn")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _keep_freed_memory() -> None:
    """Has the C library keep what is freed instead of handing it back to the kernel.

    Learning allocates tensors of the same sizes again and again, and pages fresh from the kernel cost a tenth of a
    run. A C library without mallopt (macOS, musl) keeps its own ways. Variables of glibc that the user has set win.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & set(os.environ):
        return
    mallopt(_TRIM_THRESHOLD, _NEVER)
    mallopt(_MMAP_THRESHOLD, _LARGEST)
