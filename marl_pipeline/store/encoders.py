"""The encoder's versions on disk: weights as safetensors, embedding tables as `.npy`, the rest as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from marl_pipeline.config import PretrainEncoderParams
from marl_pipeline.encoders.encoder import Encoder
from marl_pipeline.encoders.pretrain import EncoderVersion
from marl_pipeline.store.models import encoder_record, read_json, read_weights, refit_record, write_json


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
        records.append(refit_record(one.refit) | {"table_start": one.embeddings.start, "held_out": one.held_out})
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
    encoder.load_state_dict(read_weights(folder / f"version_{version}.safetensors", "pretrain_encoder"))
    return encoder.eval()
