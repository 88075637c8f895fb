"""Loads what every stage of the reinforcement learning starts from: the market and what the models say of it."""

from __future__ import annotations

import torch

from marl_pipeline.data.dataset import Dataset
from marl_pipeline.pipeline.harness import StageContext
from marl_pipeline.store.models import load_embeddings, load_signals
from marl_pipeline.store.paths import ENCODER, SIGNALS
from marl_pipeline.training.hierarchy import World


def load_world(context: StageContext, dataset: Dataset, version: int = 0) -> World:
    """The world as encoder `version` sees it; version 0 is the base fit."""
    params, root = context.params, context.root
    return World.build(
        dataset,
        load_signals(root / SIGNALS),
        load_embeddings(root / ENCODER, version),
        params.market,
        params.train_symbol_agents,
        params.train_master,
        torch.device(params.run.device),
    )
