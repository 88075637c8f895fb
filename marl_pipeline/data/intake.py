"""What a run takes in: the bars of the universe and their companions, and what has to be said about them.

The stage ingest stores it, `marl data check` reports on it, `marl data bars` writes it: one reading for all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from marl_pipeline.config import DataParams
from marl_pipeline.data.companions import Companions, load_companions
from marl_pipeline.data.coverage import describe, universe_notes
from marl_pipeline.data.matching import refuse_case_clash
from marl_pipeline.data.sources import absent, read_source, synthetic_from, wanted
from marl_pipeline.data.sources.files import understand_bars
from marl_pipeline.data.sources.names import read_universe

OWN_FILES = ("csv", "parquet")
"""Values of `data.source` that read `data.path`."""


@dataclass(frozen=True)
class Intake:
    """Attributes:
    bars: canonical bars of the universe between `data.start` and `data.end`, as they came.
    companions: what is known beside them.
    info: what is known about both, as JSON values.
    decided: the keys of section `data` that decide what the files of bars decided themselves.
    """

    bars: pd.DataFrame
    companions: Companions
    info: Mapping[str, Any]
    decided: Mapping[str, object]


def take_in(params: DataParams, least: int = 2) -> Intake:
    """Reads bars and companions.

    Args:
        least: fewest symbols that are enough: a run needs two, a look at a file one.

    Raises:
        UserError: whatever is wrong with one of the inputs.
    """
    universe = read_universe(params.universe)
    understood = understand_bars(Path(params.path), params) if params.source in OWN_FILES else None
    source = read_source(params) if understood is None else understood.bars
    bars = wanted(source, params, least)
    refuse_case_clash(bars["symbol"].unique())
    sectors = synthetic_from(params).sectors if params.source == "synthetic" else None
    companions = load_companions(params, source, sectors)
    described, notes = describe(params, companions, bars)
    info = {
        "source": params.source,
        "name": Path(params.path).name if params.source in OWN_FILES else params.source,
        "frequency": params.frequency,
        "calendar": params.calendar,
        "adjustment": params.adjustment,
        "symbols": {str(name): int(rows) for name, rows in bars["symbol"].value_counts().sort_index().items()},
        "universe_absent": absent(bars, universe),
        "companions": described,
        "notes": [*(understood.notes if understood else ()), *universe_notes(universe, bars), *notes],
    }
    return Intake(bars, companions, info, understood.profile if understood else {})
