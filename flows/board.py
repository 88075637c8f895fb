"""What a person sees while a flow runs: a live table in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text


class Board(Protocol):
    def started(self, stage: str) -> None: ...

    def said(self, stage: str, line: str) -> None: ...

    def ended(self, stage: str, outcome: str, seconds: float) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def board(stages: int) -> Board:
    """A board for standard error; `stages` is how many there are to come."""
    return LiveBoard(stages) if sys.stderr.isatty() else LineBoard(stages)


class LineBoard:
    """Prefixes every line with its stage."""

    def __init__(self, stages: int) -> None:
        self._stages, self._done, self._lock = stages, 0, threading.Lock()

    def started(self, stage: str) -> None:
        self._print(f"{stage}: started")

    def said(self, stage: str, line: str) -> None:
        self._print(line if line.startswith((f"{stage}: ", "error: ")) else f"{stage}: {line}")

    def ended(self, stage: str, outcome: str, seconds: float) -> None:
        with self._lock:
            self._done += 1
            done = self._done
        took = f" in {seconds:.1f} s" if seconds >= 0.05 else ""
        self._print(f"{stage}: {outcome}{took} ({done}/{self._stages})")

    def _print(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")  # in one piece: stages write from several threads
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class LiveBoard:
    """Finished stages scroll by; those that run stay at the bottom, each with its last line."""

    def __init__(self, stages: int) -> None:
        self._stages, self._done = stages, 0
        self._running: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._table, transient=True)

    def started(self, stage: str) -> None:
        with self._lock:
            self._running[stage] = (time.monotonic(), "")

    def said(self, stage: str, line: str) -> None:
        with self._lock:
            begun, _ = self._running.get(stage, (time.monotonic(), ""))
            self._running[stage] = (begun, line.removeprefix(f"{stage}: "))

    def ended(self, stage: str, outcome: str, seconds: float) -> None:
        with self._lock:
            self._running.pop(stage, None)
            self._done += 1
        mark = {"failed": "[red]x[/]", "interrupted": "[yellow]-[/]"}.get(outcome, "[green]+[/]")
        self._console.print(f"{mark} {stage:<28} {outcome} [dim]{seconds:.1f} s[/]", highlight=False)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        with self._lock:
            now = time.monotonic()
            for stage, (begun, line) in self._running.items():
                table.add_row(
                    Text(stage, style="bold"), f"{now - begun:.0f} s", Text(line, overflow="ellipsis", no_wrap=True)
                )
            table.add_row(Text(f"{self._done} of {self._stages} stages", style="dim"))
        return table

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
