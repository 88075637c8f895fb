"""The supervised classifiers on disk: weights as safetensors, the rest as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from marl_pipeline.config import SLSignalsParams
from marl_pipeline.signals.fit import FittedModel
from marl_pipeline.signals.labels import CLASSES
from marl_pipeline.signals.models import build
from marl_pipeline.store.models import read_json, read_weights, refit_record, write_json

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
    module.load_state_dict(read_weights(folder / LATEST, "sl_signals"))
    return module.eval(), metadata


def _fit_record(fitted: FittedModel, file: str) -> dict[str, Any]:
    return refit_record(fitted.refit) | {
        "file": file,
        "temperature": fitted.temperature,
        "prior": fitted.prior.tolist(),
        "samples": fitted.samples,
        "metrics": fitted.metrics,
    }
