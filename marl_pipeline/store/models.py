"""What the supervised models and the encoder say, on disk: `.npy` arrays beside JSON.

Apart from the networks themselves (`store.classifiers`, `store.encoders`), so that stages which only read numbers
do not depend on the code that made them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from marl_pipeline.data.dataset import Embeddings, Signals
from marl_pipeline.data.windows import Refit, Span
from marl_pipeline.errors import UserError


def save_signals(folder: Path, signals: Signals) -> None:
    """Writes `<model>.npy` [T, N, 3] each, `available.npy` [T, N] and `signals.json` (the models in order)."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, model in enumerate(signals.models):
        np.save(folder / f"{model}.npy", np.ascontiguousarray(signals.probabilities[:, :, place]), allow_pickle=False)
    np.save(folder / "available.npy", signals.available, allow_pickle=False)
    write_json(folder / "signals.json", {"models": list(signals.models), "classes": ["down", "flat", "up"]})


def load_signals(folder: Path) -> Signals:
    """Reads what `save_signals` wrote.

    Raises:
        UserError: the folder is not there or not complete.
    """
    models = tuple(read_json(folder / "signals.json", "sl_signals")["models"])
    each = [_array(folder / f"{model}.npy", "sl_signals") for model in models]
    return Signals(models, np.stack(each, axis=2), _array(folder / "available.npy", "sl_signals"))


def load_refits(folder: Path) -> tuple[Refit, ...]:
    """When each version of the encoder was fitted and for which bars it is valid."""
    versions = read_json(folder / "metadata.json", "pretrain_encoder")["versions"]
    return tuple(Refit(one["version"], one["fitted_until"], Span(*one["valid_bars"])) for one in versions)


def load_embeddings(folder: Path, version: int) -> Embeddings:
    """The table of one version, as float32.

    Raises:
        UserError: the encoder or this version of it is missing.
    """
    record = encoder_record(folder, version)
    values = _array(folder / f"embeddings_{version}.npy", "pretrain_encoder").astype(np.float32)
    return Embeddings(version, record["fitted_until"], record["table_start"], values)


def encoder_record(folder: Path, version: int) -> dict[str, Any]:
    versions: list[dict[str, Any]] = read_json(folder / "metadata.json", "pretrain_encoder")["versions"]
    for record in versions:
        if record["version"] == version:
            return record
    raise UserError(f"{folder}: no encoder version {version} (found: {', '.join(str(r['version']) for r in versions)})")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, stage: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage {stage} first") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: damaged ({error}); run `dvc repro -f {stage}` to make it again") from None
    return values


def _array(path: Path, stage: str) -> np.ndarray:
    try:
        values: np.ndarray = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage {stage} first") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged ({error}); run `dvc repro -f {stage}` to make it again") from None
    return values


def refit_record(refit: Refit) -> dict[str, Any]:
    return {
        "version": refit.version,
        "fitted_until": refit.fitted_until,
        "valid_bars": [refit.valid_bars.start, refit.valid_bars.stop],
    }


def read_weights(path: Path, stage: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage {stage} first") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({error}); run `dvc repro -f {stage}` to make it again") from None
