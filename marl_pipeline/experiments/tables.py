"""What `marl train` and its kin print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from marl_pipeline.experiments.run import Finished


def runs_table(algo: str, env: str, timesteps: int, runs: Sequence[Finished]) -> Table:
    table = Table(title=f"{algo} on {env}, {timesteps:,} environment steps", title_justify="left")
    table.add_column("seed", justify="right")
    table.add_column("test return", justify="right")
    table.add_column("95% interval", justify="right")
    for name in runs[0].metrics:
        table.add_column(name, justify="right")
    table.add_column("steps/s", justify="right")
    table.add_column("policy", overflow="fold")
    for run in runs:
        low, high = run.interval
        speed = "" if run.steps_per_s is None else f"{run.steps_per_s:,.0f}"
        kept = " (was there)" if run.reused else ""
        figures = [f"{figure['mean']:.4g}" for figure in run.metrics.values()]
        test = (f"{run.test_return:.2f}", f"{low:.2f} to {high:.2f}")
        table.add_row(str(run.seed), *test, *figures, speed, f"{run.folder}{kept}")
    return table
