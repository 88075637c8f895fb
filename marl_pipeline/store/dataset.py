"""The training data set as a folder: one `.npy` per array, `meta.json` for the names. Same values, same bytes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from marl_pipeline.data.dataset import Dataset, Panel
from marl_pipeline.errors import UserError

PANEL_ARRAYS = tuple(field.name for field in fields(Panel) if field.name != "symbols")
DATASET_ARRAYS = ("features", "valid", "regime", "macro", "sentiment", "sector", "benchmark")
NAMES = ("feature_names", "regime_names", "macro_names", "sentiment_names", "sectors")
VALUES = ("benchmark_name", "sessions_per_year")


def save_dataset(folder: Path, dataset: Dataset) -> None:
    """Writes `dataset` into `folder` (created if missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, owner in _owners(dataset):
        np.save(folder / f"{name}.npy", np.ascontiguousarray(getattr(owner, name)), allow_pickle=False)
    meta = {"symbols": list(dataset.panel.symbols)}
    meta |= {name: list(getattr(dataset, name)) for name in NAMES}
    text = json.dumps(meta | {name: getattr(dataset, name) for name in VALUES}, indent=2, ensure_ascii=False)
    (folder / "meta.json").write_text(text + "\n", encoding="utf-8")


def load_dataset(folder: Path, *, mmap: bool = False) -> Dataset:
    """Reads what `save_dataset` wrote; with `mmap` the arrays stay on disk, read-only, until they are touched.

    Raises:
        UserError: the folder is not there or not complete.
    """
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r" if mmap else None, allow_pickle=False)
            for name in (*PANEL_ARRAYS, *DATASET_ARRAYS)
        }
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; run the stage build_features first") from None
    panel = Panel(symbols=tuple(meta["symbols"]), **{name: arrays[name] for name in PANEL_ARRAYS})
    values: dict[str, Any] = {name: arrays[name] for name in DATASET_ARRAYS}
    values |= {name: tuple(meta[name]) for name in NAMES}
    values |= {name: meta[name] for name in VALUES}
    return Dataset(panel=panel, **values)


def _owners(dataset: Dataset) -> list[tuple[str, object]]:
    return [(name, dataset.panel) for name in PANEL_ARRAYS] + [(name, dataset) for name in DATASET_ARRAYS]
