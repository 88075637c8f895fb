"""How fast algorithms learn, environment and learner together, beside BenchMARL; and what an update costs as agents
become many. docs/algorithms.md has the figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.algorithm import Algorithm
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.config import load_params
from marl_pipeline.pipeline.compute import configure
from marl_pipeline.scenarios.market.scenario import scenario_of, synthetic_dataset
from marl_pipeline.scenarios.presets import choose
from marl_pipeline.scenarios.registry import scenario

ENV = "mpe/simple_spread"
WARM_UP = 20_000
"""Environment steps before the clock starts: replays are filled beyond `learning_starts`, kernels are loaded."""

AGENTS = (3, 9, 27, 81, 143)
UPDATE_SETTINGS: dict[str, dict[str, Any]] = {
    "mappo": {"envs": 16, "horizon": 25, "epochs": 1, "minibatches": 1},
    "qmix": {
        "envs": 16,
        "train_freq": 1,
        "gradient_steps": 1,
        "batch": 32,
        "buffer_size": 4096,
        "learning_starts": 256,
    },
}
"""An iteration then has one update: of 400 steps for MAPPO, of 32 windows for QMIX after one step in every
environment."""

ITERATIONS = 5
PEER = Path(".ci/peer_benchmarl.py")
PEER_BATCHES = {"mappo": 4, "qmix": 40}


@dataclass(frozen=True)
class Speed:
    """Environment steps a second, collecting and learning together."""

    system: str
    algo: str
    agents: int
    threads: int
    device: str
    steps_per_s: float


@dataclass(frozen=True)
class Update:
    """One iteration with one update: the fastest of `ITERATIONS`, and the most memory that environment and learner
    took at once.

    On CUDA `bytes` is what torch allocated, elsewhere what was resident, both beyond what was there before.
    """

    system: str
    algo: str
    agents: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Arithmetic:
    """How near the updates of an on-policy algorithm run to the machine's limit; see `algos.utilisation`.

    Attributes:
        flops_per_step: of all updates on a rollout, by its environment steps.
        flops_per_s: of the updates alone.
        peak_flops_per_s: of a large matrix product on the same threads.
    """

    system: str
    algo: str
    agents: int
    threads: int
    device: str
    flops_per_step: float
    flops_per_s: float
    peak_flops_per_s: float


@dataclass(frozen=True)
class Absent:
    """A peer that could not be measured, and why."""

    system: str
    algo: str
    reason: str


Row = Speed | Arithmetic | Update | Absent


def measure(
    root: Path,
    algos: Sequence[str],
    *,
    seconds: float,
    threads: int,
    device: str,
    agents: Sequence[int],
    peer_python: Path | None,
) -> Iterator[Row]:
    """Speeds of `algos` on `ENV`, what their updates compute where they are on-policy, the peer if its interpreter is
    given, then the updates of `agents`."""
    for algo in algos:
        yield from speed(root, algo, seconds=seconds, threads=threads, device=device)
        if peer_python is not None and algo in PEER_BATCHES:
            yield peer_speed(root, peer_python, algo, own_settings=False, threads=threads)
            yield peer_speed(root, peer_python, algo, own_settings=True, threads=threads)
    for algo in (name for name in algos if name in UPDATE_SETTINGS):
        for number in agents:
            yield _update_apart(root, algo, number, threads=threads, device=device)


def speed(root: Path, algo: str, *, seconds: float, threads: int, device: str) -> Iterator[Speed | Arithmetic]:
    """Trains for `seconds` with the preset, after `WARM_UP` steps."""
    configure(threads, device)
    made = scenario(root, ENV, {}, device)
    chosen = choose(algo, ENV, {})
    environment = made.training(chosen.envs, 0)
    learner = registry.build(algo, environment, made.inputs, chosen.settings, seed=0, timesteps=10_000_000)
    agents = sum(spec.agents for spec in environment.groups.values())
    steps_per_s = _steps_per_s(learner, seconds, device)
    yield Speed("marl-pipeline", algo, agents, threads, device, steps_per_s)
    if isinstance(learner, OnPolicy):
        found = learner.utilisation()
        steps = chosen.envs * learner.horizon
        rates = (found.flops / steps, found.flops / found.seconds, found.peak)
        yield Arithmetic("marl-pipeline", algo, agents, threads, device, *rates)


def _steps_per_s(learner: Algorithm, seconds: float, device: str) -> float:
    warm = 0
    while warm < WARM_UP:
        warm += learner.iterate().steps
    _wait(device)
    begun, steps, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        steps += learner.iterate().steps
        _wait(device)
        passed = time.perf_counter() - begun
    return steps / passed


def update(root: Path, algo: str, agents: int, *, threads: int, device: str) -> Update:
    """One iteration of `UPDATE_SETTINGS` on `market/portfolio` with `agents` synthetic symbols besides the master.

    What an allocator keeps of earlier work hides memory: measure in a process of its own.
    """
    configure(threads, device)
    params = load_params(root / "params.yaml")
    synthetic = params.data.synthetic.model_copy(update={"symbols": agents, "bars": 600})
    data = params.data.model_copy(update={"source": "synthetic", "synthetic": synthetic, "start": None})
    params = params.model_copy(update={"data": data})
    made = scenario_of(synthetic_dataset(params), "synthetic", params, "market/portfolio", {"episode": 64}, device)
    chosen = choose(algo, "market/portfolio", UPDATE_SETTINGS[algo])
    before = _memory_from_here(device)
    environment = made.training(chosen.envs, 0)
    learner = registry.build(algo, environment, made.inputs, chosen.settings, seed=0, timesteps=1_000_000)
    steps = 0
    while steps < 512:
        steps += learner.iterate().steps
    best = float("inf")
    for _ in range(ITERATIONS):
        begun = time.perf_counter()
        learner.iterate()
        _wait(device)
        best = min(best, time.perf_counter() - begun)
    return Update("marl-pipeline", algo, agents, best, _peak(device) - before)


def peer_speed(root: Path, python: Path, algo: str, *, own_settings: bool, threads: int) -> Speed | Absent:
    """BenchMARL on VMAS's simple_spread, by its own settings or with environments, batches and networks as in our
    preset."""
    system = f"BenchMARL, {'its own' if own_settings else 'our'} settings"
    settings = None if own_settings else peer_settings(algo)
    batches = PEER_BATCHES[algo] if settings is not None else 2
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), str(root / PEER), "--algo", algo, "--settings", json.dumps(settings)]
        command += ["--batches", str(batches), "--threads", str(threads), "--folder", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        except OSError as error:
            return Absent(system, algo, str(error))
    if done.returncode != 0:
        return Absent(system, algo, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Speed(system, algo, 3, threads, "cpu", found["steps_per_s"])


def peer_settings(algo: str) -> dict[str, Any]:
    """What BenchMARL has a name for, as in our preset: environments, frames a batch, updates, rows an update,
    widths."""
    chosen = choose(algo, ENV, {})
    given, envs = chosen.as_dict(), chosen.envs
    if algo == "mappo":
        frames = envs * given["horizon"]
        batch, updates, memory = frames // given["minibatches"], given["epochs"], 1
    else:
        frames = envs * given["train_freq"]
        batch, updates, memory = given["batch"] * given["window"], given["gradient_steps"], given["buffer_size"]
    hidden = given["network"]["hidden"]
    return {"envs": envs, "frames": frames, "updates": updates, "batch": batch, "memory": memory, "hidden": hidden}


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "env": ENV,
        "speeds": [asdict(row) for row in rows if isinstance(row, Speed)],
        "arithmetic": [asdict(row) for row in rows if isinstance(row, Arithmetic)],
        "updates": [asdict(row) for row in rows if isinstance(row, Update)],
        "absent": [asdict(row) for row in rows if isinstance(row, Absent)],
    }


def words(row: Row) -> str:
    """One row in words."""
    match row:
        case Speed():
            return f"{row.system}, {row.algo}: {row.steps_per_s:,.0f} steps/s"
        case Arithmetic():
            share = row.flops_per_s / row.peak_flops_per_s
            return (
                f"{row.system}, {row.algo}: updates of {row.flops_per_step / 1e6:.2f} MFLOP a step run at "
                f"{row.flops_per_s / 1e9:.1f} GFLOP/s, {share:.0%} of a large matrix product's "
                f"{row.peak_flops_per_s / 1e9:.0f}"
            )
        case Update():
            return f"{row.system}, {row.algo}, {row.agents} agents: {row.seconds:.4f} s, {row.bytes / 2**20:.0f} MiB"
        case Absent():
            return f"{row.system}, {row.algo}: absent, {row.reason}"


def table(rows: Sequence[Row]) -> Table:
    """For a terminal."""
    shown = Table("system", "algorithm", "agents", "steps/s", "GFLOP/s (peak)", "s an update", "MiB")
    for column in shown.columns[2:]:
        column.justify = "right"
    for row in rows:
        match row:
            case Speed():
                shown.add_row(row.system, row.algo, str(row.agents), f"{row.steps_per_s:,.0f}", "", "", "")
            case Arithmetic():
                rate = f"{row.flops_per_s / 1e9:.1f} ({row.peak_flops_per_s / 1e9:.0f})"
                shown.add_row(row.system, row.algo, str(row.agents), "", rate, "", "")
            case Update():
                figures = (f"{row.seconds:.4f}", f"{row.bytes / 2**20:.0f}")
                shown.add_row(row.system, row.algo, str(row.agents), "", "", *figures)
            case Absent():
                shown.add_row(row.system, row.algo, "", "absent", "", row.reason, "")
    return shown


def _update_apart(root: Path, algo: str, agents: int, *, threads: int, device: str) -> Update:
    """`update` in a process of its own."""
    command = [sys.executable, "-m", __name__, str(root), algo, str(agents), str(threads), device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"update of {algo} with {agents} agents: {done.stderr.strip().splitlines()[-1]}")
    return Update(**json.loads(done.stdout))


def _memory_from_here(device: str) -> int:
    """Bytes in use now; `_peak` forgets what came before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of resident memory starts anew
    return _resident("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")


def _resident(entry: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry + ":"))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _main(root: str, algo: str, agents: str, threads: str, device: str) -> None:
    print(json.dumps(asdict(update(Path(root), algo, int(agents), threads=int(threads), device=device))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
