"""How a stage shows its progress: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from marl_pipeline.progress import OnStep

_LINE_EVERY = 2.0  # seconds between two lines of the same label in a log


@contextmanager
def progress(stage: str) -> Iterator[OnStep]:
    """A callback that shows each step of `stage` on standard error."""
    if sys.stderr.isatty():
        with _bar(stage) as show:
            yield show
    else:
        yield _Lines(stage)


@contextmanager
def _bar(stage: str) -> Iterator[OnStep]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks = {}

        def show(label: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(f"{stage} {label}", total=total, figures="")
            bar.update(tasks[label], completed=step, total=total, figures=figures(metrics))

        yield show


class _Lines:
    """One line when a label begins, when it ends, and every few seconds between."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._label = ""
        self._last = 0.0

    def __call__(self, label: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if label != self._label or step >= total or now - self._last >= _LINE_EVERY:
            self._label, self._last = label, now
            line = f"{self._stage}: {label} {step}/{total} {figures(metrics)}".rstrip()
            print(line, file=sys.stderr, flush=True)


def figures(metrics: Mapping[str, float], most: int = 4) -> str:
    """The first few metrics as `name=value`."""
    return " ".join(f"{name}={value:.4g}" for name, value in list(metrics.items())[:most])
