"""A training run on disk: the policy, `run.json` with all that rebuilds it, `timing.json` with what varies.

The same job gives the same bytes of everything but `timing.json`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marl_pipeline.errors import UserError

RUN, TIMING = "run.json", "timing.json"
PARTIAL = ".partial-"


@contextmanager
def new_run(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `folder`, whole, when the body ends well."""
    partial = folder.with_name(PARTIAL + folder.name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
        UserError: there is no run, or its record is damaged.
    """
    return _read(folder / RUN)


def read_timing(folder: Path) -> dict[str, Any]:
    """What `timing.json` says; see `read_run`."""
    return _read(folder / TIMING)


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; give the folder of a run that `marl train` finished") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged ({error}); train again with --fresh") from None
    return values
