"""Loads what every stage of the reinforcement learning starts from: the market and what the models say of it."""

from __future__ import annotations

import torch

from marl_pipeline.agents.training import World
from marl_pipeline.config import Params
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.stages.store.models import load_embeddings, load_signals
from marl_pipeline.stages.store.paths import ENCODER, SIGNALS


def load_world(params: Params, dataset: Dataset, version: int = 0) -> World:
    """The world as encoder `version` sees it; version 0 is the base fit."""
    return World.build(
        dataset,
        load_signals(SIGNALS),
        load_embeddings(ENCODER, version),
        params.market,
        params.train_symbol_agents,
        params.train_master,
        torch.device(params.run.device),
    )
