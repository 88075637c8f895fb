"""`marl data`: what a source of bars and its companions hold, before anything is run on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from marl_pipeline.cli.console import Json, Overrides, Profile, print_json, repository
from marl_pipeline.errors import UserError

data = typer.Typer(no_args_is_help=True, help="Look at market data.")


@data.command("check")
def data_check(
    file: Annotated[
        Path | None, typer.Argument(help="Bars as a file or a folder of files; by default those of the profile.")
    ] = None,
    profile: Profile = None,
    overrides: Overrides = None,
    frequency: Annotated[str | None, typer.Option(help="1Day or 1Hour; short for -S data.frequency=...")] = None,
    timezone: Annotated[str | None, typer.Option(help="Zone of timestamps that name none (data.timezone).")] = None,
    calendar: Annotated[str | None, typer.Option(help="Exchange calendar, such as XNYS (data.calendar).")] = None,
    as_json: Json = False,
) -> None:
    """Reads bars and companions as `marl run` would and applies the data-quality rules: what is wrong, where, and what
    would be done about it. Ends with the profile that reads them.

    Exits with 2 if the findings would stop the pipeline.
    """
    from marl_pipeline.pipeline.parameters import parameters, profile_text
    from marl_pipeline.stages.validate_data import check_source

    given = {"frequency": frequency, "timezone": timezone, "calendar": calendar}
    shorthand = [f"data.{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    if file is not None:
        shorthand += [f"data.path={json.dumps(str(file))}", "data.source=csv"]
    root = repository()
    with parameters(root, profile, [*(overrides or []), *shorthand], Path.cwd()) as params:
        result = check_source(params, lambda read: profile_text(root, read))
    if as_json:
        print_json(result.as_json())
    else:
        from rich.console import Console

        console = Console()
        console.print(result.table())
        console.print("This profile reads it (`marl run --profile my.yaml`):\n", highlight=False)
        print(result.profile)
    if result.failed is not None:
        raise UserError(result.failed)


@data.command("bars")
def data_bars(
    out: Annotated[Path, typer.Option("--out", metavar="FILE.parquet", help="Where to write them.")],
    profile: Profile = None,
    overrides: Overrides = None,
    companions: Annotated[
        bool, typer.Option("--companions", help="Also what each bar would know of VIX, macro, sentiment and sectors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Writes the bars as `marl run` understands them: symbol, timestamp (UTC), open, high, low, close, volume."""
    from marl_pipeline.data.intake import take_in
    from marl_pipeline.data.known import beside_the_bars
    from marl_pipeline.pipeline.parameters import parameters
    from marl_pipeline.store.bars import replace_table

    if out.suffix.lower() not in (".parquet", ".pq"):
        raise UserError(f"--out {out}: name a file that ends in .parquet")
    with parameters(repository(), profile, overrides or [], Path.cwd()) as params:
        taken = take_in(params.data, least=1)
    table = taken.bars.sort_values(["symbol", "timestamp"], kind="stable", ignore_index=True)
    if companions:
        table = beside_the_bars(table, taken.companions, params.data.frequency, params.data.calendar)
    replace_table(out, table)
    notes = taken.info["notes"]
    if as_json:
        span = [f"{table['timestamp'].min():%Y-%m-%dT%H:%M:%SZ}", f"{table['timestamp'].max():%Y-%m-%dT%H:%M:%SZ}"]
        size = {"bars": len(table), "symbols": len(taken.info["symbols"]), "first": span[0], "last": span[1]}
        print_json({"file": str(out), **size, "columns": list(table.columns), "notes": notes})
        return
    for note in notes:
        print(f"note: {note}")
    print(f"wrote {out}: {len(table):,} bars of {len(taken.info['symbols'])} symbols, {', '.join(table.columns)}")
