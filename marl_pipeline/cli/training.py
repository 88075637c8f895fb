"""`marl train`, `marl evaluate` and `marl curves`: learning on any environment of the protocol."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from marl_pipeline.cli.console import Json, print_json, repository
from marl_pipeline.cli.shell import ListCommand, listed, seeds_of
from marl_pipeline.errors import UserError

if TYPE_CHECKING:
    from marl_pipeline.experiments.run import Finished

Device = Annotated[Literal["cpu", "cuda"], typer.Option()]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-S", metavar="KEY=VALUE", help="One setting of the algorithm; may be repeated."),
]
EnvOptions = Annotated[
    list[str] | None,
    typer.Option("--env-set", metavar="KEY=VALUE", help="One option of the environment; may be repeated."),
]
Pictures = Annotated[
    bool, typer.Option("--pictures/--no-pictures", help="Plays one more episode and draws it into the run's folder.")
]
Threads = Annotated[int, typer.Option(min=1, help="Of torch, for each run; part of a result's last bits.")]


def register(app: typer.Typer, env: typer.Typer, bench: typer.Typer) -> None:
    """Adds the commands of this module to `marl`."""
    app.command("train", cls=ListCommand)(train)
    app.command("evaluate")(evaluate)
    app.command("curves")(curves)
    app.command("settings")(settings)
    env.command("check")(env_check)
    bench.command("learning", cls=ListCommand)(bench_learning)
    bench.command("reference", cls=ListCommand)(bench_reference)


def train(
    algo: Annotated[str, typer.Option(help="Such as qmix or mappo; docs/algorithms.md has them all.")],
    env: Annotated[str, typer.Option(help="Such as mpe/simple_spread, market/portfolio or your_module:YourEnv.")],
    seeds: Annotated[str, typer.Option(metavar="SEED...", help="0 1 2, or 0..4; one run each.")] = "0",
    timesteps: Annotated[int, typer.Option(min=1, help="Environment steps, summed over the environments.")] = 1_000_000,
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
    pictures: Pictures = True,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Goes on where a run was interrupted, or forgets it.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Trains one algorithm on one environment, a run for each seed.

    A killed run resumes when the command is given again and ends in the same bytes.
    """
    numbers = seeds_of(seeds)
    root = repository()
    from marl_pipeline.experiments.job import EVALUATIONS, RUNS, TEST_SEED, Job
    from marl_pipeline.experiments.many import train_all
    from marl_pipeline.pipeline.overlay import parse_values
    from marl_pipeline.scenarios.presets import choose

    chosen = choose(algo, env, parse_values(overrides or [], "-S"))
    job = Job(
        algo=algo,
        env=env,
        env_options=parse_values(env_options or [], "--env-set"),
        engine=engine,
        workers=workers,
        settings=chosen.as_dict(),
        seed=numbers[0],
        timesteps=timesteps,
        evaluate_every=evaluate_every or max(timesteps // EVALUATIONS, 1),
        test_episodes=test_episodes,
        test_seed=TEST_SEED,
        device=device,
        threads=threads,
    )
    runs = train_all(
        [job.model_copy(update={"seed": seed}) for seed in numbers],
        root,
        root / RUNS if out is None else out,
        fresh=not resume,
        side_by_side=jobs,
        pictures=pictures,
    )
    picture = _draw_learning(runs)
    if as_json:
        found = {"algo": algo, "env": env, "timesteps": timesteps, "optimum": runs[0].optimum}
        print_json(found | {"runs": [run.as_json() for run in runs], "picture": str(picture)})
        return
    from rich.console import Console

    from marl_pipeline.experiments.tables import runs_table

    console = Console()
    console.print(runs_table(algo, env, timesteps, runs))
    console.print(f"learning curves: {picture}", soft_wrap=True, highlight=False)
    for path in (path for run in runs for path in run.pictures):
        console.print(f"an episode: {path}", soft_wrap=True, highlight=False)


def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="A run's folder, such as models/runs/mpe/simple_spread/qmix/0.")],
    episodes: Annotated[int, typer.Option(min=2, help="EpisodeResults side by side.")] = 512,
    seed: Annotated[int, typer.Option(help="Of the episodes; 0 plays those of training's evaluations.")] = 0,
    device: Annotated[Literal["cpu", "cuda"] | None, typer.Option(help="By default as in training.")] = None,
    pictures: Pictures = True,
    as_json: Json = False,
) -> None:
    """Plays a trained policy greedily and prints what it earns."""
    root = repository()
    from marl_pipeline.experiments.evaluate import evaluate_run

    result = evaluate_run(checkpoint, root, episodes=episodes, seed=seed, device=device, pictures=pictures)
    if result.changed:
        print(f"note: not as in training: {', '.join(result.changed)}", file=sys.stderr, flush=True)
    if as_json:
        print_json({"checkpoint": str(checkpoint), **result.as_json()})
        return
    low, high = result.interval
    print(f"{result.job.algo} on {result.job.env}, seed {result.job.seed}, {episodes} episodes:")
    print(f"return {result.mean:.2f} (95% interval {low:.2f} to {high:.2f}), standard deviation {result.std:.2f}")
    for name, figure in result.metrics.items():
        low, high = figure["interval"]
        print(f"{name} {figure['mean']:.4g} (95% interval {low:.4g} to {high:.4g}), {figure['unit']}")
    for path in result.pictures:
        print(f"an episode: {path}")


