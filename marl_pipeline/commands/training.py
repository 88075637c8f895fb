"""`marl train`, `marl evaluate` and `marl curves`: learning on any environment of the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from marl_pipeline.commands.shell import Json, ListCommand, find_root, print_json, seeds_of

Device = Annotated[Literal["cpu", "cuda"], typer.Option()]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-S", metavar="KEY=VALUE", help="One setting of the algorithm; may be repeated."),
]
EnvOptions = Annotated[
    list[str] | None,
    typer.Option("--env-set", metavar="KEY=VALUE", help="One option of the environment; may be repeated."),
]
Threads = Annotated[int, typer.Option(min=1, help="Of torch, for each run; part of a result's last bits.")]


def register(app: typer.Typer, env: typer.Typer, bench: typer.Typer) -> None:
    """Adds the commands of this module to `marl`."""
    app.command("train", cls=ListCommand)(train)


def train(
    algo: Annotated[str, typer.Option(help="Such as qmix or mappo; docs/algorithms.md has them all.")],
    env: Annotated[str, typer.Option(help="Such as mpe/simple_spread, market/portfolio or your_module:YourEnv.")],
    seeds: Annotated[str, typer.Option(metavar="SEED...", help="0 1 2, or 0..4; one run each.")] = "0",
    timesteps: Annotated[int, typer.Option(min=1, help="Environment steps, summed over the copies.")] = 1_000_000,
    overrides: Overrides = None,
    env_options: EnvOptions = None,
    engine: Annotated[str, typer.Option(help="Who runs the loop: torch, ray, rllib or sb3.")] = "torch",
    workers: Annotated[int, typer.Option(min=1, help="Processes that one run is spread over.")] = 1,
    device: Device = "cpu",
    threads: Threads = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Seeds trained side by side.")] = 1,
    test_episodes: Annotated[int, typer.Option(min=2, help="Greedy episodes of each evaluation.")] = 512,
    evaluate_every: Annotated[
        int | None, typer.Option(min=1, help="Environment steps between evaluations; a twentieth by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of all runs; models/runs by default.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Goes on where a run was interrupted, or forgets it.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Trains one algorithm on one environment, a run for each seed.

    A killed run resumes when the command is given again and ends in the same bytes.
    """
    numbers = seeds_of(seeds)
    root = find_root()
    from marl_pipeline.algos.registry import choose
    from marl_pipeline.overlay import parse_values
    from marl_pipeline.stages.training_runs.job import RUNS, Job
    from marl_pipeline.stages.training_runs.many import train_all

    chosen = choose(algo, env, parse_values(overrides or [], "-S"))
    common: dict[str, Any] = {
        "algo": algo,
        "env": env,
        "env_options": parse_values(env_options or [], "--env-set"),
        "engine": engine,
        "workers": workers,
        "settings": chosen.as_dict(),
        "timesteps": timesteps,
        "evaluate_every": evaluate_every or max(timesteps // 20, 1),
        "test_episodes": test_episodes,
        "test_seed": 0,
        "device": device,
        "threads": threads,
    }
    runs = train_all(
        [Job(seed=seed, **common) for seed in numbers],
        root,
        root / RUNS if out is None else out,
        fresh=not resume,
        side_by_side=jobs,
    )
    found = {"algo": algo, "env": env, "timesteps": timesteps, "runs": [run.as_json() for run in runs]}
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    from marl_pipeline.stages.training_runs.tables import runs_table

    Console().print(runs_table(algo, env, timesteps, runs))
