"""The page about mutants: how many were noticed, by package, and what is to be said of each survivor."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from ruamel.yaml import YAML

from tools.mutants.faults import ROOT, Mutant
from tools.mutants.runs import End

PAGE = ROOT / "docs" / "mutants.md"
EXPLAINED = Path(__file__).with_name("explained.yaml")
"""Survivor (`Mutant.key`) -> why no test can notice it."""

Outcome = Sequence[tuple[Mutant, End]]


def explanations() -> dict[str, str]:
    return YAML(typ="safe").load(EXPLAINED.read_text()) or {}


def survivors(outcome: Outcome) -> list[tuple[Mutant, End]]:
    return [(mutant, end) for mutant, end in outcome if not end.detected]


def share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f}%"


def summary_line(outcome: Outcome, total: int) -> str:
    left, explained = survivors(outcome), explanations()
    equivalent = sum(mutant.key in explained for mutant, _ in left)
    count = len(outcome)
    timeouts = sum(end.how == "timeout" for _, end in outcome)
    return (
        f"{count} of {total} faults: {count - len(left)} noticed ({timeouts} of them by a test that did not end), "
        f"{len(left)} survived ({share(len(left), count)}), of which {equivalent} change nothing that can be observed; "
        f"that leaves {len(left) - equivalent} ({share(len(left) - equivalent, count)})."
    )


def package_of(mutant: Mutant) -> str:
    parts = mutant.path.split("/")
    return "/".join(parts[:2]) if parts[0] in ("envs", "data") else parts[0]


def page(outcome: Outcome, total: int, how: str) -> str:
    """docs/mutants.md."""
    explained = explanations()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    rows = []
    for package in sorted({package_of(mutant) for mutant, _ in outcome}):
        of = [(mutant, end) for mutant, end in outcome if package_of(mutant) == package]
        left = survivors(of)
        equivalent = sum(mutant.key in explained for mutant, _ in left)
        rows.append(
            f"| `{package}` | {len({mutant.path for mutant, _ in of})} | {len(of)} | {len(of) - len(left)} | "
            f"{len(left)} | {equivalent} | {share(len(left) - equivalent, len(of))} |"
        )
    listed = [
        f"- `{mutant.path}`, `{mutant.function or '(module)'}`: `{mutant.statement}`, where `{mutant.change}`. "
        f"{explained.get(mutant.key, 'Not explained: a test is missing.')}"
        for mutant, _ in survivors(outcome)
    ]
    return "\n".join(
        [
            "# Mutants",
            "",
            "`make mutants` plants small faults in the code one at a time (a comparison, a sign, `min` for `max`, a",
            "constant, the branches of a `where`, a call left out) and shows each to the fast tests that reach it. A",
            "fault that no test notices is a missing test, unless it changes nothing. How it works:",
            "[testing](testing.md). Not run in CI.",
            "",
            f"`make mutants` with {how}, {date.today().isoformat()}, commit {commit.strip()}:",
            summary_line(outcome, total),
            "",
            "| package | modules | faults | noticed | survived | of these without effect | share left |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "## Survivors",
            "",
            *(listed or ["None."]),
            "",
        ]
    )
