"""A checkout in which the data set, the signals and the encoder's table are there, as their stages would leave them."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from marl_pipeline.config import Params, parse_params
from marl_pipeline.data.dataset import Dataset, Signals
from marl_pipeline.pipeline import overlay
from marl_pipeline.store.dataset import save_dataset
from marl_pipeline.store.models import save_signals
from marl_pipeline.store.paths import DATASET, ENCODER, SIGNALS
from tests.data.market_panels import dataset_of, random_panel

ROOT = Path(__file__).parents[2]
BARS = 150


@functools.cache
def smoke_params(*changes: str) -> Params:
    """The smoke profile with some parameters changed."""
    merged = overlay.merge(ROOT, "smoke", list(changes), ROOT)
    return parse_params(YAML(typ="safe").load(merged.text), "smoke")


def prepared(root: Path, dataset: Dataset | None = None) -> Path:
    dataset = dataset_of(random_panel(3, bars=BARS)) if dataset is None else dataset
    bars, size = dataset.panel.close.shape
    save_dataset(root / DATASET, dataset)
    even = np.full((bars, size, 1, 3), 1 / 3, np.float32)
    save_signals(root / SIGNALS, Signals(("MLP72",), even, np.ones((bars, size), bool)))
    (root / ENCODER).mkdir(parents=True)
    values = np.random.default_rng(0).normal(size=(bars, size, 4)).astype(np.float16)
    np.save(root / ENCODER / "embeddings_0.npy", values)
    version = {"version": 0, "fitted_until": 60, "valid_bars": [0, bars], "table_start": 0}
    (root / ENCODER / "metadata.json").write_text(json.dumps({"versions": [version]}))
    return root
