"""Loads the market of the current data set, and what the models say of it."""

from __future__ import annotations

from pathlib import Path

import torch

from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.config import Params
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.store.models import load_embeddings, load_signals
from marl_pipeline.store.paths import ENCODER, SIGNALS


def load_trading_market(params: Params, root: Path, dataset: Dataset, version: int = 0) -> TradingMarket:
    """The market as encoder `version` sees it; version 0 is the base fit."""
    return TradingMarket.build(
        dataset,
        load_signals(root / SIGNALS),
        load_embeddings(root / ENCODER, version),
        params.market,
        params.train_master.directives,
        gamma=params.train_symbol_agents.gamma,
        device=torch.device(params.run.device),
    )
