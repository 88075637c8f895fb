"""What `marl run` would do: which stages, why, and for how long."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

from marl_pipeline.config import load_params
from marl_pipeline.pipeline import dag
from marl_pipeline.pipeline.harness import DURATIONS
from marl_pipeline.pipeline.overlay import PARAMS, Merged, write

TYPICAL_SECONDS = 30.0
"""What a stage is assumed to take that never ran here; the quickstart profile on 2 cores is of that order."""

Basis = Literal["last run", "guess"]


@dataclass(frozen=True)
class Step:
    """One stage of the plan.

    Attributes:
        reasons: why it would run; empty if it is up to date.
        after: stages upstream that would run; if they write the same bytes as before, this one is skipped.
        seconds: estimate of its own work; 0 if it would not run.
        basis: where the estimate is from.
    """

    name: str
    reasons: tuple[str, ...]
    after: tuple[str, ...]
    seconds: float
    basis: Basis

    @property
    def runs(self) -> bool:
        return bool(self.reasons or self.after)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "runs": self.runs}


def plan(root: Path, merged: Merged) -> list[Step]:
    """The stages in order, as they would be with the merged parameters in place; nothing is left changed."""
    stages, changes = dag.preview(root, _in_place(root, merged))
    return steps(stages, changes, durations(root))


@contextmanager
def _in_place(root: Path, merged: Merged) -> Iterator[None]:
    """DVC reads params.yaml from the checkout, so the parameters are put there for the moment of the question."""
    before = (root / PARAMS).read_text()
    missing = [path for path in merged.inputs if not (root / path).exists()]
    try:
        write(root, merged)
        yield
    finally:
        write(root, Merged(before, {}))
        for path in missing:
            (root / path).unlink(missing_ok=True)


def steps(
    stages: Sequence[dag.Stage], changes: Mapping[str, Sequence[str]], seconds: Mapping[str, float]
) -> list[Step]:
    running: set[str] = set()
    found = []
    for stage in stages:
        reasons = tuple(changes.get(stage.name, ()))
        after = tuple(name for name in stage.upstream if name in running)
        runs = bool(reasons or after)
        if runs:
            running.add(stage.name)
        known = _known_seconds(stage, seconds)
        estimate = (known or TYPICAL_SECONDS) if runs else 0.0
        found.append(Step(stage.name, reasons, after, estimate, "last run" if known else "guess"))
    return found


def durations(root: Path) -> dict[str, float]:
    """Stage -> seconds of its last successful run in this checkout."""
    return {
        file.stem: float(json.loads(file.read_text())["seconds"]) for file in sorted((root / DURATIONS).glob("*.json"))
    }


def _known_seconds(stage: dag.Stage, seconds: Mapping[str, float]) -> float | None:
    """Its own last run; failing that the mean over its matrix."""
    if stage.name in seconds:
        return seconds[stage.name]
    kin = [value for name, value in seconds.items() if name.partition("@")[0] == stage.group]
    return sum(kin) / len(kin) if kin else None


def table(found: Sequence[Step], root: Path) -> Group:
    """The plan for a terminal."""
    rows = Table("stage", "why", "estimate", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for step in found:
        why = "; ".join(step.reasons) or (f"after {', '.join(step.after)}" if step.after else "up to date")
        time = f"{step.seconds:.0f} s ({step.basis})" if step.runs else ""
        rows.add_row(step.name, Text(why), time, style="" if step.runs else "dim")
    work = sum(step.seconds for step in found)
    workers = load_params(root / PARAMS).run.workers
    count = sum(step.runs for step in found)
    words = f"{count} of {len(found)} stages would run: about {work / 60:.1f} min of work"
    if workers > 1:
        words += f", up to {workers} side by side; at best {longest(found) / 60:.1f} min"
    return Group(rows, Text(words if count else "everything is up to date", style="bold"))


def longest(found: Sequence[Step]) -> float:
    """Seconds of the longest chain of stages that wait for each other: no number of workers goes below it."""
    until: dict[str, float] = {}
    for step in found:
        until[step.name] = step.seconds + max((until[name] for name in step.after), default=0.0)
    return max(until.values(), default=0.0)
