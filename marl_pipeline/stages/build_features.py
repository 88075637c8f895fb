"""Stage build_features: cleaned bars and companions become the training data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from marl_pipeline.data.assemble import assemble
from marl_pipeline.data.custom import load_custom
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.data.features import FEATURES
from marl_pipeline.data.quality import clean
from marl_pipeline.data.sources.names import is_set
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.store.bars import load_bars, load_companions
from marl_pipeline.store.dataset import save_dataset
from marl_pipeline.store.paths import DATASET

HISTORICAL = Path("data/historical")
COMPANIONS = Path("data/companions")
QUARANTINE = Path("data/quarantine.parquet")


def run(context: StageContext) -> None:
    params = context.params
    bars = load_bars(context.root / HISTORICAL, params.data.frequency)
    path = params.build_features.custom
    names = [feature.name for feature in FEATURES]
    custom = load_custom(context.root / path, names) if is_set(path) else ()
    quarantine = pd.read_parquet(context.root / QUARANTINE)
    cleaned = clean(bars, quarantine)
    dataset = assemble(
        cleaned,
        load_companions(context.root / COMPANIONS),
        params.build_features,
        frequency=params.data.frequency,
        calendar=params.data.calendar,
        adjustment=params.data.adjustment,
        custom=custom,
    )
    with context.output(DATASET) as folder:
        save_dataset(folder, dataset)
    context.log_metrics(figures(cleaned, dataset) | {"custom_features": float(len(custom))})


def figures(cleaned: pd.DataFrame, dataset: Dataset) -> dict[str, float]:
    """What the record says of the data set: its size and what was left out."""
    quarantined = int(cleaned["quarantined"].sum())
    placed = int(np.isfinite(dataset.panel.close).sum())
    return {
        "bars": float(dataset.bars),
        "symbols": float(len(dataset.panel.symbols)),
        "features": float(len(dataset.feature_names)),
        "features_left_out": float(sum(feature.name not in dataset.feature_names for feature in FEATURES)),
        "valid_share": float(dataset.valid.mean()),
        "quarantined_bars": float(quarantined),
        "bars_off_the_grid": float(len(cleaned) - quarantined - placed),
    }


if __name__ == "__main__":
    main(run)
