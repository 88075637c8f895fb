"""How long `marl data check` takes for a large file of bars, and how much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from marl_pipeline.data.calendar import schedule
from marl_pipeline.errors import UserError

LAST_YEAR = 2024
FileFormat = Literal["parquet", "csv"]


@dataclass(frozen=True)
class CheckBench:
    """Of one check in a process of its own, from its start to its end: wall and CPU seconds and peak resident memory
    (GiB). `findings` are those of bars that are made without a defect."""

    symbols: int
    years: int
    file_format: str
    file_mib: float
    bars: int
    findings: int
    wall_s: float
    cpu_s: float
    peak_gib: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        return [
            f"{self.bars:,} daily bars, {self.symbols} symbols x {self.years} years, {self.file_format}, "
            f"{self.file_mib:.0f} MiB: {self.findings} findings",
            f"wall {self.wall_s:.1f} s, CPU {self.cpu_s:.1f} s, peak memory {self.peak_gib:.2f} GiB",
        ]


def bench_checks(
    root: Path, *, symbols: int, years: int, calendar: str, seed: int, file_format: FileFormat
) -> CheckBench:
    """Makes a file of daily bars and runs `marl data check` on it.

    Args:
        root: of the repository, whose params.yaml applies.

    Raises:
        UserError: the calendar has no such years, or the check ended with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"bars.{file_format}"
        bars = made_bars(symbols, years, calendar, seed)
        bars.to_parquet(file) if file_format == "parquet" else bars.to_csv(file, index=False)
        rows, size = len(bars), file.stat().st_size / 2**20
        del bars
        command = [sys.executable, "-m", "marl_pipeline.cli", "data", "check", str(file), "--json"]
        command += ["--frequency", "1Day", "--calendar", calendar, "--timezone", schedule(calendar).zone]
        answer, complaint = Path(folder) / "answer", Path(folder) / "complaint"
        began = time.perf_counter()
        with answer.open("wb") as out, complaint.open("wb") as err:
            process = subprocess.Popen(command, cwd=root, stdout=out, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise UserError(f"marl data check ended with {process.returncode}: {complaint.read_text()[-500:].strip()}")
        totals = json.loads(answer.read_text())["totals"]
    if totals["rows"] != rows:
        raise UserError(f"marl data check read {totals['rows']} of {rows} rows")
    peak = usage.ru_maxrss / 2 ** (30 if sys.platform == "darwin" else 20)  # bytes there, KiB on Linux
    cpu = usage.ru_utime + usage.ru_stime
    return CheckBench(symbols, years, file_format, size, rows, totals["findings"], wall, cpu, peak)


def made_bars(symbols: int, years: int, calendar: str, seed: int) -> pd.DataFrame:
    """Random walks on the sessions of the last `years` years up to LAST_YEAR, without a defect."""
    sessions = schedule(calendar).session
    first, end = np.searchsorted(sessions, np.array([f"{LAST_YEAR + 1 - years}", f"{LAST_YEAR + 1}"], "datetime64[D]"))
    days = sessions[first:end]
    if not len(days) or first == 0:
        raise UserError(f"calendar {calendar} does not reach back {years} years before {LAST_YEAR + 1}")
    rng = np.random.default_rng(seed)
    shape = (symbols, len(days))
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.012, shape), axis=1))
    opening = np.concatenate([close[:, :1], close[:, :-1]], axis=1) * np.exp(rng.normal(0.0, 0.003, shape))
    values = {
        "open": opening,
        "high": np.maximum(opening, close) * np.exp(np.abs(rng.normal(0.0, 0.004, shape))),
        "low": np.minimum(opening, close) / np.exp(np.abs(rng.normal(0.0, 0.004, shape))),
        "close": close,
        "volume": np.rint(rng.lognormal(12.0, 0.3, shape)),
    }
    names = np.array([f"S{number:04d}" for number in range(symbols)])
    date = np.datetime_as_string(days, unit="D")
    keys = {"symbol": np.repeat(names, len(days)), "timestamp": np.tile(date, symbols)}
    return pd.DataFrame(keys | {name: column.ravel() for name, column in values.items()})
