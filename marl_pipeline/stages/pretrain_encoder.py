"""Stage `pretrain_encoder`: masked forecasting, the refits for the walk-forward, and the embedding tables."""

from __future__ import annotations

import torch

from marl_pipeline.encoders.pretrain import fit_encoder_versions
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.encoders import save_encoder
from marl_pipeline.store.paths import DATASET, ENCODER

SEED = 0
"""One encoder serves all seeds of the policies, so that they differ in nothing else."""


def run(context: StageContext) -> None:
    params, window = context.params, context.params.build_features.window
    context.set_tags({"agent_type": "encoder"})
    dataset = load_dataset(context.root / DATASET)
    versions = fit_encoder_versions(
        dataset,
        params.pretrain_encoder,
        window=window,
        spans=params.spans,
        walk_forward=params.walk_forward,
        seed=SEED,
        device=torch.device(params.run.device),
        on_step=context.on_step,
        checkpoint=context.checkpoint,
    )
    with context.output(ENCODER) as folder:
        records = save_encoder(
            folder,
            versions,
            params.pretrain_encoder,
            window=window,
            feature_names=dataset.feature_names,
            symbols=dataset.panel.symbols,
        )
    for record in records:
        context.log_metrics(record["held_out"], step=record["version"])


if __name__ == "__main__":
    main(run)
