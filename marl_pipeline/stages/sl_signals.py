"""Stage `sl_signals`: the supervised classifiers, cross-fitted in time, and what they say at every bar."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from marl_pipeline.config import SLSignalsParams
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.signals.fit import FittedModel, fit_signals
from marl_pipeline.signals.latency import inference_latency
from marl_pipeline.signals.models import build
from marl_pipeline.store.classifiers import save_classifiers
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.models import save_signals
from marl_pipeline.store.paths import DATASET, SIGNALS, SL_BENCHMARKS, SL_CHECKPOINTS

SEED = 0
"""One fit serves all seeds of the policies, so that they differ in nothing else."""


def run(context: StageContext) -> None:
    params, window = context.params.sl_signals, context.params.build_features.window
    context.set_tags({"agent_type": "supervised"})
    dataset = load_dataset(context.root / DATASET)
    signals, fitted = fit_signals(
        dataset,
        params,
        window=window,
        embargo=context.params.spans.embargo,
        seed=SEED,
        device=torch.device(context.params.run.device),
        on_step=context.on_step,
        checkpoint=context.checkpoint,
    )
    context.log_metrics(_averages(fitted))
    with context.output(SIGNALS) as folder:
        save_signals(folder, signals)
    with context.output(SL_CHECKPOINTS) as folder:
        save_classifiers(folder, fitted, params, window=window, feature_names=dataset.feature_names)
    _benchmark(context, params, window, dataset)


def _averages(fitted: Sequence[FittedModel]) -> dict[str, float]:
    """`<model>/<score>`: out-of-sample scores, averaged over the refits."""
    collected: dict[str, list[float]] = {}
    for one in fitted:
        for name, value in one.metrics.items():
            collected.setdefault(f"{one.model}/{name}", []).append(value)
    return {name: float(np.mean(values)) for name, values in collected.items()}


def _benchmark(context: StageContext, params: SLSignalsParams, window: int, dataset: Dataset) -> None:
    """Inference times of this machine; not one of DVC's outputs, because they are never the same twice."""
    symbols, features = dataset.features.shape[1:]
    times = {
        model: inference_latency(build(model, window, features, params.dropout), window, features, symbols)
        for model in params.models
    }
    context.log_metrics({f"{model}/{name}": value for model, own in times.items() for name, value in own.items()})
    with context.output(SL_BENCHMARKS) as path:
        path.write_text(json.dumps({"threads": torch.get_num_threads(), "models": times}, indent=1) + "\n")


if __name__ == "__main__":
    main(run)
