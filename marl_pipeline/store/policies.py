"""Policies on disk: one safetensors file per network and `metadata.json`, in one folder per tier and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from marl_pipeline.errors import UserError

Weights = dict[str, Tensor]


def save_policy(folder: Path, weights: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, Any]) -> None:
    """Writes one file of weights per network (`symbols.safetensors`, `master.safetensors`) and the metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in weights.items():
        save_file(dict(tensors), folder / f"{name}.safetensors")
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=1, sort_keys=True, allow_nan=False) + "\n")


def load_weights(folder: Path, network: str) -> Weights:
    """Reads one network's weights.

    Raises:
        UserError: they are missing or damaged.
    """
    path = folder / f"{network}.safetensors"
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such policy; run `dvc repro` first") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged weights ({error}); run `dvc repro` to make them again") from None


def by_tier(weights: Mapping[str, Tensor]) -> dict[str, Weights]:
    """Weights named `symbols....` and `master....` as one file's worth each."""
    tiers: dict[str, Weights] = {}
    for name, tensor in weights.items():
        tiers.setdefault(name.partition(".")[0], {})[name] = tensor
    return tiers


def load_metadata(folder: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads((folder / "metadata.json").read_text())
    return metadata