def curves(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or of folders of runs.")],
    out: Annotated[Path, typer.Option(help="The picture, .svg or .png.")] = Path("reports/learning_curves.svg"),
    metric: Annotated[
        str | None, typer.Option(help="An episode metric, such as collisions; the return if left out.")
    ] = None,
) -> None:
    """Draws the learning curves of several algorithms on one environment together."""
    from marl_pipeline.experiments.curves import curves_of, draw, find_runs

    found = curves_of(find_runs(runs), metric)
    if len(found) > 1:
        raise UserError(f"the runs are of several environments ({', '.join(found)}); draw them one by one")
    for name, learnt in found.items():
        draw(out, name, learnt, metric)
    print(f"learning curves: {out}")


def settings() -> None:
    """Prints every algorithm's settings as Markdown: what `-S` may change, and its value."""
    from marl_pipeline.reporting.settings_table import settings_tables

    print(settings_tables())


def env_check(
    name: Annotated[str, typer.Argument(help="As for `marl train --env`.")],
    env_options: EnvOptions = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to play; more than an episode has shows the most.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the actions and of the episodes.")] = 0,
    device: Device = "cpu",
) -> None:
    """Plays an environment with random allowed actions and checks that it holds to the protocol."""
    root = repository()
    from marl_pipeline.envs.conformance import check_named
    from marl_pipeline.pipeline.overlay import parse_values
    from marl_pipeline.scenarios.registry import scenario

    made = scenario(root, name, parse_values(env_options or [], "--env-set"), device)
    ended = check_named(name, lambda: made.training(NUM_ENVS, seed), steps=steps, seed=seed)
    episodes = f"{ended} episodes ended" if ended else "no episode ended, so ends are unchecked: give more --steps"
    print(f"{name}: {steps} steps in {NUM_ENVS} environments, nothing amiss; {episodes}")


Algos = Annotated[str, typer.Option(metavar="NAME...", help="Of algorithms.")]


def bench_learning(
    algos: Algos = "mappo,qmix",
    seconds: Annotated[float, typer.Option(min=0.1, help="For each speed.")] = 10.0,
    agents: Annotated[
        list[int] | None, typer.Option(min=1, help="Symbols of an update; may be repeated. A scan by default.")
    ] = None,
    peer_python: Annotated[
        Path | None, typer.Option(help="The interpreter of an environment with BenchMARL and VMAS.")
    ] = None,
    device: Device = "cpu",
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Steps a second of environment and learner together, and the cost of an update from few agents to many."""
    root = repository()
    from marl_pipeline.bench import learning as learning_bench

    rows = []
    for row in learning_bench.measure(
        root,
        listed(algos),
        seconds=seconds,
        threads=threads,
        device=device,
        agents=agents or learning_bench.AGENTS,
        peer_python=peer_python,
    ):
        rows.append(row)
        print(learning_bench.words(row), file=sys.stderr, flush=True)
    if as_json:
        print_json(learning_bench.as_json(rows))
        return
    from rich.console import Console

    Console().print(learning_bench.table(rows))


def bench_reference(
    algos: Algos = "mappo,qmix,vdn,idqn,maddpg",
    seeds: Annotated[str, typer.Option(metavar="SEED...", help="0 1 2, or 0..4; one run each.")] = "0..4",
    timesteps: Annotated[int, typer.Option(min=1, help="Environment steps of each run.")] = 1_000_000,
    env: Annotated[str, typer.Option(help="As for `marl train`.")] = "mpe/simple_spread",
    threads: Threads = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Runs trained side by side.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The folder of all runs; models/runs by default.")] = None,
    report: Annotated[Path, typer.Option(help="The table; the picture lies beside it.")] = Path("reports/reference.md"),
    as_json: Json = False,
) -> None:
    """Trains several algorithms over seeds and writes their table and learning curves.

    Finished runs are kept, so an interrupted table goes on where it was.
    """
    root = repository()
    from marl_pipeline.bench.reference import reference
    from marl_pipeline.experiments.job import RUNS

    folder = root / RUNS if out is None else out
    done = reference(
        root, folder, listed(algos), seeds_of(seeds), env=env, timesteps=timesteps, threads=threads, jobs=jobs
    )
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(done.markdown(), encoding="utf-8")
    done.draw(report.with_suffix(".svg"))
    if as_json:
        print_json(done.as_json())
    else:
        print(done.markdown(), end="")


NUM_ENVS = 3
"""Of an environment that is checked."""


def _draw_learning(runs: Sequence[Finished]) -> Path:
    """The picture of the runs of one algorithm, beside their folders."""
    from marl_pipeline.experiments.curves import curves_of, draw

    path = runs[0].folder.parent / "learning_curves.svg"
    for name, learnt in curves_of(run.folder for run in runs).items():
        draw(path, name, learnt)
    return path
