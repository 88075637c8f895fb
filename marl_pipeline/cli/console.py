"""What every command shares: the repository it works in, JSON that is JSON, and mistakes reported in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from marl_pipeline.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")]

Profile = Annotated[
    str | None,
    typer.Option("--profile", "-p", help="A name in profiles/ or a YAML file; laid over the quickstart profile."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-S", metavar="SECTION.KEY=VALUE", help="One parameter; may be repeated."),
]


def repository() -> Path:
    """The repository that the working directory is in.

    Raises:
        UserError: it is in none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").exists() and (folder / "params.yaml").exists():
            return folder
    raise UserError(f"{Path.cwd()}: no dvc.yaml here or above; run from the repository")


def print_json(values: Any) -> None:
    print(json.dumps(values, indent=2, default=str))


def print_rich(*parts: Any) -> None:
    """Tables as they are, text in one line however long it is."""
    from rich.console import Console

    console = Console()
    for part in parts:
        if isinstance(part, str):
            console.print(part, soft_wrap=True, highlight=False)
        else:
            console.print(part)


def fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
