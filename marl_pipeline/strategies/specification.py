"""What a stage needs to know of a strategy, as one small file for each stage.

The stage `strategies` writes them (`resolve`); they hold everything that decides a strategy's result besides data and
the parameters that a stage declares itself: its complete settings, and a digest of the source that it runs. A stage
depends on the file of its own strategy and runs again when that changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marl_pipeline.errors import UserError
from marl_pipeline.store.paths import specification_file


@dataclass(frozen=True)
class Specification:
    """Attributes:
    kind: as in params.yaml.
    acts: whether the strategy does anything in this stage; what follows is empty where it does not.
    module: the kind of strategy, to be imported by name.
    options: what decides the result, complete.
    code: digest of the source that the strategy runs.
    """

    kind: str
    acts: bool
    module: str
    options: Mapping[str, Any]
    code: str

    def as_json(self) -> str:
        return json.dumps(vars(self), indent=1, sort_keys=True, allow_nan=False) + "\n"


def load_specification(root: Path, strategy: str, stage: str) -> Specification:
    """Raises:
    UserError: the stage `strategies` has not run.
    """
    path = root / specification_file(strategy, stage)
    try:
        return Specification(**json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage strategies first") from None
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); run `dvc repro -f strategies` to make it again") from None
