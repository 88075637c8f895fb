"""Plants faults in the code and counts those that no test notices.

    python -m tools.mutants                                 a sample of 200 faults, and docs/mutants.md
    python -m tools.mutants --seed 1 --sample 50            another sample
    python -m tools.mutants --only algos/ppo.py --full      every fault of some modules
    python -m tools.mutants --survivors                     the survivors of earlier runs again

An interrupted run goes on where it was; `--fresh` begins again. Each run traces the fast tests that have changed, to
know which of them call which functions: a fault is shown only to tests that reach it, the quickest and nearest first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

from tools.mutants import report, runs
from tools.mutants.faults import PACKAGE, ROOT, Mutant, files, mutants_of, sampled
from tools.mutants.reach import Reach, kept_at, test_files
from tools.mutants.runs import End

OUTCOMES = ROOT / ".marl" / "mutants" / "outcomes.jsonl"
"""How every fault ended that was ever planted, one a line."""


def identity(mutant: Mutant) -> str:
    """Of a fault in one version of its file."""
    content = hashlib.sha256((PACKAGE / mutant.path).read_bytes()).hexdigest()[:16]
    return f"{content} {mutant.label}"


def known_outcomes() -> dict[str, End]:
    if not OUTCOMES.exists():
        return {}
    lines = [json.loads(line) for line in OUTCOMES.read_text().splitlines()]
    return {line["fault"]: End(line["how"], line["by"], line["seconds"]) for line in lines}


def warm_up() -> None:
    """Imports once, before the forks, what every test needs and no fault is planted in."""
    import gymnasium  # noqa: F401
    import hypothesis  # noqa: F401
    import numba  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import ruamel.yaml  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import torch.utils.flop_counter

    torch.set_num_threads(1)


def without_flaky(ends: dict[str, End]) -> dict[str, End]:
    """A kill by a test that fails without a fault too is none."""
    killers = sorted({end.by for end in ends.values() if end.how == "killed" and "::" in end.by})
    if not killers or not runs.fails_without_a_fault(killers):
        return ends
    flaky = {killer for killer in killers if runs.fails_without_a_fault([killer])}
    return {
        fault: End("broken", f"{end.by} fails without a fault", end.seconds) if end.by in flaky else end
        for fault, end in ends.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Plants faults in the code and counts those that no test notices.")
    parser.add_argument("--sample", type=int, default=200, help="about so many faults, spread over the modules")
    parser.add_argument("--full", action="store_true", help="every fault instead of a sample")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", nargs="*", default=[], help="files or folders under marl_pipeline/")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of CPU of the tests shown to it")
    parser.add_argument("--fresh", action="store_true", help="plants faults again whose end is known")
    parser.add_argument("--survivors", action="store_true", help="plants those again that were not killed")
    parser.add_argument("--trace", action="store_true", help="traces the tests that have changed, and plants none")
    parser.add_argument("--list", action="store_true", help="names the faults and plants none")
    parser.add_argument("--report", type=Path, default=report.PAGE)
    given = parser.parse_args()

    os.chdir(ROOT)
    every = {path: mutants_of(path) for path in files(given.only)}
    everything = [mutant for found in every.values() for mutant in found]
    sample = everything if given.full else sampled(every, given.sample, given.seed)
    if given.list:
        for mutant in sample:
            print(f"{mutant.path}:{mutant.line}  {mutant.change}")
        return

    warm_up()
    paths = test_files()
    runs.trace([path for path in paths if not kept_at(path).exists()], given.jobs)
    if given.trace:
        return
    reach = Reach.load(paths)
    known = {} if given.fresh else known_outcomes()
    if given.survivors:
        known = {fault: end for fault, end in known.items() if end.detected}
    ends = {identity(mutant): known[identity(mutant)] for mutant in sample if identity(mutant) in known}
    OUTCOMES.parent.mkdir(parents=True, exist_ok=True)

    def on_end(mutant: Mutant, end: End) -> None:
        ends[identity(mutant)] = end
        line = {"fault": identity(mutant), "how": end.how, "by": end.by, "seconds": round(end.seconds, 1)}
        with OUTCOMES.open("a") as log:
            log.write(json.dumps(line) + "\n")
        place = f"{mutant.path}:{mutant.line}"
        print(f"{len(ends):4} {end.how:9} {end.seconds:6.1f} s  {place}  {mutant.change}  {end.by}", flush=True)

    work = [mutant for mutant in sample if identity(mutant) not in ends]
    runs.play(work, reach, jobs=given.jobs, budget=given.budget, on_end=on_end)
    ends = without_flaky(ends)
    outcome = [(mutant, ends[identity(mutant)]) for mutant in sample]
    print(report.summary_line(outcome, len(everything)))
    if not given.only:
        how = "every fault" if given.full else f"`--sample {given.sample} --seed {given.seed}`"
        given.report.write_text(report.page(outcome, len(everything), how))


if __name__ == "__main__":
    main()
