"""The networks of the supervised models and the encoder on disk: weights as safetensors, the rest as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from marl_pipeline.config import PretrainEncoderParams, SLSignalsParams
from marl_pipeline.data.windows import Refit
from marl_pipeline.encoders.encoder import Encoder
from marl_pipeline.encoders.pretrain import EncoderVersion
from marl_pipeline.errors import UserError
from marl_pipeline.signals.fit import FittedModel
from marl_pipeline.signals.labels import CLASSES
from marl_pipeline.signals.models import build
from marl_pipeline.stages.store.models import encoder_record, read_json, write_json

LATEST = "model.safetensors"


def save_classifiers(
    folder: Path,
    fitted: Sequence[FittedModel],
    params: SLSignalsParams,
    *,
    window: int,
    feature_names: Sequence[str],
) -> None:
    """Writes `<model>/model.safetensors` (the latest fit), `refit_<k>.safetensors` (those before) and
    `metadata.json` per model."""
    for model in params.models:
        own = [one for one in fitted if one.model == model]
        if not own:
            continue
        place = folder / model
        place.mkdir(parents=True, exist_ok=True)
        files = [f"refit_{one.refit.version}.safetensors" for one in own[:-1]] + [LATEST]
        for one, file in zip(own, files, strict=True):
            save_file(one.weights, place / file)
        metadata = {
            "model": model,
            "window": window,
            "features": list(feature_names),
            "classes": list(CLASSES),
            "horizon": params.horizon,
            "threshold": params.threshold,
            "dropout": params.dropout,
            "refits": [_fit_record(one, file) for one, file in zip(own, files, strict=True)],
        }
        write_json(place / "metadata.json", metadata)


def load_classifier(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The latest fit of one model (`models/sl_checkpoints/<model>`) in evaluation mode, and its metadata; logits are
    to be divided by the `temperature` of the last of `refits`.

    Raises:
        UserError: it is missing or damaged.
    """
    metadata = read_json(folder / "metadata.json", "sl_signals")
    module = build(metadata["model"], metadata["window"], len(metadata["features"]), metadata["dropout"])
    module.load_state_dict(_weights(folder / LATEST, "sl_signals"))
    return module.eval(), metadata


def save_encoder(
    folder: Path,
    versions: Iterable[EncoderVersion],
    params: PretrainEncoderParams,
    *,
    window: int,
    feature_names: Sequence[str],
    symbols: Sequence[str],
) -> list[dict[str, Any]]:
    """Writes `version_<k>.safetensors` and `embeddings_<k>.npy` (float16) as the versions come, then
    `metadata.json`; gives the records of the versions."""
    folder.mkdir(parents=True, exist_ok=True)
    records, curves = [], []
    for one in versions:
        version = one.refit.version
        save_file(one.weights, folder / f"version_{version}.safetensors")
        np.save(folder / f"embeddings_{version}.npy", one.embeddings.values.astype(np.float16), allow_pickle=False)
        records.append(_refit_record(one.refit) | {"table_start": one.embeddings.start, "held_out": one.held_out})
        curves += one.curves
    metadata = {
        "window": window,
        "features": list(feature_names),
        "symbols": list(symbols),
        "architecture": {
            name: getattr(params, name)
            for name in ("embedding", "width", "heads", "layers", "dropout", "graph_neighbours", "correlation_window")
        },
        "versions": records,
        "curves": curves,
    }
    write_json(folder / "metadata.json", metadata)
    return records


def load_encoder(folder: Path, version: int, params: PretrainEncoderParams) -> Encoder:
    """One version of the encoder in evaluation mode; `params` are those it was fitted with."""
    encoder_record(folder, version)
    metadata = read_json(folder / "metadata.json", "pretrain_encoder")
    encoder = Encoder(metadata["window"], len(metadata["features"]), params)
    encoder.load_state_dict(_weights(folder / f"version_{version}.safetensors", "pretrain_encoder"))
    return encoder.eval()


def _fit_record(fitted: FittedModel, file: str) -> dict[str, Any]:
    return _refit_record(fitted.refit) | {
        "file": file,
        "temperature": fitted.temperature,
        "prior": fitted.prior.tolist(),
        "samples": fitted.samples,
        "metrics": fitted.metrics,
    }


def _refit_record(refit: Refit) -> dict[str, Any]:
    return {
        "version": refit.version,
        "fitted_until": refit.fitted_until,
        "speaks": [refit.speaks.start, refit.speaks.stop],
    }


def _weights(path: Path, stage: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage {stage} first") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({error}); run `dvc repro -f {stage}` to make it again") from None
