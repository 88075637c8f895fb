"""Tests of learning, which must not hang on one seed or on the last bits of a float: `over_seeds` asserts on a median.

    pytest -m learning --learning-seeds 10 --perturb --learning-report docs/learning_seeds.md

repeats each such test over 10 seeds, once more with initial weights changed in their last bits, fails those whose
outcome would hang on the seeds that happen to be chosen, and writes the table of what was found.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

Figures = float | Mapping[str, float]
PERTURBATION = 1e-6
"""Relative change of initial weights under `--perturb`: about eight steps of a float32."""


@dataclass(frozen=True)
class Finding:
    """One figure of one test over seeds.

    Attributes:
        bound: what the median must reach: at least, or at most if `below`.
        used: the seeds of an ordinary run.
        plain, perturbed: the figure by seed, and with perturbed weights.
    """

    test: str
    figure: str
    bound: float
    below: bool
    used: int
    plain: tuple[float, ...]
    perturbed: tuple[float, ...]

    @property
    def worst_first(self) -> list[float]:
        return sorted([*self.plain, *self.perturbed], reverse=self.below)

    @property
    def margin(self) -> float:
        """From the bound to the worst median that `used` of these values can have; negative: it can fail."""
        worst = statistics.median(self.worst_first[: self.used])
        return self.bound - worst if self.below else worst - self.bound

    @property
    def row(self) -> str:
        def told(values: tuple[float, ...]) -> str:
            three = (min(values), statistics.median(values), max(values)) if values else ()
            return " / ".join(f"{value:.3g}" for value in three)

        place = self.test.removeprefix("tests/").replace("::", ", ")
        sign = "≤" if self.below else "≥"
        used = "one seed" if self.used == 1 else f"median of {self.used}"
        return (
            f"| `{place}` | {self.figure or 'the figure'} | {used} {sign} {self.bound:g} | {told(self.plain)} | "
            f"{told(self.perturbed)} | {self.margin:.3g} | {commit()} |"
        )


@contextlib.contextmanager
def perturbed_weights(seed: int) -> Iterator[None]:
    """Within it, weights change by `PERTURBATION` when an optimizer takes them on: as another processor would."""
    takes_on = torch.optim.Optimizer.add_param_group
    generator = torch.Generator().manual_seed(seed)

    def add_param_group(self: torch.optim.Optimizer, group: dict[str, Any]) -> None:
        if not isinstance(group["params"], torch.Tensor):
            group["params"] = list(group["params"])
        takes_on(self, group)
        with torch.no_grad():
            for weight in group["params"]:
                noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                weight.mul_(1 + PERTURBATION * noise.to(weight.device))

    torch.optim.Optimizer.add_param_group = add_param_group  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.optim.Optimizer.add_param_group = takes_on  # type: ignore[method-assign]


@dataclass
class OverSeeds:
    """The fixture `over_seeds`."""

    test: str
    seeds: int
    perturb: bool
    findings: list[Finding]

    def __call__(
        self,
        figures: Callable[[int], Figures],
        *,
        at_least: Figures | None = None,
        at_most: Figures | None = None,
        seeds: int = 1,
    ) -> None:
        """Asserts that the median of a figure over seeds 0, 1, ... keeps its bound.

        Args:
            figures: of a seed: one figure, or several by name. They are what is learned, and not whether it suffices.
            at_least, at_most: the bounds: a number for one figure, by name for several.
            seeds: how many an ordinary run takes, an odd number: 1 where every seed keeps the bound.
        """
        assert seeds % 2, "the median of an even number of seeds is none of theirs"
        count = self.seeds or seeds
        plain = [named(figures(seed)) for seed in range(count)]
        perturbed = []
        if self.perturb:
            for seed in range(count):
                with perturbed_weights(seed):
                    perturbed.append(named(figures(seed)))
        bounds = [(name, value, False) for name, value in named(at_least).items()]
        bounds += [(name, value, True) for name, value in named(at_most).items()]
        assert bounds
        found = [
            Finding(
                self.test, name, bound, below, seeds,
                tuple(one[name] for one in plain), tuple(one[name] for one in perturbed),
            )
            for name, bound, below in bounds
        ]  # fmt: skip
        self.findings += found
        for one in found:
            median = statistics.median(one.plain)
            assert median <= one.bound if one.below else median >= one.bound, f"{one.figure}: {one.plain}"
            if self.seeds:
                assert one.margin >= 0, f"{one.figure}: the outcome hangs on the seed: {one.worst_first}"


def named(figures: Figures | None) -> dict[str, float]:
    if figures is None:
        return {}
    if not isinstance(figures, Mapping):
        return {"": float(figures)}
    return {name: float(value) for name, value in figures.items()}


FINDINGS = pytest.StashKey[list[Finding]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("learning")
    group.addoption("--learning-seeds", type=int, default=0, help="repeats tests of learning over so many seeds")
    group.addoption("--perturb", action="store_true", help="and with initial weights changed in their last bits")
    group.addoption("--learning-report", type=Path, default=None, help="writes the table of their figures")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FINDINGS] = []


def pytest_itemcollected(item: pytest.Item) -> None:
    if "over_seeds" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.learning)
        if item.config.getoption("--learning-seeds") or item.config.getoption("--perturb"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture
def over_seeds(request: pytest.FixtureRequest) -> OverSeeds:
    config = request.config
    return OverSeeds(
        request.node.nodeid,
        config.getoption("--learning-seeds"),
        config.getoption("--perturb"),
        config.stash[FINDINGS],
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    path, findings = config.getoption("--learning-report"), config.stash[FINDINGS]
    if config.getoption("--learning-seeds") and findings:
        terminalreporter.write_sep("=", "figures over seeds")
        for finding in findings:
            terminalreporter.write_line(finding.row)
    if path is not None:
        kept = path.read_text() if path.exists() else ""
        path.write_text(page(findings, config.getoption("--learning-seeds"), kept))


@functools.cache
def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()


def page(findings: list[Finding], seeds: int, kept: str) -> str:
    """The table as a page; rows of the page that is there stay where they were not found again."""
    rows = {tuple(row.split(" | ")[:2]): row for row in kept.splitlines() if row.startswith("| `")}
    rows |= {tuple(finding.row.split(" | ")[:2]): finding.row for finding in findings}
    return "\n".join(
        [
            "# What tests of learning find, seed by seed",
            "",
            f"Seeds 0 to {seeds - 1}; then the same seeds with initial weights changed by a relative {PERTURBATION:g},",
            "as another processor does. The margin is from the bound to the worst figure that an ordinary run can",
            "find with any choice of these seeds. A negative one is a test that hangs on its seed, and fails.",
            "",
            f"`pytest -m learning --learning-seeds {seeds} --perturb --learning-report docs/learning_seeds.md`; the",
            "last column is the commit of the code that ran. A run of some tests replaces their rows.",
            "",
            "| test | figure | asserted | min / median / max | perturbed | margin | commit |",
            "|---|---|---|---|---|---|---|",
            *(row for _, row in sorted(rows.items())),
            "",
        ]
    )
