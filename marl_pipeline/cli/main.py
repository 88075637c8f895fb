"""The `marl` command. Everything heavy is imported by the sub-command that needs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from marl_pipeline.cli import training
from marl_pipeline.cli.console import Json, Overrides, Profile, fail, print_json, repository
from marl_pipeline.cli.data import data
from marl_pipeline.cli.env import env
from marl_pipeline.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Trains, validates and explains a hierarchical multi-agent trader. Run it from the root of the repository.",
)
app.add_typer(data, name="data")
app.add_typer(env, name="env")
bench = typer.Typer(no_args_is_help=True, help="Measure how fast this machine is.")
app.add_typer(bench, name="bench")


@bench.callback()
def bench_() -> None:
    """A group even with one command."""


RESUME, INTERRUPTED = "interrupted; run again to resume", 130

SUMMARY = Path("reports/rl_validation_summary.json")
REPORT = Path("reports/rl_validation_summary.html")


@app.command()
def run(
    profile: Profile = None,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, why and how long.")] = False,
    as_json: Json = False,
) -> None:
    """Brings every stage up to date and prints the verdict.

    Profile and overrides are merged into params.yaml; `--profile quickstart` restores it.
    """
    from marl_pipeline.pipeline import overlay

    root, cwd = repository(), Path.cwd()
    merged = overlay.merge(root, profile, overrides or [], cwd)
    if dry_run:
        _print_plan(root, merged, as_json)
        return
    overlay.write(root, merged)
    os.chdir(root)
    from flows.environment import prepare

    prepare(root)
    from flows.run import run_flow

    run_flow()
    _print_summary(root, as_json)


training.register(app, env, bench)


@app.command()
def report(as_json: Json = False) -> None:
    """Prints the verdict of the last run."""
    _print_summary(repository(), as_json)


@bench.command("splits")
def bench_splits(
    file: Annotated[Path, typer.Argument(help="Daily bars as Parquet, adjusted for splits: symbol, timestamp, ...")],
    seed: Annotated[int, typer.Option(help="Of the events that are planted.")] = 2024,
    half: Annotated[
        Literal["develop", "report"], typer.Option(help="Half of the symbols: the rule was made on the first.")
    ] = "report",
    calendar: Annotated[str, typer.Option(help="Exchange calendar, such as XNYS.")] = "XNYS",
    as_json: Json = False,
) -> None:
    """Plants splits, spin-offs, bad prints and halts in bars, and prints recall and precision of the split rule."""
    from marl_pipeline.bench import splits
    from marl_pipeline.config import load_params
    from marl_pipeline.data.sources.files import read_bars

    params = load_params(repository() / "params.yaml")
    data = params.data.model_copy(update={"frequency": "1Day", "calendar": calendar, "timezone": "UTC", "columns": {}})
    found = splits.bench_splits(read_bars(file, data), params.validate_data, calendar=calendar, seed=seed, half=half)
    if as_json:
        print_json(found.as_dict())
    else:
        print("\n".join(found.lines()))


@bench.command("data")
def bench_data(
    symbols: Annotated[int, typer.Option(min=1, help="Symbols in the file.")] = 500,
    years: Annotated[int, typer.Option(min=1, help="Years of daily bars of each.")] = 20,
    file_format: Annotated[Literal["parquet", "csv"], typer.Option("--format", help="Of the file.")] = "parquet",
    seed: Annotated[int, typer.Option(help="Of the random walks.")] = 0,
    calendar: Annotated[str, typer.Option(help="Exchange calendar, such as XNYS.")] = "XNYS",
    as_json: Json = False,
) -> None:
    """Makes a file of daily bars and prints how long `marl data check` takes for it, reading included, and its peak
    memory."""
    from marl_pipeline.bench.checks import bench_checks

    found = bench_checks(
        repository(), symbols=symbols, years=years, calendar=calendar, seed=seed, file_format=file_format
    )
    if as_json:
        print_json(found.as_dict())
    else:
        print("\n".join(found.lines()))


@bench.command("market")
def bench_market(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    step: Annotated[
        Literal["plain", "compiled"] | None, typer.Option(help="How a CPU steps; by default as in params.yaml.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each measurement.")] = 2.0,
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="ENVSxSYMBOLS", help="Such as 128x143; may be repeated. A scan by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Symbol-steps a second of the trading environment, and of its peers where they are installed."""
    from marl_pipeline.bench import market as market_bench
    from marl_pipeline.config import load_params

    params = load_params(repository() / "params.yaml")
    market = params.market if step is None else params.market.model_copy(update={"cpu_step": step})
    sizes = [_size(text) for text in size] if size else market_bench.SIZES
    measured = []
    for row in market_bench.bench_market(
        market, params.train_master.directives, device=device, sizes=sizes, seconds=seconds
    ):
        measured.append(row)
        print(f"{row.system}: {market_bench.words(row)}", file=sys.stderr, flush=True)
    if as_json:
        print_json(market_bench.as_json(measured))
        return
    from rich.console import Console

    Console().print(market_bench.table(measured))


