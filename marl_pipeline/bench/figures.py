"""Every figure that README and docs print comes from a command named here, and can be made again by `make figures`.

A document holds a figure between `<!-- figure: NAME -->` and `<!-- end of figure -->`. `docs/figures.json` keeps what
was written there, by which command, at which commit, on which machine, and a digest of the code that the figure
describes: when that code has changed since, the figure is older than it (`stale`).
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marl_pipeline.errors import UserError
from marl_pipeline.store.digest import source_digest

RECORDS = Path("docs/figures.json")
BLOCK = re.compile(r"<!-- figure: (?P<name>[\w-]+) -->\n(?P<block>.*?)<!-- end of figure -->", re.DOTALL)
MARL = (sys.executable, "-m", "marl_pipeline.cli")


@dataclass(frozen=True)
class Figure:
    """One block of a document.

    Attributes:
        name: as in the documents' marks.
        command: what a reader would type to see it.
        code: files and folders below `marl_pipeline/` that its numbers describe.
        make: writes the Markdown of the block from a checkout of its own.
    """

    name: str
    command: str
    code: tuple[str, ...]
    make: Callable[[Path], str]


@dataclass(frozen=True)
class Written:
    """A figure as it stands in the documents."""

    command: str
    commit: str
    date: str
    machine: str
    code: str
    block: str


def figures() -> dict[str, Figure]:
    """All figures by name."""
    pipeline = ("agents", "algos", "data", "encoders", "envs", "evaluation", "nn", "signals", "stages", "training")
    market = ("envs/trading", "bench/market.py")
    known = [
        Figure("default-run", "marl run", pipeline, _default_run),
        Figure("planted-run", "marl run --profile planted", pipeline, _planted_run),
        Figure("strategies-run", "marl run --profile strategies", pipeline, _strategies_run),
        Figure("market-speed", "marl bench market", market, _market_speed),
        Figure("learning-speed", "marl bench learning", ("algos", "nn", "envs/particle"), _learning_speed),
        Figure("reference", "marl bench reference", ("algos", "nn", "envs/particle", "training"), _reference),
        Figure("reward-gap", "marl env gap", ("envs/trading", "diagnostics/reward_gap.py"), _reward_gap),
    ]
    return {figure.name: figure for figure in known}


def make_figures(root: Path, names: Sequence[str], on_figure: Callable[[str], None]) -> list[Path]:
    """Makes the named figures (all of them for none) one after another and writes records and documents.

    Raises:
        UserError: no such figure, changes that are not committed, or a command that failed.
    """
    known = figures()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"figure '{unknown[0]}' is not known (known: {', '.join(known)})")
    if _git(root, "status", "--porcelain", "--untracked-files=no"):
        raise UserError("a figure belongs to a commit: commit or stash the changes first")
    changed: set[Path] = set()
    for name in names or known:
        on_figure(name)
        figure = known[name]
        with _checkout(root) as place:
            block = figure.make(place)
        records = read_records(root)
        records[name] = Written(
            command=figure.command,
            commit=_git(root, "rev-parse", "--short", "HEAD"),
            date=datetime.now(UTC).date().isoformat(),
            machine=machine(),
            code=code_of(root, figure),
            block=block,
        )
        text = json.dumps({key: asdict(value) for key, value in sorted(records.items())}, indent=1, ensure_ascii=False)
        (root / RECORDS).write_text(text + "\n", encoding="utf-8")
        changed |= {RECORDS, *write_blocks(root, records)}
    return sorted(changed)


def read_records(root: Path) -> dict[str, Written]:
    """What was written, by the figure's name."""
    path = root / RECORDS
    if not path.exists():
        return {}
    return {name: Written(**value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}


def documents(root: Path) -> list[Path]:
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def marked(root: Path) -> dict[str, list[tuple[Path, str]]]:
    """Figure -> the documents that hold it, with the block there."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for page in documents(root):
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            found.setdefault(match["name"], []).append((page.relative_to(root), match["block"]))
    return found


def write_blocks(root: Path, records: Mapping[str, Written]) -> list[Path]:
    """Puts the recorded blocks into the documents; the documents that changed."""
    changed = []
    for page in documents(root):
        before = page.read_text(encoding="utf-8")

        def put(match: re.Match[str]) -> str:
            record = records.get(match["name"])
            block = match["block"] if record is None else shown(record)
            return f"<!-- figure: {match['name']} -->\n{block}<!-- end of figure -->"

        after = BLOCK.sub(put, before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            changed.append(page.relative_to(root))
    return changed


def shown(record: Written) -> str:
    """The block as it stands in a document: the figure, and where it is from."""
    source = f"`{record.command}`, {record.date}, commit {record.commit}, {record.machine}"
    return f"{record.block.rstrip()}\n\n*{source}.*\n"


def stale(root: Path) -> dict[str, str]:
    """Figures that are older than the code they describe, or were never made: name -> why."""
    known, records = figures(), read_records(root)
    found = {}
    for name in marked(root):
        if name not in records:
            found[name] = "never made by `make figures`"
        elif records[name].code != code_of(root, known[name]):
            found[name] = f"of {records[name].date}, commit {records[name].commit}; its code has changed since"
    return found


def code_of(root: Path, figure: Figure) -> str:
    """A digest of the code that a figure describes."""
    return source_digest([root / "marl_pipeline" / path for path in figure.code])[:16]


def machine() -> str:
    """Processor, cores in use and the version of torch."""
    import torch

    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = names[0] if names else platform.processor()
    return f"{len(os.sched_getaffinity(0))} cores of {processor}, torch {torch.__version__}"


@contextmanager
def _checkout(root: Path) -> Iterator[Path]:
    """A clean clone of the commit, whose commands run its own code."""
    with tempfile.TemporaryDirectory(prefix="marl-figures-") as folder:
        _git(Path(folder), "clone", "--quiet", str(root.resolve()), ".")
        yield Path(folder)


def _git(root: Path, *words: str) -> str:
    return _run(root, "git", *words).strip()


def _marl(place: Path, *words: str) -> str:
    return _run(place, *MARL, *words)


def _run(place: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(place), "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{' '.join(command[-3:])}: {lines[-1]}")
    return done.stdout


# -- what makes each of them ------------------------------------------------------------------------------------------


def _default_run(place: Path) -> str:
    _marl(place, "run")
    lines = [line.rstrip() for line in _marl(place, "report").splitlines() if not line.startswith("report:")]
    return "```\n" + "\n".join(lines).strip() + "\n```\n"


def _planted_run(place: Path) -> str:
    rows = []
    for name, words in (("planted signal", ()), ("no signal", ("-S", "data.synthetic.signal=0"))):
        _marl(place, "run", "--profile", "planted", *words)
        summary = json.loads(_marl(place, "report", "--json"))
        excess = summary["statistics"]["excess_sharpe"]["equal_weight"]
        seeds = ", ".join(f"{seed['sharpe']:.2f}" for seed in summary["seeds"])
        cells = (
            name,
            summary["decision"],
            f"{summary['policy']['sharpe']:.2f}",
            f"{summary['baselines']['equal_weight']['sharpe']:.2f}",
            f"{excess['value']:.2f} ({excess['low']:.2f} to {excess['high']:.2f})",
            seeds,
        )
        rows.append(cells)
    return _table(("market", "decision", "Sharpe", "equal weight", "difference (95%)", "seeds"), rows)


def _strategies_run(place: Path) -> str:
    _marl(place, "run", "--profile", "strategies")
    summary = json.loads(_marl(place, "report", "--json"))
    rows = []
    for name, strategy in summary["strategies"].items():
        metrics, excess = strategy["metrics"], strategy["excess_sharpe"]
        rows.append(
            (
                name,
                strategy["kind"],
                f"{metrics['sharpe']:.2f}",
                f"{excess['value']:.2f} ({excess['low']:.2f} to {excess['high']:.2f})",
                f"{metrics['total_return']:.1%}",
                f"{metrics['max_drawdown']:.1%}",
                f"{metrics['turnover_per_day']:.1%}",
            )
        )
    header = ("strategy", "kind", "Sharpe", "against equal weight (95%)", "return", "drawdown", "turnover a day")
    return _table(header, rows)


def _market_speed(place: Path) -> str:
    sizes = ("--size", "128x143", "--size", "1024x143", "--size", "4096x143")
    steps: dict[tuple[str, int, int], dict[str, float]] = {}
    for step in ("plain", "compiled"):
        found = json.loads(_marl(place, "bench", "market", "--step", step, "--seconds", "2", *sizes, "--json"))
        for row in found["rows"]:
            key = (row["system"], row["envs"], row["symbols"])
            steps.setdefault(key, {})[step] = row["symbol_steps_per_s"]
    rows = []
    for (system, envs, symbols), rates in steps.items():
        cells = (f"{rates[step]:.2g}" if step in rates else "" for step in ("plain", "compiled"))
        rows.append((system, f"{envs} x {symbols}", *cells))
    return _table(("symbol-steps/s", "environments x symbols", "plain", "compiled"), rows)


def _learning_speed(place: Path) -> str:
    words = ("--algos", "mappo,qmix,idqn,maddpg", "--seconds", "6", "--agents", "3", "--threads", "1")
    found = json.loads(_marl(place, "bench", "learning", *words, "--json"))
    rows = [(row["system"], row["algo"], f"{row['steps_per_s']:,.0f}") for row in found["speeds"]]
    return _table(("system", "algorithm", "environment steps/s, one thread"), rows)


def _reference(place: Path) -> str:
    words = ("--algos", "mappo,qmix,idqn,maddpg", "--jobs", "2", "--json")
    found = json.loads(_marl(place, "bench", "reference", *words))
    rows: list[tuple[str, ...]] = []
    for entry in found["algorithms"]:
        low, high = entry["interval"]
        published = entry["published"]
        known = "" if published is None else f"{published['return']:.1f} ({published['timesteps'] / 1e6:g}M)"
        rows.append((entry["algo"], f"{entry['iqm']:.1f}", f"{low:.1f} to {high:.1f}", known))
    return _table(("algorithm", "return, IQM over 5 seeds", "95% interval", "published (steps)"), rows)


def _reward_gap(place: Path) -> str:
    found: Any = json.loads(_marl(place, "env", "gap", "--json"))
    rows = [
        (row["reward"], row["market"], *(f"{1e4 * value:.1f}" for value in values))
        for row in found["markets"]
        for values in [(row["by_pay"]["net"], row["by_net"]["net"], row["gap"])]
    ]
    return _table(("reward", "market", "paid most earns (bp)", "best earns (bp)", "gap (bp)"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"
