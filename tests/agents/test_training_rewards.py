"""Training under every reward: it runs, and what is selected on the validation span is net all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_pipeline.agents.hierarchy import Hierarchy
from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.checkpoint import NoCheckpoint
from marl_pipeline.data.dataset import Embeddings, Signals
from marl_pipeline.data.windows import Span
from marl_pipeline.errors import UserError
from marl_pipeline.progress import silent
from marl_pipeline.training.hierarchy import (
    SCORE,
    Tiers,
    hierarchy_policy,
    net_log_growth,
    train_master,
    train_symbol_agents,
)
from tests.data.market_panels import dataset_of, random_panel
from tests.stages.prepared import smoke_params

TRAIN, VALIDATION = Span(20, 100), Span(100, 140)
REWARDS = [("net", "net"), ("guide_v3_2", "risk_adjusted"), ("net_shaped", "risk_adjusted")]


def trading(reward: str, master: str) -> tuple[TradingMarket, Tiers]:
    params = smoke_params(f"market.reward={reward}", f"market.master_reward={master}")
    dataset = dataset_of(random_panel(3, bars=150))
    bars, size = dataset.panel.close.shape
    rng = np.random.default_rng(0)
    signals = Signals(("MLP72",), np.full((bars, size, 1, 3), 1 / 3, np.float32), np.ones((bars, size), bool))
    embeddings = Embeddings(0, 100, 0, rng.normal(size=(bars, size, 4)).astype(np.float32))
    market = TradingMarket.build(
        dataset, signals, embeddings, params.market, params.train_master.directives,
        gamma=params.train_symbol_agents.gamma, device=torch.device("cpu"),
    )  # fmt: skip
    return market, Tiers(params.train_symbol_agents, params.train_master)


def fresh(market: TradingMarket, tiers: Tiers, seed: int) -> dict[str, Tensor]:
    """Untrained weights of both tiers."""
    environment = market.environment("portfolio", TRAIN, num_envs=1, episode=None, seed=0)
    settings = tiers.settings("symbols", "master")
    return Hierarchy(environment, market.inputs(environment.groups), settings, seed=seed, timesteps=1).weights()


def trained(market: TradingMarket, tiers: Tiers) -> tuple[dict[str, Any], dict[str, Any]]:
    settings: dict[str, Any] = {
        "train_span": TRAIN, "validation_span": VALIDATION, "seed": 0, "on_step": silent, "checkpoint": NoCheckpoint(),
    }  # fmt: skip
    weights, symbols = train_symbol_agents(market, tiers, **settings)
    _, master = train_master(market, tiers, weights, **settings)
    return symbols, master


@pytest.mark.parametrize(("reward", "master"), REWARDS)
def test_every_reward_trains(reward: str, master: str) -> None:
    for metadata in trained(*trading(reward, master)):
        assert np.isfinite(metadata["best_validation_net"])
        assert {curve["name"] for curve in metadata["curves"]} >= {SCORE}


def test_the_same_policy_scores_the_same_net_under_every_reward() -> None:
    scores = set()
    for reward, master in REWARDS:
        market, tiers = trading(reward, master)
        weights = fresh(market, tiers, 1)
        nets = []
        for mode in ("accounts", "portfolio"):
            environment = market.environment(mode, VALIDATION, num_envs=1, episode=None, seed=0)
            nets.append(float(net_log_growth(environment, hierarchy_policy(market, tiers, weights, mode, VALIDATION))))
        assert nets[1] == pytest.approx(np.log(environment.book.equity.item() / market.params.initial_cash), rel=1e-5)
        scores.add(tuple(nets))
    assert len(scores) == 1


def test_a_bad_setting_of_a_tier_is_one_line_that_names_it() -> None:
    _, tiers = trading("net", "net")
    bad = replace(tiers, symbols=tiers.symbols.model_copy(update={"ppo": {**tiers.symbols.ppo, "epcohs": 3}}))
    with pytest.raises(UserError, match=r"train_symbol_agents.ppo: unknown parameter 'epcohs'; did you mean 'epochs'"):
        bad.settings("symbols")