def _size(text: str) -> tuple[int, int]:
    envs, _, symbols = text.partition("x")
    if not (envs.isdigit() and symbols.isdigit() and int(envs) and int(symbols)):
        raise UserError(f"--size {text}: must be ENVSxSYMBOLS, such as 128x143")
    return int(envs), int(symbols)


@app.command("open")
def open_(what: Annotated[Literal["report", "mlflow", "prefect"], typer.Argument()] = "report") -> None:
    """Opens what there is to look at; `mlflow` and `prefect` serve until Ctrl-C."""
    root = repository()
    if what == "report":
        path = root / REPORT
        if not path.exists():
            raise UserError(f"{path}: no report yet; run `marl run` first")
        _browse(path.resolve().as_uri())
    else:
        _serve_page(what, root)


@app.command("schedule")
def schedule_() -> None:
    """Serves the flows to Prefect until Ctrl-C: the quarterly schedule, and runs triggered from the Prefect UI."""
    root = repository()
    os.chdir(root)
    from flows.environment import prepare

    prepare(root)
    from flows.server import server

    with server(root) as address:
        print(f"Prefect: {address.removesuffix('/api')}", flush=True)
        from flows.serve import serve_forever

        serve_forever()


def main() -> NoReturn:
    """Entry point: errors of the user in one line, exit code 2; interrupted, 130."""
    try:
        app()
    except UserError as error:
        fail(str(error), 2)
    except PermissionError as error:
        fail(f"{error.filename}: {error.strerror}; choose a place that can be written", 2)
    except KeyboardInterrupt:
        fail(RESUME, INTERRUPTED)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # what Typer makes of Ctrl-C, without a word
            fail(RESUME, INTERRUPTED)
        raise
    sys.exit(0)


def _print_plan(root: Path, merged: Any, as_json: bool) -> None:
    from marl_pipeline.pipeline.plan import plan

    steps = plan(root, merged)
    if as_json:
        seconds = sum(step.seconds for step in steps)
        print_json({"stages": [step.as_dict() for step in steps], "seconds_of_work": round(seconds, 1)})
        return
    from rich.console import Console

    from marl_pipeline.pipeline.plan import table

    Console().print(table(steps, root))


@app.command("figures")
def figures_(
    names: Annotated[list[str] | None, typer.Argument(help="All of them by default.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Lists figures older than their code; exit code 1.")] = False,
) -> None:
    """Makes the figures of README and docs again, each by its command, with machine and commit."""
    from marl_pipeline.bench import figures

    root = repository()
    if check:
        old = figures.stale(root)
        for name, why in old.items():
            print(f"{name}: {why}")
        raise typer.Exit(1 if old else 0)
    for path in figures.make_figures(root, names or [], lambda name: print(f"figure {name}", flush=True)):
        print(f"wrote {path}")


def _print_summary(root: Path, as_json: bool) -> None:
    path = root / SUMMARY
    if not path.exists():
        raise UserError(f"{path}: no report yet; run `marl run` first")
    summary = json.loads(path.read_text())
    if as_json:
        print_json(summary)
        return
    from rich.console import Console

    from marl_pipeline.reporting.text import summary_table

    console = Console()
    console.print(summary_table(summary))
    console.print(f"report: {root / REPORT}", soft_wrap=True, highlight=False)


def _browse(address: str) -> None:
    print(address)
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)


def _serve_page(what: Literal["mlflow", "prefect"], root: Path) -> None:
    """Opens the page of a server; starts one, until Ctrl-C, if none is configured."""
    if what == "prefect":
        from flows.environment import prepare
        from flows.server import server

        prepare(root)
        with server(root) as address:
            _browse(address.removesuffix("/api"))
            signal.pause()
        return
    from marl_pipeline.pipeline.tracking import tracking_uri

    if tracking_uri(root).startswith("http"):
        _browse(tracking_uri(root))
        return
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    options = ["--backend-store-uri", tracking_uri(root, seen_from=root), "--host", "127.0.0.1", "--port", "5000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options], cwd=root, env={**os.environ, **environment}
    )
    try:
        _browse("http://127.0.0.1:5000")
        process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()


if __name__ == "__main__":
    main()
