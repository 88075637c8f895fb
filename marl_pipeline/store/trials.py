"""The trials of every search, one JSON object a line: what the report counts as tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marl_pipeline.errors import UserError

TRIALS = Path("reports/trials.jsonl")


def read_trials(path: Path) -> list[dict[str, Any]]:
    """One JSON object per line: every configuration that was tried elsewhere.

    Raises:
        UserError: a line is not a JSON object.
    """
    trials = []
    for place, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip():
            try:
                trial = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path} line {place}: not JSON ({error.msg}); remove or repair the line") from None
            if not isinstance(trial, dict):
                raise UserError(f'{path} line {place}: expected an object such as {{"sharpe": 0.4}}')
            trials.append(trial)
    return trials
